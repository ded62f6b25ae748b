//! `driftless secrets edit`: decrypts a file of the repository into memory, lets an editor change it, and encrypts it again.
//! The plaintext is in a file system in memory, only for this user, for as long as the editor runs.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{ExitCode, ExitStatus};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;
use tokio::signal::unix::{SignalKind, signal};

use super::{Encrypted, real, shown};
use crate::cli::Global;
use crate::cli::fleet::Declared;
use crate::secrets::Content;

/// Arguments of `secrets edit`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The encrypted file; made where there is none
    #[arg(value_name = "FILE")]
    pub encrypted: PathBuf,
    /// Encrypt to this public key of age or SSH too
    #[arg(short, long, value_name = "KEY")]
    pub recipient: Vec<String>,
    /// Where the fleet is declared.
    #[command(flatten)]
    pub declared: Declared,
}

/// Edits one file.
pub async fn run(global: &Global, args: Args) -> Result<ExitCode> {
    let encrypted = Encrypted::of(global, &args.declared).await?;
    let file = real(&args.encrypted);
    let recipients = encrypted.recipients(&file, &args.recipient)?;
    let old = if file.exists() { Some(encrypted.open(&file)?) } else { None };
    let new = edited(old.as_ref(), &file).await?;
    let name = shown(&file);
    if new.expose().is_empty() {
        bail!("nothing was written: the secret would be empty");
    }
    if args.recipient.is_empty() && old.as_ref().is_some_and(|old| old.expose() == new.expose()) {
        anstream::println!("{name}: unchanged");
        return Ok(ExitCode::SUCCESS);
    }
    encrypted.write(&file, &new, &recipients)?;
    let keys = if recipients.len() == 1 { "1 key".into() } else { format!("{} keys", recipients.len()) };
    let hint = if old.is_none() { "; add it to Git, for a flake sees nothing else" } else { "" };
    anstream::println!("{name}: encrypted to {keys}{hint}");
    Ok(ExitCode::SUCCESS)
}

/// What a person makes of it.
async fn edited(old: Option<&Content>, file: &Path) -> Result<Content> {
    let room = in_memory()?;
    // As the file is called, without what says that it is encrypted: editors go by the name.
    let path = room.path().join(file.file_stem().unwrap_or_else(|| "secret".as_ref()));
    let written = || -> std::io::Result<()> {
        let mut clear = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        clear.write_all(old.map(Content::expose).unwrap_or_default())
    };
    written().with_context(|| format!("cannot write {}", path.display()))?;
    let status = edit(&path).await?;
    if !status.success() {
        bail!("the editor failed ({status}); nothing was written");
    }
    let length = fs::metadata(&path).with_context(|| format!("the editor left no {}", path.display()))?.len();
    if length > Content::MOST as u64 {
        bail!("nothing was written: a secret has at most {} bytes", Content::MOST);
    }
    // The whole directory goes, and with it what the editor left there.
    Ok(Content::new(fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?))
}

/// Runs the person's editor. A terminal that is closed must not leave the file behind.
async fn edit(path: &Path) -> Result<ExitStatus> {
    let editor =
        ["VISUAL", "EDITOR"].iter().find_map(|key| std::env::var(key).ok().filter(|it| !it.is_empty()));
    let editor = editor.unwrap_or_else(|| "vi".into());
    let mut hung_up = signal(SignalKind::hangup()).context("cannot listen to SIGHUP")?;
    // By a shell, as everybody runs it: there may be arguments in the variable.
    let mut command = tokio::process::Command::new("sh");
    command.args(["-c", &format!("{editor} \"$1\""), "sh"]).arg(path).kill_on_drop(true);
    let mut child = command.spawn().context("cannot run sh for the editor")?;
    tokio::select! {
        status = child.wait() => status.with_context(|| format!("cannot wait for {editor}")),
        _ = hung_up.recv() => bail!("the terminal was closed; nothing was written"),
    }
}

/// A directory that is never on a disk, for this user alone.
fn in_memory() -> Result<TempDir> {
    let run = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let places = [Some(PathBuf::from("/dev/shm")), run];
    for place in places.into_iter().flatten().filter(|place| is_in_memory(place)) {
        let only_ours = fs::Permissions::from_mode(0o700);
        let room = tempfile::Builder::new().prefix("driftless-").permissions(only_ours).tempdir_in(&place);
        if let Ok(room) = room {
            return Ok(room);
        }
    }
    bail!(
        "neither /dev/shm nor $XDG_RUNTIME_DIR is a file system in memory where this user can write; a plaintext goes to no disk"
    )
}

/// By the mount that it is on, the longest of those above it (proc_pid_mounts(5)).
fn is_in_memory(place: &Path) -> bool {
    let Ok(place) = place.canonicalize() else { return false };
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let above = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        let (at, kind) = (Path::new(words.next()?), words.next()?);
        place.starts_with(at).then_some((at.as_os_str().len(), kind))
    });
    above.max_by_key(|(length, _)| *length).is_some_and(|(_, kind)| matches!(kind, "tmpfs" | "ramfs"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_no_memory() {
        assert!(is_in_memory(Path::new("/dev/shm")));
        assert!(!is_in_memory(Path::new("/proc")) && !is_in_memory(Path::new("/no/such/place")));
    }
}
