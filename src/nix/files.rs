//! Our Nix files on disk, as the evaluator needs them. They are never changed in place: another version has another folder.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::error::NixError;

/// All files under `nix/`, as (path below it, content); the list is made by `build.rs`.
const FILES: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/nix_files.rs"));

/// Writes the files below `state` unless they stand there, and returns the path of `manifest.nix`.
pub(super) fn write(state: &Path) -> Result<PathBuf, NixError> {
    let parent = state.join("nix");
    let folder = parent.join(&digest()[..16]);
    if !folder.join("manifest.nix").exists() {
        install(&parent, &folder).map_err(|source| NixError::State { path: folder.clone(), source })?;
    }
    Ok(folder.join("manifest.nix"))
}

/// The files appear together or not at all: a half written folder would break every later start.
fn install(parent: &Path, folder: &Path) -> io::Result<()> {
    fs::create_dir_all(parent)?;
    let unfinished = tempfile::Builder::new().prefix(".new-").tempdir_in(parent)?;
    let content = unfinished.path().join("nix");
    for (name, text) in FILES {
        let path = content.join(name);
        if let Some(above) = path.parent() {
            fs::create_dir_all(above)?;
        }
        fs::write(&path, text)?;
    }
    match fs::rename(&content, folder) {
        // Another process of ours was faster; the folder's name says that it wrote the same.
        Err(_) if folder.join("manifest.nix").exists() => Ok(()),
        done => done,
    }
}

/// Names the content.
pub(super) fn digest() -> String {
    let mut hash = Sha256::new();
    for (name, text) in FILES {
        for part in [name, text] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part.as_bytes());
        }
    }
    format!("{:x}", hash.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_nix_file_of_the_repository_is_missing() {
        let state = tempfile::tempdir().unwrap();
        let manifest = write(state.path()).unwrap();
        let (written, root) = (manifest.parent().unwrap(), Path::new(env!("CARGO_MANIFEST_DIR")).join("nix"));
        let mut open = vec![root.clone()];
        let mut compared = 0;
        while let Some(folder) = open.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    open.push(path);
                } else if path.extension().is_some_and(|extension| extension == "nix" || extension == "sh") {
                    let name = path.strip_prefix(&root).unwrap();
                    assert_eq!(fs::read(&path).unwrap(), fs::read(written.join(name)).unwrap(), "{name:?}");
                    compared += 1;
                }
            }
        }
        assert_eq!(compared, FILES.len());
    }

    #[test]
    fn a_second_start_finds_the_files_of_the_first() {
        let state = tempfile::tempdir().unwrap();
        let first = write(state.path()).unwrap();
        assert_eq!(write(state.path()).unwrap(), first);
        assert_eq!(fs::read_dir(state.path().join("nix")).unwrap().count(), 1);
    }
}
