//! How acting on nodes ended: a line for each, and an error that says which failed, why, and what to type next.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use anyhow::{Result, anyhow};

use super::output;
use super::progress::{Ended, Progress};
use super::table::{Cell, Table};
use crate::error_chain::error_chain;
use crate::model::journal::{Entry, Outcome};
use crate::model::name::NodeName;
use crate::node::NodeError;

/// How acting on one node ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// As it was asked for.
    Done {
        /// One word, for example "deployed".
        word: &'static str,
        /// More, for example "boots it next time".
        detail: String,
    },
    /// As it was asked for, and the rest needs a reboot.
    Staged,
    /// Nothing had to be done, or nothing may be done.
    Left {
        /// Why.
        why: String,
    },
    /// Not as it was asked for.
    Failed {
        /// A word or two, for example "rolled back".
        word: &'static str,
        /// Why.
        why: String,
        /// Whether the node has a log of it.
        log: Log,
    },
}

/// Whether `driftless logs` can tell more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Log {
    /// The node was switched and has a log.
    OnNode,
    /// It did not come so far.
    None,
}

/// The endings of one verb, with the time each took.
pub type Endings = BTreeMap<NodeName, (Ending, Duration)>;

impl Ending {
    /// A failure before the node was switched.
    pub fn failed(word: &'static str, why: impl Into<String>) -> Self {
        Self::Failed { word, why: why.into(), log: Log::None }
    }

    /// A failed conversation with a node. The node's name is said by whoever shows it.
    pub fn of_error(name: &NodeName, error: NodeError) -> Self {
        let log = match &error {
            NodeError::LostTouch { .. } => Log::OnNode,
            NodeError::Connect { .. }
            | NodeError::Command { .. }
            | NodeError::Disconnected { .. }
            | NodeError::Deadline { .. }
            | NodeError::Frame { .. }
            | NodeError::Protocol { .. }
            | NodeError::NotNixos { .. }
            | NodeError::Refused { .. }
            | NodeError::Script { .. }
            | NodeError::NoSpace { .. }
            | NodeError::Copy { .. }
            | NodeError::Build { .. }
            | NodeError::Secret { .. }
            | NodeError::Hook { .. }
            | NodeError::NoRoot { .. }
            | NodeError::Runtime { .. } => Log::None,
        };
        Self::Failed { word: "failed", why: of_node(name, &error), log }
    }

    /// What a node's journal says of a switch.
    pub fn of_entry(entry: &Entry, done: &'static str) -> Self {
        let why = super::history::why(entry);
        let failed = |word| Self::Failed { word, why: why.clone(), log: Log::OnNode };
        match entry.outcome {
            Some(Outcome::Succeeded) => Self::Done { word: done, detail: entry.detail.clone() },
            Some(Outcome::Staged) => Self::Staged,
            Some(Outcome::RolledBack) => failed("rolled back"),
            Some(Outcome::RollbackFailed) => failed("rollback failed"),
            Some(Outcome::CommitFailed) => failed("commit failed"),
            Some(Outcome::Interfered) => failed("interfered"),
            Some(Outcome::Interrupted) => failed("interrupted"),
            None => failed("unfinished"),
        }
    }

    /// The same, and then a hook failed.
    #[must_use]
    pub fn and_hook_failed(self, name: &NodeName, error: &NodeError) -> Self {
        let said = of_node(name, error);
        match self {
            Self::Done { word, .. } => Self::failed("hook failed", format!("it is {word}, but {said}")),
            Self::Staged => Self::failed("hook failed", format!("it is staged, but {said}")),
            Self::Left { why } => Self::failed("hook failed", format!("{why}; {said}")),
            Self::Failed { word, why, log } => Self::Failed { word, why: format!("{why}; and {said}"), log },
        }
    }

    fn word(&self) -> (&'static str, Style) {
        match self {
            Self::Done { word, .. } => (word, AnsiColor::Green.on_default()),
            Self::Staged => ("staged", AnsiColor::Yellow.on_default()),
            Self::Left { .. } => ("left alone", AnsiColor::Yellow.on_default()),
            Self::Failed { word, .. } => (word, AnsiColor::Red.on_default()),
        }
    }

