//! What Nix says on stderr, cut down to what a person needs. Pure text.
//!
//! Seen: Nix 2.8 prints `error: REASON`, the place, then the trace; since 2.20 it prints `error:`, the trace, and the
//! reason at the end as an indented `error: REASON`.

use std::collections::VecDeque;

use crate::command::Tail;
use crate::model::store_path::DrvPath;

/// A trace can be long, its end and its start are all that counts.
const MOST_LINES: usize = 600;
/// Nix prints whole attribute sets on one line.
const MOST_LINE: usize = 2_000;
/// What a person reads.
const SHOWN: usize = 25;

/// The newest lines of a program's stderr, without colours.
#[derive(Debug, Default)]
pub(super) struct Said(VecDeque<String>);

impl Said {
    pub(super) fn hear(&mut self, line: &str) {
        if self.0.len() == MOST_LINES {
            self.0.pop_front();
        }
        self.0.push_back(plain(line).chars().take(MOST_LINE).collect());
    }

    /// The reason of an evaluation error, the place where it is, no trace.
    pub(super) fn reason(&self) -> Tail {
        // A header without a reason beside it anywhere has it below: reasons of NixOS begin with a line break.
        let header = self.0.iter().enumerate().rfind(|(_, line)| line.trim() == "error:");
        let mut errors = self.0.iter().enumerate().filter(|(_, line)| is_error(line));
        let first = match header {
            Some(header) => errors.next_back().or(Some(header)),
            None => errors.find(|(_, line)| !line.starts_with(' ')),
        };
        let Some((at, line)) = first else { return self.end(SHOWN) };
        let indent = line.len() - line.trim_start().len();
        let reason = self
            .0
            .iter()
            .skip(at)
            .take_while(|line| !is_trace(line))
            .filter(|line| !line.trim().is_empty())
            .map(|line| line.get(indent..).map_or_else(|| line.trim().into(), String::from))
            .take(SHOWN);
        Tail(reason.chain(hint(line).map(str::to_owned)).collect())
    }

    /// The error with all of its trace, as `--show-trace` makes Nix print it.
    pub(super) fn whole(&self) -> Tail {
        let first = self.0.iter().position(|line| line.starts_with("error:")).unwrap_or(0);
        Tail(self.0.iter().skip(first).filter(|line| !line.trim().is_empty()).cloned().collect())
    }

    /// Whether an evaluator says that it wanted more memory. The wordings are those of Nix 2.8 to 2.31.
    pub(super) fn is_out_of_memory(&self) -> bool {
        self.0.iter().any(|line| line.ends_with("error: out of memory") || line.contains("std::bad_alloc"))
    }

    /// The last lines that are no mere chatter.
    pub(super) fn end(&self, lines: usize) -> Tail {
        let heard: Vec<&String> =
            self.0.iter().filter(|line| !line.trim().is_empty() && !line.starts_with("trace: ")).collect();
        Tail(heard[heard.len().saturating_sub(lines)..].iter().map(|line| (*line).clone()).collect())
    }

    /// The first derivation that Nix blames; those that merely depend on it are not it.
    pub(super) fn failed_derivation(&self) -> Option<DrvPath> {
        self.0.iter().filter(|line| is_blame(line)).find_map(|line| {
            line.split('\'').find_map(|word| word.trim_end_matches("!out").parse::<DrvPath>().ok())
        })
    }

    pub(super) fn contains(&self, text: &str) -> bool {
        self.0.iter().any(|line| line.contains(text))
    }

