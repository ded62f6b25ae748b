//! How a node differs from the plain one: users, banners, options of sshd and Nix, sizes. Only what is laid out before the
//! first boot; never changes a node that runs.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::base::Base;
use crate::program::{bounded, require};

/// What a node gets before its first boot. Use it with `..Setup::default()`.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Where `/usr` comes from; `None` asks `$DRIFTLESS_LAB_BASE`.
    pub base: Option<Base>,
    /// Users beside root; the lab's identity may log in as each.
    pub users: Vec<User>,
    /// Lines put first in every user's `.bashrc` (bash reads it for commands over SSH too): the banners that break protocols.
    pub bashrc: Option<String>,
    /// What sshd shows before a login.
    pub ssh_banner: Option<String>,
    /// Lines of sshd's configuration, which win over the lab's. By default one for a cheap key exchange: that of OpenSSH 9
    /// costs a tenth of a second of processor time for a login, and tests log in thousands of times.
    pub sshd_options: Vec<String>,
    /// Lines added to `nix.conf`; later ones win.
    pub nix_conf: Vec<String>,
    /// Store paths of this machine whose closures are in its store from the start: what a test deploys need not be copied.
    pub store: Vec<String>,
    /// Files to write, by absolute path in the node.
    pub files: Vec<(PathBuf, String)>,
    /// Size of the file system `/nix` in bytes. It is memory of the host, used only as it is filled.
    pub nix_bytes: u64,
    /// Size of the file system `/var` in bytes.
    pub var_bytes: u64,
}

impl Default for Setup {
    fn default() -> Setup {
        Setup {
            base: None,
            users: Vec::new(),
            bashrc: None,
            ssh_banner: None,
            sshd_options: vec!["KexAlgorithms curve25519-sha256".into()],
            nix_conf: Vec::new(),
            store: Vec::new(),
            files: Vec::new(),
            nix_bytes: 256 << 20,
            var_bytes: 96 << 20,
        }
    }
}

/// A user of a node beside root.
#[derive(Debug, Clone)]
pub struct User {
    /// Login name.
    pub name: String,
    /// What it may do as root.
    pub sudo: Sudo,
}

/// What a user may do as root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sudo {
    /// Nothing.
    Never,
    /// Everything, after a password that it does not have.
    WithPassword,
    /// Everything.
    WithoutPassword,
}

impl Setup {
    /// Lays this out in the node's root file system.
    pub(crate) fn apply(&self, root: &Path) -> Result<()> {
        let identity = fs::read_to_string(root.join("root/.ssh/authorized_keys"))?;
        let bashrc = self.bashrc.clone().unwrap_or_default();
        write(root, "root/.bashrc", &bashrc)?;
        for (number, user) in self.users.iter().enumerate() {
            let (name, id) = (&user.name, 3000 + number);
            append(root, "etc/passwd", &format!("{name}:x:{id}:{id}::/home/{name}:/bin/bash\n"))?;
            append(root, "etc/group", &format!("{name}:x:{id}:\n"))?;
            append(root, "etc/shadow", &format!("{name}:*:19000:0:99999:7:::\n"))?;
            write(root, &format!("home/{name}/.bashrc"), &bashrc)?;
            write(root, &format!("home/{name}/.ssh/authorized_keys"), &identity)?;
            require(
                bounded(Duration::from_secs(10), "chown")
                    .args(["-R", &format!("{id}:{id}")])
                    .arg(root.join("home").join(name)),
            )?;
            match user.sudo {
                Sudo::Never => {}
                Sudo::WithPassword => {
                    append(root, "etc/sudoers.d/lab", &format!("{name} ALL=(ALL:ALL) ALL\n"))?
                }
                Sudo::WithoutPassword => {
                    append(root, "etc/sudoers.d/lab", &format!("{name} ALL=(ALL:ALL) NOPASSWD: ALL\n"))?
                }
            }
        }
        if let Some(banner) = &self.ssh_banner {
            write(root, "etc/ssh/banner", banner)?;
            append(root, "etc/ssh/sshd_config.d/banner.conf", "Banner /etc/ssh/banner\n")?;
        }
        for line in &self.sshd_options {
            append(root, "etc/ssh/sshd_config.d/options.conf", &format!("{line}\n"))?;
        }
        for line in &self.nix_conf {
            append(root, "etc/nix/nix.conf", &format!("{line}\n"))?;
        }
        for (path, content) in &self.files {
            write(root, path.strip_prefix("/").unwrap_or(path).to_str().unwrap_or_default(), content)?;
        }
        Ok(())
    }
}

fn write(root: &Path, path: &str, content: &str) -> Result<()> {
    let path = root.join(path);
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).with_context(|| format!("creating {}", parent.display()))?;
    }
    fs::write(&path, content).with_context(|| format!("writing {}", path.display()))
}

fn append(root: &Path, path: &str, content: &str) -> Result<()> {
    let path = root.join(path);
    fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path)
        .and_then(|mut file| file.write_all(content.as_bytes()))
        .with_context(|| format!("writing {}", path.display()))
}