    fn why(&self) -> &str {
        match self {
            Self::Done { detail, .. } => detail,
            Self::Staged => "the next reboot boots it once; it becomes the default when it has proven itself",
            Self::Left { why } | Self::Failed { why, .. } => why,
        }
    }

    /// Ends the node's progress line.
    pub fn show(&self, name: &NodeName, progress: &Progress) {
        let (word, _) = self.word();
        let line = if self.why().is_empty() { word.to_owned() } else { format!("{word}: {}", self.why()) };
        match self {
            Self::Done { .. } | Self::Staged | Self::Left { .. } => progress.end(name, Ended::Well, &line),
            Self::Failed { .. } => progress.end(name, Ended::Badly, &line),
        }
    }
}

/// An error without the name of its node, which is said by whoever shows it.
fn of_node(name: &NodeName, error: &NodeError) -> String {
    let text = error_chain(error);
    text.strip_prefix(&format!("{name}: ")).unwrap_or(&text).to_owned()
}

/// Prints the summary. An error if any node failed: which, why, and the next command.
pub fn conclude(endings: &Endings) -> Result<ExitCode> {
    output::print(&table(endings).render(output::width()))?;
    match complaint(endings) {
        None => Ok(ExitCode::SUCCESS),
        Some(complaint) => Err(anyhow!(complaint)),
    }
}

fn table(endings: &Endings) -> Table<4> {
    let mut table = Table::new(["NODE", "RESULT", "TOOK", "WHY"]);
    for (name, (ending, took)) in endings {
        let (word, style) = ending.word();
        table.push([
            Cell::plain(name.as_str()),
            Cell::styled(word, style),
            Cell::plain(format!("{} s", took.as_secs())),
            Cell::plain(ending.why()),
        ]);
    }
    table
}

fn complaint(endings: &Endings) -> Option<String> {
    let failures: Vec<String> = endings
        .iter()
        .filter_map(|(name, (ending, _))| match ending {
            Ending::Done { .. } | Ending::Staged | Ending::Left { .. } => None,
            Ending::Failed { word, why, log: Log::OnNode } => {
                Some(format!("{name} {word}: {why}; see `driftless logs {name}`"))
            }
            Ending::Failed { word, why, log: Log::None } => Some(format!("{name} {word}: {why}")),
        })
        .collect();
    match failures.as_slice() {
        [] => None,
        [one] => Some(one.clone()),
        several => {
            Some(format!("{} of {} nodes failed:\n  {}", several.len(), endings.len(), several.join("\n  ")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endings(of: Vec<(&str, Ending)>) -> Endings {
        of.into_iter()
            .map(|(name, ending)| (name.parse().unwrap(), (ending, Duration::from_secs(7))))
            .collect()
    }

    #[test]
    fn a_failure_says_which_node_why_and_what_to_type_next() {
        let rolled_back = Ending::Failed {
            word: "rolled back",
            why: "lost contact after activation".into(),
            log: Log::OnNode,
        };
        let done = Ending::Done { word: "deployed", detail: String::new() };
        let one = endings(vec![("web1", done.clone()), ("web2", rolled_back.clone())]);
        insta::assert_snapshot!(complaint(&one).unwrap(), @"web2 rolled back: lost contact after activation; see `driftless logs web2`");
        let two = endings(vec![
            ("db1", Ending::failed("does not build", "error: builder failed")),
            ("web1", done),
            ("web2", rolled_back),
        ]);
        insta::assert_snapshot!(complaint(&two).unwrap(), @r"
        2 of 3 nodes failed:
          db1 does not build: error: builder failed
          web2 rolled back: lost contact after activation; see `driftless logs web2`
        ");
    }

    #[test]
    fn the_summary_has_a_line_for_each_node() {
        let all = endings(vec![
            ("db1", Ending::Left { why: "has no host".into() }),
            ("web1", Ending::Done { word: "deployed", detail: String::new() }),
            ("web2", Ending::failed("failed", "cannot connect to web2")),
        ]);
        assert!(complaint(&endings(vec![("db1", Ending::Left { why: String::new() })])).is_none());
        let text = anstream::adapter::strip_str(&table(&all).render(None)).to_string();
        insta::assert_snapshot!(text, @r"
        NODE  RESULT      TOOK  WHY
        db1   left alone  7 s   has no host
        web1  deployed    7 s
        web2  failed      7 s   cannot connect to web2
        ");
    }
}
