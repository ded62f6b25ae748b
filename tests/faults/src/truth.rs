//! Whether a journal tells the truth: each entry against what the lab saw the node run, what the lab did to it, and what the
//! system was made to do. Pure.

use crate::diary::Done;
use crate::journal::{Entry, faults_of};
use crate::witness::Sight;

/// A time of the journal has no fractions, and what ends at a moment shows a moment later.
const SLACK: f64 = 1.5;
/// An effect may outlast its cause: connections that died are noticed late.
pub(crate) const ECHO: f64 = 8.0;

/// Deadlines below this, in seconds, say nothing about the node where the machine is busy.
const HURRY: u32 = 10;

/// Everything that bears on one entry.
pub(crate) struct Case<'a> {
    pub(crate) entry: &'a Entry,
    /// What was done to the node, or to all, from a little before it began to its end.
    pub(crate) done: &'a [Done],
    /// How the node stood from its beginning to a little after its end.
    pub(crate) sights: &'a [Sight],
}

impl Case<'_> {
    /// What is not true, or cannot be.
    pub(crate) fn lies(&self) -> Vec<String> {
        let mut lies = Vec::new();
        lies.extend(self.succeeded_although_it_cannot());
        lies.extend(self.ended_otherwise_than_it_must());
        lies.extend(self.ended_as_only_a_fault_explains());
        lies.extend(self.ran_something_else());
        lies.extend(self.boots_what_was_not_proven());
        let say = |lie| format!("{} of {}, {}: {lie}", self.entry.id, self.entry.system, self.entry.end());
        lies.into_iter().map(say).collect()
    }

    fn hit_by(&self, kinds: &[&str]) -> bool {
        self.done.iter().any(|done| kinds.contains(&done.kind))
    }

    fn goal(&self) -> &str {
        self.entry.order.get("goal").map_or("switch", String::as_str)
    }

    /// The one thing that the new system does wrong, if any: a word of the lab's, or `health`.
    fn wrong(&self) -> Option<(String, String)> {
        let health = self.entry.order.get("checks").filter(|checks| checks.contains("never"));
        let health = health.map(|_| ("health".to_owned(), String::new()));
        self.entry.faults().into_iter().next().or(health)
    }

    /// No login, no verdict or no activation is possible: then nothing can have been proven.
    fn succeeded_although_it_cannot(&self) -> Option<String> {
        let (wrong, value) = self.wrong()?;
        let known = self.entry.failed_before.contains("lab-broken.service");
        let cannot = match wrong.as_str() {
            "activationFails"
            | "hang"
            | "hangStubbornly"
            | "killSsh"
            | "dropAddress"
            | "exit"
            | "inhibitor"
            | "preSwitchCheckFails"
            | "health" => true,
            "unitFails" => !known,
            "bootLoaderFails" | "bootLoaderHangs" => self.goal() == "switch",
            "bootLoaderLies" => {
                self.goal() == "switch"
                    && self.entry.order.get("loader-told").is_some_and(|told| told == "yes")
            }
            _ => false,
        };
        let succeeded = self.entry.outcome.as_deref() == Some("succeeded");
        (succeeded && cannot).then(|| format!("a system with {wrong} {value} cannot succeed"))
    }

    /// Where nobody disturbed it, the system alone decides.
    fn ended_otherwise_than_it_must(&self) -> Option<String> {
        // What ran before may do as it likes again when it is rolled back to.
        if !self.done.is_empty() || !faults_of(&self.entry.previous).is_empty() {
            return None;
        }
        let wrong = self.wrong();
        let (wrong, value) =
            wrong.as_ref().map_or(("", ""), |(wrong, value)| (wrong.as_str(), value.as_str()));
        let known = self.entry.failed_before.contains("lab-broken.service");
        let must: &[&str] = match (wrong, value) {
            ("", _) | ("dropRoute" | "leaveChild" | "slow" | "stopDbus", _) => &["succeeded"],
            ("activationFails", _) | ("exit", "3") => &["rolled-back (activation)"],
            ("unitFails", _) if known => &["succeeded"],
            ("unitFails", _) => &["rolled-back (units)"],
            ("hang" | "hangStubbornly", _) => &["rolled-back (deadline)"],
            ("killSsh" | "dropAddress", _) => &["rolled-back (contact)"],
            ("exit", "11") => &["rolled-back (busy)"],
            ("exit", "100") | ("inhibitor", _) => &["rolled-back (needs-reboot)"],
            ("preSwitchCheckFails", _) => &["rolled-back (check)"],
            ("bootLoaderFails" | "bootLoaderHangs" | "bootLoaderLies", _) => &["commit-failed (commit)"],
            ("health", _) => &["rolled-back (rejected)"],
            // A disk that is full: any end, but a true one.
            (_, _) => return None,
        };
        let end = self.entry.end();
        if self.hurried() {
            return None;
        }
        (!must.contains(&end.as_str())).then(|| {
            format!(
                "nothing disturbed it, and its fault is {wrong:?}: it must be {}; {}",
                must.join(" or "),
                self.entry.detail
            )
        })
    }

    /// A deadline of a few seconds, which a machine that is busy with other things may miss.
    fn hurried(&self) -> bool {
        let deadline = match self.entry.cause.as_deref() {
            Some("contact") => "contact-timeout",
            Some("silence") => "health-timeout",
            Some("deadline") => "switch-timeout",
            Some(_) | None => return false,
        };
        let seconds = self.entry.order.get(deadline).and_then(|seconds| seconds.parse().ok());
        seconds.is_some_and(|seconds: u32| seconds < HURRY)
    }

    /// Ends that need somebody else's hand.
    fn ended_as_only_a_fault_explains(&self) -> Option<String> {
        let outcome = self.entry.outcome.as_deref().unwrap_or("interrupted");
        let explained = match outcome {
            "interfered" => self.hit_by(&["foreign-switch"]),
            "interrupted" => self.hit_by(&["reboot", "power-cut"]),
            _ => true,
        };
        (!explained).then(|| "nobody did what this says".to_owned())
    }

    /// The node must have run what the entry says it ended with.
    fn ran_something_else(&self) -> Option<String> {
        let finished = self.entry.finished?;
        let must = match self.entry.outcome.as_deref()? {
            "succeeded" => &self.entry.system,
            "rolled-back" | "commit-failed" => &self.entry.previous,
            _ => return None,
        };
        let around: Vec<&Sight> = self
            .sights
            .iter()
            .rev()
            .skip_while(|sight| sight.at > finished + SLACK)
            .scan(true, |more, sight| {
                let before = *more;
                *more = sight.at > finished - SLACK;
                before.then_some(sight)
            })
            .collect();
        let ran = around.iter().any(|sight| sight.running.as_ref() == Some(must) || sight.boot == 0);
        (!ran && !around.is_empty()).then(|| {
            let ran: Vec<_> = around.iter().map(|sight| sight.running.as_deref().unwrap_or("-")).collect();
            format!("at its end the node ran {}", ran.join(", "))
        })
    }

    /// Before the commit neither profile nor boot loader may change by our hand.
    fn boots_what_was_not_proven(&self) -> Option<String> {
        if self.entry.committing || self.hit_by(&["foreign-switch"]) {
            return None;
        }
        let boots = |sight: &Sight| [sight.profile.clone(), sight.loader.clone()];
        let until = self.entry.finished.unwrap_or(f64::INFINITY);
        let mut within = self.sights.iter().filter(|sight| sight.at < until);
        let system = Some(self.entry.system.clone());
        let first = within.next().map(boots)?;
        let bad = within.find(|sight| boots(sight).contains(&system) && !first.contains(&system))?;
        Some(format!("it never came to committing, and would have been booted: {bad:?}"))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn entry(outcome: &str, cause: Option<&str>) -> Entry {
        Entry {
            id: "20261122T170102Z-1f2e3d4c".into(),
            number: 1,
            system: "/nix/store/new".into(),
            previous: "/nix/store/old".into(),
            phase: "finished".into(),
            outcome: Some(outcome.into()),
            cause: cause.map(str::to_owned),
            started: 100.0,
            finished: Some(110.0),
            asker: "controller".into(),
            boot: "b".into(),
            detail: String::new(),
            committing: outcome == "succeeded",
            order: BTreeMap::new(),
            failed_before: String::new(),
        }
    }

    fn sight(at: f64, running: &str, boots: &str) -> Sight {
        let boots = Some(format!("/nix/store/{boots}"));
        let running = Some(format!("/nix/store/{running}"));
        Sight { at, boot: 1, booted: running.clone(), running, profile: boots.clone(), loader: boots }
    }

    fn lies(entry: &Entry, done: &[Done], sights: &[Sight]) -> Vec<String> {
        Case { entry, done, sights }.lies()
    }

    fn done(kind: &'static str) -> Done {
        Done { kind, node: Some(0), from: 101.0, until: 102.0 }
    }

    #[test]
    fn an_entry_that_says_what_was_seen_is_true() {
        let seen = [sight(99.0, "old", "old"), sight(101.0, "new", "old"), sight(109.9, "new", "new")];
        assert_eq!(lies(&entry("succeeded", None), &[], &seen), Vec::<String>::new());
        let back = [sight(99.0, "old", "old"), sight(101.0, "new", "old"), sight(109.9, "old", "old")];
        let cut = [done("cut-link")];
        assert_eq!(lies(&entry("rolled-back", Some("contact")), &cut, &back), Vec::<String>::new());
    }

    #[test]
    fn a_success_of_what_never_ran_is_a_lie() {
        let seen = [sight(99.0, "old", "old")];
        assert!(lies(&entry("succeeded", None), &[], &seen)[0].contains("the node ran /nix/store/old"));
    }

    #[test]
    fn a_rollback_that_nothing_explains_is_one_and_so_is_interference_by_nobody() {
        let back = [sight(99.0, "old", "old"), sight(101.0, "new", "old"), sight(109.9, "old", "old")];
        assert!(lies(&entry("rolled-back", Some("contact")), &[], &back)[0].contains("must be succeeded"));
        let cut = [done("cut-link")];
        assert!(lies(&entry("interfered", Some("foreign")), &cut, &back)[0].contains("nobody did"));
    }

    #[test]
    fn a_boot_default_that_changes_before_the_commit_is_found() {
        let seen = [sight(99.0, "old", "old"), sight(101.0, "new", "new"), sight(109.9, "old", "old")];
        let found = lies(&entry("rolled-back", Some("contact")), &[done("cut-link")], &seen);
        assert!(found[0].contains("would have been booted"), "{found:?}");
    }
}
