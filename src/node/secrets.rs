//! Brings a system's secrets to a node: those that its closure uses, all over one connection, and of them only what is new.
//!
//! Fetches no secret itself and keeps none: the plaintext goes from the keyring's memory into the connection. What the node
//! makes of it is the system's business (`nix/modules/activate-secrets.sh`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::frame::Reply;
use super::protocol::random_hex;
use super::{Node, NodeError};
use crate::model::secret::{Decrypt, SecretName, SecretSpec, Source};
use crate::model::store_path::StorePath;
use crate::nix::Nix;
use crate::secrets::{Content, SecretError};

/// Longest time for the node to read what it has.
const COMPARE: Duration = Duration::from_secs(30);
/// The same for taking all of them, over a slow line.
const PUT: Duration = Duration::from_secs(180);

/// What became of a node's secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Brought {
    /// Its system uses none.
    None,
    /// It had them all.
    Unchanged,
    /// These were new to it; none where only owners, modes or what is used changed.
    New(BTreeSet<SecretName>),
}

/// When a node's programs get to see them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    /// When their system is activated.
    ByItsSwitch,
    /// At once, for it runs already.
    Now,
}

impl Node {
    /// Brings the secrets of the declared system to a node that runs it already.
    pub async fn refresh_secrets(&self, nix: &Nix) -> Result<Brought, NodeError> {
        self.bring_secrets(nix, &self.spec.toplevel, Seen::Now).await
    }

    /// Brings the secrets of a system. Only those of the declared one are known: another one has what it was brought.
    pub(super) async fn bring_secrets(
        &self,
        nix: &Nix,
        toplevel: &StorePath,
        seen: Seen,
    ) -> Result<Brought, NodeError> {
        if self.spec.secrets.is_empty() || *toplevel != self.spec.toplevel {
            return Ok(Brought::None);
        }
        let set = self.fetch_secrets(nix, toplevel).await?;
        let nonce = random_hex();
        let name = format!("{}-{}", toplevel.hash(), toplevel.name());
        let input = format!("{nonce}\n");
        let attempt = "compare the secrets";
        let reply = self.ask_secrets(attempt, &["compare", &name], input.as_bytes(), COMPARE).await?;
        let base = reply.get("base").unwrap_or("-").to_owned();
        let new = set.new_to(&reply, &nonce);
        if new.is_empty() && reply.get("table") == Some(&set.table_digest()) {
            return Ok(Brought::Unchanged);
        }
        let when = match seen {
            Seen::ByItsSwitch => "later",
            Seen::Now => "now",
        };
        let input = set.message(&new);
        self.ask_secrets("bring the secrets", &["put", &name, &base, when], &input, PUT).await?;
        tracing::info!(node = %self.name, new = new.len(), all = set.lines.len(), "brought the secrets");
        Ok(Brought::New(new))
    }

    /// Those that the closure uses, with their contents where the node does not decrypt them itself.
    async fn fetch_secrets(&self, nix: &Nix, toplevel: &StorePath) -> Result<Set, NodeError> {
        let closure = if self.spec.builds_itself() && !nix.has(toplevel) {
            // It is nowhere else.
            Arc::new(self.closure(toplevel).await?)
        } else {
            nix.requisites(toplevel).await.map_err(|source| NodeError::Copy {
                node: self.name.clone(),
                toplevel: toplevel.clone(),
                source,
            })?
        };
        let closure: BTreeSet<StorePath> = closure.iter().cloned().collect();
        let mut set = Set::default();
        for (name, spec) in self.spec.secrets.iter().filter(|(_, spec)| closure.contains(&spec.marker)) {
            set.add(self, name, spec)
                .await
                .map_err(|source| NodeError::Secret { node: self.name.clone(), source: Box::new(source) })?;
        }
        Ok(set)
    }
}

/// The secrets of one system.
#[derive(Debug, Default)]
struct Set {
    contents: BTreeMap<SecretName, Content>,
    /// As the system's activation reads them.
    lines: Vec<String>,
}

