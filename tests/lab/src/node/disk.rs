//! A node's disks and its store: what is put there from this side. Never runs anything on the node but what a person would.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::{COMMAND, Node};
use crate::program::{bounded, require};
use crate::system::nix_config;

impl Node {
    /// Puts the closure of a system (or of any store path of this machine) into its store, without the network.
    pub fn receive(&self, path: &str) -> Result<()> {
        require(
            bounded(COMMAND, "nix")
                .env("NIX_CONFIG", nix_config())
                .args(["copy", "--no-check-sigs", "--to"])
                .arg(self.path("/"))
                .arg(path),
        )
        .with_context(|| format!("copying {path} to {}", self.name))
        .map(drop)
    }

    /// What a person does with `nixos-rebuild switch`: puts the system on it, makes it the profile's newest generation and
    /// switches to it. Yields what switch-to-configuration said.
    pub fn nixos_rebuild(&self, system: &str) -> Result<crate::Output> {
        self.receive(system)?;
        self.enter(&format!(
            "nix-env -p /nix/var/nix/profiles/system --set {system} && {system}/bin/switch-to-configuration switch"
        ))
    }

    /// Leaves no free byte on `/nix` or `/var`.
    pub fn fill(&self, file_system: &str) -> Result<()> {
        let place = self.path(file_system);
        let mut tries = 0;
        loop {
            let used = require(bounded(COMMAND, "df").arg("--output=used").arg("-B1").arg(&place))?;
            let used = used.lines().last().unwrap_or_default().trim().to_owned();
            let resized = self.resize(file_system, &used);
            tries += 1;
            // Who wrote in between has made that size too small.
            if resized.is_ok() || tries == 20 {
                return resized;
            }
        }
    }

    /// Gives back what [`Node::fill`] took.
    pub fn empty(&self, file_system: &str) -> Result<()> {
        let (_, size) = self
            .sizes
            .iter()
            .find(|(place, _)| *place == file_system)
            .with_context(|| format!("{file_system} is no file system of its own"))?;
        self.resize(file_system, &size.to_string())
    }

    fn resize(&self, file_system: &str, bytes: &str) -> Result<()> {
        if !self.sizes.iter().any(|(place, _)| *place == file_system) {
            bail!("{file_system} is no file system of its own");
        }
        require(
            bounded(COMMAND, "mount")
                .args(["-o", &format!("remount,size={bytes}")])
                .arg(self.path(file_system)),
        )
        .map(drop)
    }
}

/// Puts a closure into a node's `/nix` and makes it generation 1 of the system profile and the boot loader's default.
pub(super) fn install(store: &Path, root: &Path, system: &str) -> Result<()> {
    require(bounded(COMMAND, "cp").arg("-a").arg(store.join("nix").join(".")).arg(root.join("nix")))?;
    let var = root.join("nix/var/nix");
    for dir in ["profiles/per-user/root", "gcroots", "daemon-socket"] {
        fs::create_dir_all(var.join(dir))?;
    }
    symlink(system, var.join("profiles/system-1-link"))?;
    symlink("system-1-link", var.join("profiles/system"))?;
    for (name, target) in [
        ("current-system", "/run/current-system"),
        ("booted-system", "/run/booted-system"),
        ("profiles", "/nix/var/nix/profiles"),
    ] {
        let link = var.join("gcroots").join(name);
        let _ = fs::remove_file(&link);
        symlink(target, link)?;
    }
    let loader = root.join("boot/loader");
    fs::write(loader.join("loader.conf"), "timeout 0\ndefault nixos-generation-1.conf\n")?;
    fs::write(
        loader.join("entries/nixos-generation-1.conf"),
        format!("title NixOS\nversion Generation 1\noptions init={system}/init\n"),
    )?;
    Ok(())
}
