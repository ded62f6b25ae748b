//! How a node is reached and worked on: everything that a deployment may change of it, and all that contact proves.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::node::NodeSpec;

/// One way to a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Way {
    /// `host` or `user@host`; `localhost` and `local` need no SSH.
    pub host: String,
    /// TCP port of sshd; `None` leaves it to the user's SSH configuration.
    pub port: Option<u16>,
    /// Further ssh_config(5) keywords.
    pub ssh_options: BTreeMap<String, String>,
    /// Which host keys are the node's.
    pub host_keys: HostKeys,
    /// Put before commands that need root where the SSH user is not root.
    pub escalation: Vec<String>,
}

/// Which host keys are a node's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "from", content = "keys")]
pub enum HostKeys {
    /// Those of the user's known_hosts.
    KnownHosts,
    /// These and no other.
    Only(Vec<String>),
    /// These, and those of the user's known_hosts: for a person who names another address.
    OrKnownHosts(Vec<String>),
}

/// One of the two ways that a node may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// The one that the deployment declares.
    Declared,
    /// The one that answered last, while the declared one does not.
    Last,
}

impl NodeSpec {
    /// The way that is declared.
    pub fn way(&self) -> Way {
        let keys = self.host_keys.clone();
        Way {
            host: self.host.clone().unwrap_or_else(|| "localhost".into()),
            port: self.port,
            ssh_options: self.ssh_options.clone(),
            host_keys: if keys.is_empty() { HostKeys::KnownHosts } else { HostKeys::Only(keys) },
            escalation: self.privilege_escalation_command.clone(),
        }
    }

    /// The same node, reached in another way.
    #[must_use]
    pub fn reached_by(self, way: &Way) -> Self {
        Self {
            host: Some(way.host.clone()),
            port: way.port,
            ssh_options: way.ssh_options.clone(),
            host_keys: match &way.host_keys {
                HostKeys::KnownHosts => Vec::new(),
                HostKeys::Only(keys) | HostKeys::OrKnownHosts(keys) => keys.clone(),
            },
            privilege_escalation_command: way.escalation.clone(),
            ..self
        }
    }
}

impl Way {
    /// Its name where another way has to be told from it.
    pub fn told_from(&self, other: &Self) -> String {
        let name = self.to_string();
        if name != other.to_string() {
            return name;
        }
        if self.host_keys != other.host_keys {
            return format!("{name} with {}", self.host_keys);
        }
        if self.ssh_options != other.ssh_options {
            let options: Vec<String> =
                self.ssh_options.iter().map(|(key, value)| format!("{key}={value}")).collect();
            let options = if options.is_empty() { "none".into() } else { options.join(", ") };
            return format!("{name} with sshOptions {options}");
        }
        let escalation = self.escalation.join(" ");
        let escalation = if escalation.is_empty() { "none" } else { &escalation };
        format!("{name} with privilegeEscalationCommand {escalation}")
    }

    /// The way of a person's `[user@]host[:port]`, as far as it says; the rest is as for `self`.
    pub fn at(&self, address: &str) -> Self {
        let (user, place) = match address.rsplit_once('@') {
            Some((user, place)) => (Some(user), place),
            None => (self.host.rsplit_once('@').map(|(user, _)| user), address),
        };
        // An IPv6 address has colons of its own; it is in brackets where a port follows.
        let bare_ipv6 = place.matches(':').count() > 1 && !place.contains("]:");
        let (host, port) = match place.rsplit_once(':').filter(|_| !bare_ipv6) {
            Some((host, port)) if port.parse::<u16>().is_ok() => (host, port.parse().ok()),
            Some(_) | None => (place, None),
        };
        let keys = match &self.host_keys {
            HostKeys::KnownHosts => Vec::new(),
            HostKeys::Only(keys) | HostKeys::OrKnownHosts(keys) => keys.clone(),
        };
        Self {
            host: user.map_or_else(|| host.to_owned(), |user| format!("{user}@{host}")),
            port,
            host_keys: HostKeys::OrKnownHosts(keys),
            ..self.clone()
        }
    }
}

/// For people: the host, and the port where one is declared.
impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => write!(f, "{} port {port}", self.host),
            None => f.write_str(&self.host),
        }
    }
}

/// For people, who tell a key by its end.
impl fmt::Display for HostKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KnownHosts => f.write_str("the host key of known_hosts"),
            Self::Only(keys) | Self::OrKnownHosts(keys) => {
                let key = keys.first().and_then(|key| key.split(' ').nth(1)).unwrap_or_default();
                let end: String = key.chars().rev().take(8).collect();
                write!(f, "host key …{}", end.chars().rev().collect::<String>())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way() -> Way {
        Way {
            host: "root@web1".into(),
            port: Some(2222),
            ssh_options: BTreeMap::new(),
            host_keys: HostKeys::Only(vec!["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIabcdefgh".into()]),
            escalation: Vec::new(),
        }
    }

    #[test]
    fn a_person_names_an_address_with_or_without_user_and_port() {
        let at = |address: &str| {
            let way = way().at(address);
            (way.host, way.port)
        };
        assert_eq!(at("192.0.2.7"), ("root@192.0.2.7".into(), None));
        assert_eq!(at("192.0.2.7:23"), ("root@192.0.2.7".into(), Some(23)));
        assert_eq!(at("alice@web1.example.org:23"), ("alice@web1.example.org".into(), Some(23)));
        assert_eq!(at("fd00::1"), ("root@fd00::1".into(), None));
        assert_eq!(at("[fd00::1]"), ("root@[fd00::1]".into(), None));
        assert_eq!(at("[fd00::1]:23"), ("root@[fd00::1]".into(), Some(23)));
        assert!(matches!(way().at("web1").host_keys, HostKeys::OrKnownHosts(keys) if keys.len() == 1));
    }

    #[test]
    fn two_ways_are_told_apart_by_what_differs() {
        let (first, mut other) = (way(), way());
        other.port = None;
        assert_eq!(
            (first.told_from(&other), other.told_from(&first)),
            ("root@web1 port 2222".into(), "root@web1".into())
        );
        let mut other = way();
        other.host_keys = HostKeys::KnownHosts;
        assert_eq!(first.told_from(&other), "root@web1 port 2222 with host key …abcdefgh");
        assert_eq!(other.told_from(&first), "root@web1 port 2222 with the host key of known_hosts");
        let mut other = way();
        other.ssh_options = BTreeMap::from([("ProxyJump".into(), "gate".into())]);
        assert_eq!(other.told_from(&first), "root@web1 port 2222 with sshOptions ProxyJump=gate");
        let mut other = way();
        other.escalation = vec!["doas".into()];
        assert_eq!(other.told_from(&first), "root@web1 port 2222 with privilegeEscalationCommand doas");
    }

    #[test]
    fn a_declaration_and_its_way_say_the_same() {
        let spec = serde_json::json!({
            "drv": "/nix/store/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-x.drv",
            "toplevel": "/nix/store/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-x", "system": "x86_64-linux", "host": "web",
        });
        let spec: NodeSpec = serde_json::from_value(spec).unwrap();
        assert_eq!(spec.clone().reached_by(&way()).way(), way());
        assert_eq!(spec.clone().reached_by(&spec.way()), spec);
    }
}
