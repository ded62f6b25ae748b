//! The generated ssh_config of a node: one for the kept connection, contact, Nix and people alike. Connects to nothing.

use std::fs;
use std::io::{self, Write as _};
use std::net::Ipv6Addr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::NodeError;
use crate::config::{SshConfig, UnknownHosts};
use crate::model::name::NodeName;
use crate::model::way::{HostKeys, Way};

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
    pub fn write(node: &NodeName, way: &Way, text: &str, runtime_dir: &Path) -> Result<Self, NodeError> {
        let known = known_hosts(node, way);
        let digest = Sha256::digest(format!("{node}\n{}\n{text}\n{known}", way.host));
        let name: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        let file = |suffix: &str| runtime_dir.join(format!("{name}{suffix}"));
        let (config, keys, socket) = (file(".conf"), file(".keys"), file(".sock"));
        private_dir(runtime_dir)
            .and_then(|()| private_file(&keys, &known))
            .and_then(|()| private_file(&config, &text.replace("@KEYS@", &keys.display().to_string())))
            .map_err(|source| NodeError::Runtime { node: node.clone(), path: config.clone(), source })?;
        Ok(Self { config, socket })
    }
}

/// What ssh is asked for. An IPv6 address is in the configuration instead, because Nix and ssh write it in different ways.
pub fn alias(node: &NodeName, host: &str) -> (String, Option<String>) {
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    // ssh_config(5) expands tokens that begin with a percent sign; a zone begins with one, too.
    let is_ipv6 = bare.split('%').next().is_some_and(|address| address.parse::<Ipv6Addr>().is_ok());
    if is_ipv6 {
        (format!("driftless-{node}"), Some(bare.replace('%', "%%")))
    } else {
        (host.to_owned(), None)
    }
}

/// The node's ssh_config(5). The first value of a keyword wins, so what was declared comes before the user's own files; and
/// only for the node itself: the ssh that ProxyJump starts for a host in between reads the same file.
pub fn generate(
    node: &NodeName,
    way: &Way,
    ssh: &SshConfig,
    (user, host, address): (Option<&str>, &str, Option<&str>),
    runtime_dir: &Path,
) -> String {
    let mut lines = vec![format!("Host {host}")];
    let mut put = |key: &str, value: &str| lines.push(format!("  {key} {value}"));
    if let Some(user) = user {
        put("User", user);
    }
    if let Some(address) = address {
        put("HostName", address);
    }
    if let Some(port) = way.port {
        put("Port", &port.to_string());
    }
    let users = ssh.known_hosts_file.as_deref().map(quoted);
    let strict = match ssh.unknown_hosts {
        UnknownHosts::TrustFirst => "accept-new",
        UnknownHosts::Refuse => "yes",
    };
    for (key, value) in &way.ssh_options {
        put(key, value);
    }
    match &way.host_keys {
        HostKeys::Only(_) => {
            put("HostKeyAlias", &format!("driftless-{node}"));
            put("UserKnownHostsFile", "\"@KEYS@\"");
            put("GlobalKnownHostsFile", "/dev/null");
            put("StrictHostKeyChecking", "yes");
        }
        HostKeys::OrKnownHosts(_) => {
            let users = users.as_deref().unwrap_or("~/.ssh/known_hosts ~/.ssh/known_hosts2");
            put("UserKnownHostsFile", &format!("\"@KEYS@\" {users}"));
        }
        HostKeys::KnownHosts => {}
    }
    put("Host", "*");
    put("BatchMode", "yes");
    if let Some(identity) = &ssh.identity_file {
        put("IdentityFile", &quoted(identity));
        put("IdentitiesOnly", "yes");
    }
    if let Some(users) = &users {
        put("UserKnownHostsFile", users);
    }
    put("StrictHostKeyChecking", strict);
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

/// Lines of a known_hosts file (sshd(8)); a star is every host.
fn known_hosts(node: &NodeName, way: &Way) -> String {
    match &way.host_keys {
        HostKeys::KnownHosts => String::new(),
        HostKeys::Only(keys) => keys.iter().map(|key| format!("driftless-{node} {key}\n")).collect(),
        HostKeys::OrKnownHosts(keys) => keys.iter().map(|key| format!("* {key}\n")).collect(),
    }
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