    pub(super) fn lines(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

/// What to do about errors in which Nix does not say it. The wordings are those of Nix 2.8 to 2.31.
fn hint(error: &str) -> Option<&'static str> {
    let missing = error.contains("No such file or directory") || error.contains("does not exist");
    if error.contains("lock file changes") {
        Some("Run `nix flake lock` and commit flake.lock: a deployment is built from what is locked in Git.")
    } else if error.contains("flake.nix'") && (missing || error.contains("does not contain")) {
        Some("A flake needs a flake.nix at the top of the repository, known to Git.")
    } else {
        None
    }
}

fn is_error(line: &str) -> bool {
    line.trim_start().starts_with("error: ")
}

fn is_trace(line: &str) -> bool {
    let line = line.trim_start();
    line.starts_with('…')
        || line.starts_with("(use '--show-trace'")
        || line.starts_with("(stack trace truncated")
}

/// The wordings of Nix 2.3 to 2.31 for a derivation that does not build by its own fault.
fn is_blame(line: &str) -> bool {
    const FAULTS: [&str; 8] = [
        "error: builder for '",
        "error: Cannot build '",
        "error: hash mismatch in fixed-output derivation '",
        "failed with exit code",
        "failed due to signal",
        "failed to produce output path",
        "timed out after",
        "error: a '",
    ];
    line.contains(".drv")
        && !line.contains("dependencies of")
        && FAULTS.iter().any(|fault| line.contains(fault))
}

/// Without ANSI escape sequences (ECMA-48: ESC '[' parameters final byte).
pub(super) fn plain(line: &str) -> String {
    let mut text = String::with_capacity(line.len());
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        if c != '\u{1b}' {
            text.push(c);
        } else if chars.next() == Some('[') {
            chars.by_ref().find(|c| ('@'..='~').contains(c));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> Said {
        let mut said = Said::default();
        text.lines().for_each(|line| said.hear(line));
        said
    }

    #[test]
    fn the_reason_of_an_old_nix_comes_first_and_its_trace_is_cut() {
        let said = said(
            "warning: the group 'nixbld' does not exist\ntrace: hello\nerror: attribute 'nope' missing\n\n       at /x.nix:1:3:\n\n            1| y.nope\n             |   ^\n\n       … while evaluating 'f'\n\n       at /y.nix:1:1:\n(use '--show-trace' to show detailed location information)",
        );
        assert_eq!(
            said.reason().0,
            [
                "error: attribute 'nope' missing",
                "       at /x.nix:1:3:",
                "            1| y.nope",
                "             |   ^"
            ]
        );
    }

    #[test]
    fn the_reason_of_a_new_nix_is_found_behind_its_trace() {
        let said = said(
            "error:\n       … while calling the 'throw' builtin\n         at /t/bad.nix:1:36:\n            1| x\n\n       error: the reason\n       second line of reason",
        );
        assert_eq!(said.reason().0, ["error: the reason", "second line of reason"]);
    }

    #[test]
    fn a_reason_that_begins_with_a_line_break_is_found_below_its_header() {
        let said = said(
            "warning: x\nerror: \n       Failed assertions:\n       - no root file system\n(use '--show-trace' to show detailed location information)",
        );
        assert_eq!(said.reason().0, ["error: ", "       Failed assertions:", "       - no root file system"]);
    }

    #[test]
    fn errors_of_flakes_say_what_to_do() {
        for (line, word) in [
            (
                "error: flake 'git+file:///x' requires lock file changes but they're not allowed due to '--no-update-lock-file'",
                "nix flake lock",
            ),
            (
                "error: getting status of '/nix/store/8sx2n4claffikivxyfiv5aqcbjy9b0ni-source/flake.nix': No such file or directory",
                "at the top of the repository",
            ),
        ] {
            let reason = said(line).reason().0;
            assert_eq!(reason[0], line);
            assert!(reason[1].contains(word), "{reason:?}");
        }
    }

    #[test]
    fn what_is_no_error_message_is_shown_as_it_ends() {
        assert_eq!(said("one\n\ntrace: two\nthree").reason().0, ["one", "three"]);
    }

    #[test]
    fn the_derivation_that_failed_is_blamed_and_not_its_users() {
        let inner = "/nix/store/1np8rgj6028fivinag2cxnddadzzlplw-inner.drv";
        let outer = "/nix/store/yrlfzfjv6qvd5icxzxv6gaw93cxw3a2b-outer.drv";
        for text in [
            format!(
                "building '{outer}'...\nerror: builder for '{inner}' failed with exit code 3\nerror: 1 dependencies of derivation '{outer}' failed to build"
            ),
            format!(
                "error: Cannot build '{inner}'.\n       Reason: builder failed with exit code 3.\nerror: Cannot build '{outer}'."
            ),
        ] {
            assert_eq!(said(&text).failed_derivation(), inner.parse().ok(), "{text}");
        }
        assert_eq!(said("error: cannot connect to socket").failed_derivation(), None);
    }

    #[test]
    fn colours_are_dropped() {
        assert_eq!(plain("\u{1b}[31;1merror:\u{1b}[0m no"), "error: no");
    }
}
