//! How big a store path's archive is, where that is told faster by looking at its few files than by a program that opens Nix's
//! database. Reads names and sizes, and no content.
//!
//! The format is that of the Nix manual, "Nix Archive (NAR) format": words, each behind its length, padded to eight bytes.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::model::store_path::StorePath;

/// Size of its NAR, bytes. `files` is how many may still be looked at, and counted down; `None` where that is not enough, or
/// where something cannot be read.
pub fn size(path: &StorePath, files: &mut usize) -> Option<u64> {
    Some(word(b"nix-archive-1".len()) + node(Path::new(path.as_str()), files).ok()?)
}

/// A word with its length before it and zeros behind it.
fn word(length: usize) -> u64 {
    8 + (length as u64).next_multiple_of(8)
}

fn words(words: &[&str]) -> u64 {
    words.iter().map(|text| word(text.len())).sum()
}

fn node(path: &Path, files: &mut usize) -> io::Result<u64> {
    *files = files.checked_sub(1).ok_or(io::ErrorKind::QuotaExceeded)?;
    let seen = path.symlink_metadata()?;
    let inside = if seen.is_dir() {
        let mut inside = words(&["type", "directory"]);
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            let name = word(entry.file_name().as_bytes().len());
            inside += words(&["entry", "(", "name", "node", ")"]) + name + node(&entry.path(), files)?;
        }
        inside
    } else if seen.is_symlink() {
        words(&["type", "symlink", "target"]) + word(fs::read_link(path)?.as_os_str().as_bytes().len())
    } else {
        let executable = if seen.permissions().mode() & 0o100 == 0 { 0 } else { words(&["executable", ""]) };
        words(&["type", "regular", "contents"]) + executable + 8 + seen.len().next_multiple_of(8)
    };
    Ok(words(&["(", ")"]) + inside)
}
