//! One call of a verb on a node, in the words of either half: of a shell, to which the scripts are sent along, and of the
//! program that `nix/node.nix` installed. Pure.

use zeroize::Zeroizing;

use super::installed;
use super::{SECRETS_SH, SWITCH_SH};
use crate::model::journal::SwitchId;
use crate::model::store_path::StorePath;

/// Where each switch keeps the script it was started with.
const JOURNAL: &str = "/var/lib/driftless-node/switches";

/// Keeps the script that comes on stdin, then becomes it. `$1` is the frame, `$3` the switch's id.
const SAVE: &str = r#"umask 077
f=/run/driftless-node/start-$3.sh
{ [ -d /run/driftless-node ] || { mkdir -p /run/driftless-node && chmod 0755 /run/driftless-node; }; } && cat >"$f" &&
exec sh "$f" "$@"
rm -f "$f"
printf '\ndriftless/1 %s\nrefused unwritable %s\nend %s\n' "$1" "$f" "$1""#;

/// Becomes the script that comes on stdin. `sh -s` would do, but a shell must not read more of a pipe than it has executed:
/// bash, which is NixOS' sh, asks for every byte by itself, 50 000 times.
const READ: &str = r#"eval "$(cat)""#;

/// Hands the login's own SSH_CONNECTION on, before an escalation drops it from the environment. (driftless-node does that
/// by itself.)
const WITH_CONNECTION: &str = r#"exec "$@" "${SSH_CONNECTION-}""#;
/// What stands for it where nothing drops it. (A script of before takes it for another connection, which it is.)
const FROM_ENVIRONMENT: &str = "-";
const WITH_SSH_FROM: &str = r#"exec "$@" "ssh-from=${SSH_CONNECTION-}""#;
/// The same where nothing drops it, for the shell that goes on itself.
const ADD_SSH_FROM: &str = r#"set -- "$@" "ssh-from=${SSH_CONNECTION-}""#;

/// Takes the script from the front of stdin into its memory and leaves the rest to it: with what follows, it must not be in
/// any file, and the script is too long for an argument that sudo writes to its log.
const LOAD: &str = r#"s=$(head -c "$1") || exit; shift; eval "$s""#;

/// Who a verb runs as on the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Privilege {
    /// Whoever we log in as: reading needs no more, and sudo logs every call.
    Login,
    /// root, by the node's escalation command where the login is not root.
    Root,
}

/// A verb with its arguments.
#[derive(Debug)]
pub struct Call<'a> {
    /// What it goes to.
    pub of: Of<'a>,
    /// Verb and arguments.
    pub words: Vec<&'a str>,
}

/// Which script has the verb, and what comes with it.
#[derive(Debug)]
pub enum Of<'a> {
    /// `switch.sh`, sent along.
    Node(Privilege),
    /// The same, with paths that it looks at. By stdin: a closure is longer than one argument may be (execve(2),
    /// MAX_ARG_STRLEN).
    Paths(&'a [StorePath]),
    /// `start`, which keeps the script it came with.
    Start,
    /// The script that a switch was started with.
    Switch(&'a SwitchId),
    /// The same over a new login, which it is told of.
    Contact(&'a SwitchId),
    /// `secrets.sh`, with what follows it on stdin.
    Secrets(&'a [u8]),
}

/// What is written to stdin; it may hold secrets.
pub type Input = Zeroizing<Vec<u8>>;

impl<'a> Call<'a> {
    /// A verb of `switch.sh`.
    pub fn new(of: Of<'a>, words: &[&'a str]) -> Self {
        Self { of, words: words.to_vec() }
    }

    /// A verb of one switch.
    pub fn of_switch(
        id: &'a SwitchId,
        of: fn(&'a SwitchId) -> Of<'a>,
        verb: &'a str,
        more: &[&'a str],
    ) -> Self {
        let words = [verb, id.as_str()].into_iter().chain(more.iter().copied()).collect();
        Self { of: of(id), words }
    }

    /// Whether it needs root on the node.
    pub fn privilege(&self) -> Privilege {
        match self.of {
            Of::Node(privilege) => privilege,
            Of::Paths(_) | Of::Start | Of::Switch(_) | Of::Contact(_) | Of::Secrets(_) => Privilege::Root,
        }
    }

    /// For a shell: its words, and what it reads.
    pub fn for_shell(&self, frame: &str, escalation: &[String]) -> (Vec<String>, Input) {
        let mut words = Vec::new();
        match self.of {
            Of::Start if escalation.is_empty() => {}
            Of::Start => put(&mut words, &["sh", "-c", WITH_SSH_FROM, "sh"]),
            // The script finds it in its environment.
            Of::Contact(_) if escalation.is_empty() => {}
            Of::Contact(_) => put(&mut words, &["sh", "-c", WITH_CONNECTION, "sh"]),
            Of::Node(_) | Of::Paths(_) | Of::Switch(_) | Of::Secrets(_) => {}
        }
        words.extend(escalation.iter().cloned());
        let input = match self.of {
            Of::Node(_) => {
                put(&mut words, &["sh", "-c", READ, "sh", frame]);
                SWITCH_SH.as_bytes().to_vec()
            }
            Of::Paths(paths) => {
                put(&mut words, &["sh", "-c", READ, "sh", frame]);
                // No character of a store path means anything to a shell.
                format!("WANTED='{}'\n{SWITCH_SH}", listed(paths)).into_bytes()
            }
            Of::Start => {
                let save =
                    if escalation.is_empty() { format!("{ADD_SSH_FROM}\n{SAVE}") } else { SAVE.to_owned() };
                put(&mut words, &["sh", "-c", &save, "sh", frame]);
                SWITCH_SH.as_bytes().to_vec()
            }
            Of::Switch(id) | Of::Contact(id) => {
                put(&mut words, &["sh", &format!("{JOURNAL}/{id}/switch.sh"), frame]);
                Vec::new()
            }
            Of::Secrets(message) => {
                put(&mut words, &["sh", "-c", LOAD, "sh", &SECRETS_SH.len().to_string(), frame]);
                let mut all = Vec::with_capacity(SECRETS_SH.len() + message.len());
                all.extend_from_slice(SECRETS_SH.as_bytes());
                all.extend_from_slice(message);
                all
            }
        };
        put(&mut words, &self.words);
        if matches!(self.of, Of::Contact(_)) && escalation.is_empty() {
            put(&mut words, &[FROM_ENVIRONMENT]);
        }
        (words, Zeroizing::new(input))
    }

    /// For the installed program: its command line, and what it reads.
    pub fn for_installed(&self, frame: &str) -> (String, Input) {
        let mut words = self.words.clone();
        let input = match self.of {
            Of::Node(_) | Of::Start | Of::Switch(_) | Of::Contact(_) => Vec::new(),
            Of::Paths(paths) => format!("{}\n", listed(paths)).into_bytes(),
            Of::Secrets(message) => {
                words.insert(0, "secrets");
                message.to_vec()
            }
        };
        (installed::line(frame, &words), Zeroizing::new(input))
    }
}

fn put(words: &mut Vec<String>, more: &[&str]) {
    words.extend(more.iter().map(|word| (*word).to_owned()));
}

fn listed(paths: &[StorePath]) -> String {
    paths.iter().map(StorePath::as_str).collect::<Vec<_>>().join("\n")
}
