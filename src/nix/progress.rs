//! Reads `--log-format internal-json`: what Nix does while it copies. Pure; a line that is not understood is no error.
//!
//! Format: Nix source, `src/libutil/logging.{hh,cc}` (`JSONLogger`, `ActivityType`, `ResultType`). Nix 2.8 over ssh-ng
//! tells finished paths only, 2.26 tells bytes as well; neither promises anything.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::message::{Said, plain};

/// `actCopyPath`: one path is being copied.
const COPY_PATH: u64 = 100;
/// `actCopyPaths`: the whole copy.
const COPY_PATHS: u64 = 103;
/// `resProgress`: done, expected, running, failed.
const PROGRESS: u64 = 105;
/// `resSetExpected`: how much of an activity type is to come.
const SET_EXPECTED: u64 = 106;

/// How far a copy is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CopyProgress {
    /// Paths that arrived.
    pub paths_done: u64,
    /// Paths that the node lacks, as far as Nix has said.
    pub paths_total: u64,
    /// NAR bytes that were sent; where Nix does not tell them, the bytes that left the process.
    pub bytes_sent: u64,
    /// NAR bytes that the node lacks; `None` where Nix does not tell them (2.8 does not).
    pub bytes_total: Option<u64>,
}

/// What was heard so far.
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// The whole copy's activity, and the number of paths in it.
    all: BTreeMap<u64, u64>,
    /// Paths being copied, with their bytes sent.
    open: BTreeMap<u64, u64>,
    closed: BTreeSet<u64>,
    bytes_of_closed: u64,
    bytes_total: Option<u64>,
    /// Messages and everything else that was said in plain text (by ssh, by the login shell).
    pub(super) said: Said,
}

/// One line of the log.
#[derive(Deserialize)]
#[serde(tag = "action", rename_all = "lowercase")]
pub(super) enum Line {
    Start {
        id: u64,
        #[serde(rename = "type")]
        kind: u64,
        #[serde(default)]
        text: String,
    },
    Stop {
        id: u64,
    },
    Result {
        id: u64,
        #[serde(rename = "type")]
        kind: u64,
        #[serde(default)]
        fields: Vec<serde_json::Value>,
    },
    Msg {
        msg: String,
    },
}

impl Heard {
    pub(super) fn hear(&mut self, line: &str) {
        let Some(json) = line.strip_prefix("@nix ") else { return self.said.hear(line) };
        match serde_json::from_str(json) {
            Err(_) => {}
            Ok(Line::Msg { msg }) => msg.lines().for_each(|line| self.said.hear(line)),
            Ok(Line::Start { id, kind: COPY_PATHS, text }) => {
                // 2.8 says the number only here: "copying 6 paths".
                let number = plain(&text).split(' ').find_map(|word| word.parse().ok());
                self.all.extend(number.map(|number| (id, number)));
            }
            Ok(Line::Start { id, kind: COPY_PATH, .. }) => {
                self.open.insert(id, 0);
            }
            Ok(Line::Stop { id }) => {
                if let Some(bytes) = self.open.remove(&id) {
                    self.closed.insert(id);
                    self.bytes_of_closed = self.bytes_of_closed.saturating_add(bytes);
                }
            }
            Ok(Line::Result { id, kind, fields }) => self.result(id, kind, &fields),
            Ok(Line::Start { .. }) => {}
        }
    }

    fn result(&mut self, id: u64, kind: u64, fields: &[serde_json::Value]) {
        let field = |at: usize| fields.get(at).and_then(serde_json::Value::as_u64);
        match (kind, field(0), field(1)) {
            (PROGRESS, Some(done), _) if self.open.contains_key(&id) => {
                self.open.insert(id, done);
            }
            (PROGRESS, _, Some(expected)) if self.all.contains_key(&id) => {
                self.all.insert(id, expected);
            }
            (SET_EXPECTED, Some(COPY_PATH), Some(bytes)) => self.bytes_total = Some(bytes),
            _ => {}
        }
    }

    /// `written`: bytes that the process wrote since its start.
    pub(super) fn progress(&self, written: u64) -> CopyProgress {
        let sum =
            |numbers: &BTreeMap<u64, u64>| numbers.values().fold(0, |sum: u64, n| sum.saturating_add(*n));
        let told = self.bytes_of_closed.saturating_add(sum(&self.open));
        CopyProgress {
            paths_done: self.closed.len() as u64,
            paths_total: sum(&self.all),
            bytes_sent: if self.bytes_total.is_some() { told } else { written },
            bytes_total: self.bytes_total,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(lines: &[&str]) -> Heard {
        let mut heard = Heard::default();
        lines.iter().for_each(|line| heard.hear(line));
        heard
    }

    #[test]
    fn a_new_nix_tells_bytes() {
        let heard = heard(&[
            r#"@nix {"action":"start","id":1,"level":3,"parent":0,"text":"copying 6 paths","type":103}"#,
            r#"@nix {"action":"result","fields":[100,1500968],"id":1,"type":106}"#,
            r#"@nix {"action":"result","fields":[0,6,1,0],"id":1,"type":105}"#,
            r#"@nix {"action":"start","fields":["/nix/store/x","local","ssh-ng://"],"id":2,"level":3,"parent":0,"text":"","type":100}"#,
            r#"@nix {"action":"result","fields":[65632,300120,0,0],"id":2,"type":105}"#,
            r#"@nix {"action":"result","fields":[300120,300120,0,0],"id":2,"type":105}"#,
            r#"@nix {"action":"stop","id":2}"#,
            r#"@nix {"action":"start","fields":[],"id":3,"level":3,"parent":0,"text":"","type":100}"#,
            r#"@nix {"action":"result","fields":[8,300120,0,0],"id":3,"type":105}"#,
        ]);
        assert_eq!(
            heard.progress(7),
            CopyProgress { paths_done: 1, paths_total: 6, bytes_sent: 300_128, bytes_total: Some(1_500_968) }
        );
    }

    #[test]
    fn an_old_nix_tells_paths_and_the_bytes_are_those_it_wrote() {
        let heard = heard(&[
            r#"@nix {"action":"start","id":17,"level":3,"text":"copying 6 paths","type":103}"#,
            r#"@nix {"action":"start","fields":[],"id":18,"level":3,"text":"copying path","type":100}"#,
            r#"@nix {"action":"stop","id":18}"#,
        ]);
        assert_eq!(
            heard.progress(7),
            CopyProgress { paths_done: 1, paths_total: 6, bytes_sent: 7, bytes_total: None }
        );
    }

    #[test]
    fn messages_are_kept_and_what_is_not_understood_is_ignored() {
        let heard = heard(&[
            "ssh: connect to host n1 port 22: Connection refused",
            r#"@nix {"action":"msg","level":0,"msg":"\u001b[31;1merror:\u001b[0m no"}"#,
            r#"@nix {"action":"juggle","id":"x"}"#,
            "@nix not even json",
        ]);
        assert_eq!(heard.said.end(9).0, ["ssh: connect to host n1 port 22: Connection refused", "error: no"]);
    }
}
