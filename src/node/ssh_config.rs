//! The generated ssh_config of a node: one for the kept connection, contact, Nix and people alike. Connects to nothing.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::NodeError;
use crate::config::{SshConfig, UnknownHosts};
use crate::model::name::NodeName;
use crate::model::node::NodeSpec;

/// The files of one way to one node. Another way has other files, so that no connection is shared by mistake.
#[derive(Debug)]
pub struct Files {
    /// The ssh_config(5).
    pub config: PathBuf,
    /// The control socket of the kept connection.
    pub socket: PathBuf,
}

impl Files {
    /// Writes a generated configuration below the runtime directory, whose path has to be short (unix(7): 108 bytes).
    pub fn write(
        node: &NodeName,
        host: &str,
        spec: &NodeSpec,
        text: &str,
        runtime_dir: &Path,
    ) -> Result<Self, NodeError> {
        let digest = Sha256::digest(format!("{node}\n{host}\n{text}\n{}", known_hosts(node, spec)));
        let name: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        let file = |suffix: &str| runtime_dir.join(format!("{name}{suffix}"));
        let (config, keys, socket) = (file(".conf"), file(".keys"), file(".sock"));
        private_dir(runtime_dir)
            .and_then(|()| private_file(&keys, &known_hosts(node, spec)))
            .and_then(|()| private_file(&config, &text.replace("@KEYS@", &keys.display().to_string())))
            .map_err(|source| NodeError::Runtime { node: node.clone(), path: config.clone(), source })?;
        Ok(Self { config, socket })
    }
}

/// The node's ssh_config(5). The first value of a keyword wins, so what was declared comes before the user's own files.
pub fn generate(
    node: &NodeName,
    spec: &NodeSpec,
    ssh: &SshConfig,
    user: Option<&str>,
    runtime_dir: &Path,
) -> String {
    let mut lines = vec!["Host *".to_owned()];
    let mut put = |key: &str, value: &str| lines.push(format!("  {key} {value}"));
    put("BatchMode", "yes");
    if let Some(user) = user {
        put("User", user);
    }
    if let Some(port) = spec.port {
        put("Port", &port.to_string());
    }
    for (key, value) in &spec.ssh_options {
        put(key, value);
    }
    if let Some(identity) = &ssh.identity_file {
        put("IdentityFile", &quoted(identity));
        put("IdentitiesOnly", "yes");
    }
    if !spec.host_keys.is_empty() {
        put("HostKeyAlias", &format!("driftless-{node}"));
        put("UserKnownHostsFile", "\"@KEYS@\"");
        put("GlobalKnownHostsFile", "/dev/null");
    } else if let Some(file) = &ssh.known_hosts_file {
        put("UserKnownHostsFile", &quoted(file));
    }
    put(
        "StrictHostKeyChecking",
        match (ssh.unknown_hosts, spec.host_keys.is_empty()) {
            (UnknownHosts::TrustFirst, true) => "accept-new",
            (UnknownHosts::TrustFirst, false) | (UnknownHosts::Refuse, _) => "yes",
        },
    );
    // A dead peer is noticed within 45 s even where TCP would wait for hours.
    put("ServerAliveInterval", "15");
    put("ServerAliveCountMax", "3");
    put("ForwardAgent", "no");
    put("ForwardX11", "no");
    put("PermitLocalCommand", "no");
    put("RequestTTY", "no");
    if let Ok(home) = std::env::var("HOME") {
        put("Include", &format!("\"{home}/.ssh/config\""));
    }
    put("Include", "/etc/ssh/ssh_config");
    // The runtime directory is part of the text so that two controllers never share a socket's name.
    lines.push(format!("# {}", runtime_dir.display()));
    lines.join("\n") + "\n"
}

fn quoted(path: &Path) -> String {
    format!("\"{}\"", path.display())
}

fn known_hosts(node: &NodeName, spec: &NodeSpec) -> String {
    spec.host_keys.iter().map(|key| format!("driftless-{node} {key}\n")).collect()
}

fn private_dir(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn private_file(path: &Path, text: &str) -> io::Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(text.as_bytes())?;
    fs::rename(new, path)
}