impl Set {
    async fn add(&mut self, node: &Node, name: &SecretName, spec: &SecretSpec) -> Result<(), SecretError> {
        let (how, ciphertext) = match &spec.source {
            Source::Age(age) if age.decrypt == Decrypt::Node => match &age.stored {
                // It came with the closure.
                Some(stored) => ("age", stored.as_str()),
                None => {
                    let file = age.file.clone();
                    return Err(SecretError::NoCiphertext { secret: name.clone(), file });
                }
            },
            Source::File(_) | Source::Command(_) | Source::Age(_) => {
                self.contents.insert(name.clone(), node.keyring.fetch(name, spec).await?);
                ("plain", "-")
            }
        };
        let SecretSpec { user, group, mode, .. } = spec;
        self.lines.push(format!("{how} {} {name} {user} {group} {mode} {ciphertext}", spec.file_name()));
        Ok(())
    }

    /// Those whose content the node has not.
    fn new_to(&self, reply: &Reply, nonce: &str) -> BTreeSet<SecretName> {
        let has: BTreeMap<&str, &str> = reply.all("have").filter_map(|line| line.split_once(' ')).collect();
        let is_new = |(name, content): &(&SecretName, &Content)| {
            has.get(name.as_str()) != Some(&content.answer(nonce).as_str())
        };
        self.contents.iter().filter(is_new).map(|(name, _)| name.clone()).collect()
    }

    fn table_digest(&self) -> String {
        let table: String = self.lines.iter().map(|line| format!("{line}\n")).collect();
        format!("{:x}", Sha256::digest(table))
    }

    /// What `put` reads.
    fn message(&self, new: &BTreeSet<SecretName>) -> Zeroizing<Vec<u8>> {
        let bytes: usize = self.contents.values().map(|content| content.expose().len()).sum();
        // With room for all of it nothing is moved, and no copy is left behind.
        let mut message = Zeroizing::new(Vec::with_capacity(bytes + 400 * (self.lines.len() + 1)));
        for line in &self.lines {
            message.extend_from_slice(format!("line {line}\n").as_bytes());
        }
        for (name, content) in &self.contents {
            if new.contains(name) {
                let bytes = content.expose();
                message.extend_from_slice(format!("file {name} {}\n", bytes.len()).as_bytes());
                message.extend_from_slice(bytes);
                message.push(b'\n');
            } else {
                message.extend_from_slice(format!("keep {name}\n").as_bytes());
            }
        }
        message.extend_from_slice(b"done\n");
        message
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set() -> Set {
        let content = |text: &str| Content::new(text.as_bytes().to_vec());
        let contents =
            [("a", "one"), ("b", "two\n")].map(|(name, text)| (name.parse().unwrap(), content(text)));
        Set { contents: contents.into(), lines: vec!["plain h-a a root root 0400 -".into()] }
    }

    #[test]
    fn only_what_the_node_has_not_travels() {
        let set = set();
        let has = set.contents[&"a".parse().unwrap()].answer("n");
        let text = format!("driftless/1 f\nbase s\nhave a {has}\nhave b 00\nend f\n");
        let reply = Reply::parse(text.as_bytes(), "f").unwrap();
        let new = set.new_to(&reply, "n");
        assert_eq!(new.iter().map(SecretName::as_str).collect::<Vec<_>>(), ["b"]);
        let message = String::from_utf8(set.message(&new).to_vec()).unwrap();
        assert_eq!(message, "line plain h-a a root root 0400 -\nkeep a\nfile b 4\ntwo\n\ndone\n");
    }

    #[test]
    fn an_answer_to_another_nonce_counts_for_nothing() {
        let set = set();
        let old = set.contents[&"a".parse().unwrap()].answer("old");
        let reply = Reply::parse(format!("driftless/1 f\nhave a {old}\nend f\n").as_bytes(), "f").unwrap();
        assert_eq!(set.new_to(&reply, "new").len(), 2);
    }
}
