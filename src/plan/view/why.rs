//! The WHY column: one sentence per decision, for a person who is paged. Never longer than a line of a wide terminal
//! where the cause allows it; whole errors are in the decision itself.

use std::collections::BTreeSet;

use crate::model::decision::{Action, Decision, Hold, Purpose};
use crate::model::drift::DriftKind;
use crate::model::health::FailingCheck;
use crate::model::intent::NodeSuspension;
use crate::model::journal::{Cause, Outcome, PinEnd};
use crate::model::name::NodeName;
use crate::model::observed::{InFlight, Stage};
use crate::model::packages::PackageDiff;
use crate::model::spoken::clock;
use crate::model::store_path::StorePath;

/// A sentence quotes at most so many characters of somebody else's text.
const QUOTE: usize = 160;
/// It names at most so many packages.
const NAMED_PACKAGES: usize = 3;

/// What a sentence may need beside the decision.
pub struct Subject<'a> {
    pub name: &'a NodeName,
    pub drift: &'a BTreeSet<DriftKind>,
    pub packages: Option<&'a PackageDiff>,
    pub in_flight: Option<&'a InFlight>,
    pub desired: Option<&'a StorePath>,
    pub staged: Option<&'a StorePath>,
    pub switching: usize,
    pub failing: &'a [FailingCheck],
}

/// Why the node is in its state. A node in sync needs no reason.
pub fn sentence(decision: &Decision, subject: &Subject<'_>) -> String {
    match decision {
        Decision::InSync => String::new(),
        Decision::InFlight => {
            subject.in_flight.map_or_else(|| "starting".to_owned(), |flight| stage(&flight.stage))
        }
        Decision::Act { action: Action::Deploy { toplevel, purpose: Purpose::TakeBack, .. } } => {
            format!("the release failed elsewhere: goes back to {}", toplevel.name())
        }
        Decision::Act { action: Action::Deploy { toplevel, .. } } => {
            format!("{}to be deployed: {}", drift_clause(subject), toplevel.name())
        }
        Decision::Act { action: Action::Reboot { toplevel, .. } } => {
            format!("to be rebooted into {}", toplevel.name())
        }
        Decision::Act { action: Action::Attach { id, .. } } => {
            format!("about to watch switch {id}, which an earlier controller started")
        }
        Decision::Hold { hold } => hold_sentence(hold, subject),
    }
}

/// Why a node is left alone that needs no other reason.
pub fn suspended(NodeSuspension { by, reason, until, id: _ }: &NodeSuspension) -> String {
    let until = until.map(|until| format!(" until {}", clock(until))).unwrap_or_default();
    format!("suspended by {}{until}{}", quote(by), because(reason))
}

fn hold_sentence(hold: &Hold, subject: &Subject<'_>) -> String {
    let name = subject.name;
    match hold {
        Hold::NoHost => "declared without a host, never deployed".to_owned(),
        Hold::NotObserved => "not looked at yet".to_owned(),
        Hold::Unreachable { error, .. } => {
            let tried = subject.staged.map(|staged| format!("; was to boot {} once", staged.name()));
            format!("{}{}", quote(last_line(error)), tried.unwrap_or_default())
        }
        Hold::WrongMachine { expected, found } => {
            format!("is another machine: machine id {found}, expected {expected}")
        }
        Hold::Suspended { by, reason, until } => {
            let until = until.map(|until| format!(" until {}", clock(until))).unwrap_or_default();
            format!("{}suspended by {}{until}{}", drift_clause(subject), quote(by), because(reason))
        }
        Hold::Approval { what, hash } => {
            format!("waits for approval of {}; `driftless approve --hash {hash}`", quote(what))
        }
        Hold::Pinned { by, reason, until } => format!("pinned by {by} {}{}", pin_end(until), because(reason)),
        Hold::HooksRefused { hooks } => format!(
            "{}has hooks ({}), which this controller does not run; allow it with source.hooks = \"run\" in driftless.toml, or \
             `driftless deploy --on {name}`",
            drift_clause(subject),
            quote(&hooks.join(", "))
        ),
        Hold::Evaluating => "the new commit is being evaluated".to_owned(),
        Hold::Building => "its system is being built".to_owned(),
        Hold::NotEvaluated { error } => format!("does not evaluate: {}{}", nix_error(error), stays(subject)),
        Hold::NotBuilt { error } => format!("does not build: {}{}", nix_error(error), stays(subject)),
        Hold::ReleaseIncomplete { node } => format!("requireAll: waits for {node}"),
        Hold::GivenUp { outcome, cause, detail, .. } => {
            let detail =
                if detail.is_empty() { String::new() } else { format!(": {}", quote(last_line(detail))) };
            format!("{}{detail}; {}", failure(*outcome, *cause), way_out(*cause, name))
        }
        Hold::Backoff { until, failures, error } => {
            let often = if *failures == 1 { String::new() } else { format!(" ({failures} times in a row)") };
            format!("{}{often}; tried again at {}", quote(last_line(error)), clock(*until))
        }
        Hold::Busy { id, asker } => format!("{asker} is switching it ({id})"),
        Hold::ReportOnly => format!("{}only reported, as onDrift says", drift_clause(subject)),
        Hold::HealDelay { until } => format!("{}healed at {}", drift_clause(subject), clock(*until)),
        Hold::InFlightLimit { limit } => {
            format!("{} of at most {limit} nodes are switching already", subject.switching)
        }
        Hold::Wave { wave, waits_for, node } => format!("wave {wave} waits for wave {waits_for} ({node})"),
        Hold::Soak { wave, until } => format!("wave {wave} must be well until {}", clock(*until)),
        Hold::Halted { wave, node, why } => format!(
            "the rollout is halted: wave {wave}, {node}: {}; goes on with a new commit or `driftless retry {node}`",
            quote(last_line(why))
        ),
        Hold::Window { by, until } => match until {
            Some(until) => {
                format!("{}not now ({}); changes at {}", drift_clause(subject), quote(by), clock(*until))
            }
            None => format!("{}not now ({})", drift_clause(subject), quote(by)),
        },
        Hold::After { node } => format!("comes after {node}"),
        Hold::Unavailable { wave, limit } => {
            format!("{limit} of wave {wave} are worked on, silent or not well, and no more may be")
        }
        Hold::WaveLimit { wave, limit } => {
            format!("{limit} of wave {wave} are worked on, and no more may be")
        }
        Hold::Rebooting { until } => format!("reboots; is to be back by {}", clock(*until)),
        Hold::RebootOverdue { since, error } => format!(
            "was rebooted and is not back since {}: {}; somebody has to look",
            clock(*since),
            quote(last_line(error))
        ),
        Hold::RebootFailed { error } => {
            format!("{}; tried again with a new system or `driftless retry {name}`", quote(error))
        }
        Hold::Unseen { node } => format!("waits for a first look at {node}"),
        Hold::RebootTurn { node } => format!("is rebooted after {node}"),
        Hold::Elsewhere { at, error } => {
            format!("answers at {at}, not where it is declared: {}", quote(last_line(error)))
        }
        Hold::AwaitingReboot => {
            "the next reboot boots it once; it becomes the default when it has proven itself".to_owned()
        }
        Hold::HookFailed { error } => {
            format!("the switch has succeeded, and then {}; `driftless retry {name}` ends this", quote(error))
        }
        Hold::RebootRequired => "reboot-required: only a reboot starts what is installed".to_owned(),
        Hold::Degraded { units, .. } => format!("degraded: {}", degraded(units, subject.failing)),
    }
}

/// Units by name; of the checks also what the first one says.
fn degraded(units: &[String], failing: &[FailingCheck]) -> String {
    let units = (!units.is_empty()).then(|| format!("failed {}", quote(&units.join(", "))));
    let checks = failing.first().map(|first| {
        let names: Vec<&str> = failing.iter().map(|check| check.name.as_str()).collect();
        let verb = if names.len() == 1 { "fails" } else { "fail" };
        quote(&format!("{} {verb}: {}", names.join(", "), last_line(&first.output)))
    });
    units.into_iter().chain(checks).collect::<Vec<_>>().join("; ")
}

fn stage(stage: &Stage) -> String {
    match stage {
        Stage::Preparing => "connecting, checking space".to_owned(),
        Stage::Copying { bytes, total: 0 } => format!("copying, {} so far", mebibytes(*bytes)),
        Stage::Copying { bytes, total } => format!("copying {} of {}", mebibytes(*bytes), mebibytes(*total)),
        Stage::Building { now, .. } if now.is_empty() => "building on the node".to_owned(),
        Stage::Building { done, total, now } => format!("building on the node, {done} of {total}: {now}"),
        Stage::Hook { name, said, .. } if said.is_empty() => format!("hook {name}"),
        Stage::Hook { name, said, .. } => format!("hook {name}: {}", quote(said)),
        Stage::Rebooting => "rebooting".to_owned(),
        Stage::Switching { phase, detail } if detail.is_empty() => phase.as_str().to_owned(),
        Stage::Switching { phase, detail } => format!("{}: {detail}", phase.as_str()),
    }
}

/// In tenths, by whole numbers: a float has no place where the same input must give the same text.
fn mebibytes(bytes: u64) -> String {
    let tenths = u128::from(bytes) * 10 / (1 << 20);
    format!("{}.{} MiB", tenths / 10, tenths % 10)
}

/// What ends a failure that would repeat itself.
fn way_out(cause: Option<Cause>, name: &NodeName) -> String {
    // Where trying again would end the same way, another way is named.
    if cause == Some(Cause::NeedsReboot) {
        return format!("`driftless deploy --on {name} --goal boot`, then reboot it");
    }
    if cause == Some(Cause::UnprovenBoot) {
        return format!(
            "`driftless deploy --on {name} --goal boot --unproven` makes it the boot default all the same"
        );
    }
    format!("retried on a new commit or `driftless retry {name}`")
}

/// How a switch failed; the cause says more than the outcome except where the way back failed too.
fn failure(outcome: Outcome, cause: Option<Cause>) -> String {
    let cause = cause.map(Cause::sentence);
    match outcome {
        Outcome::RollbackFailed => {
            format!("{}, and the previous system could not be re-activated", cause.unwrap_or("failed"))
        }
        Outcome::CommitFailed => Cause::Commit.sentence().to_owned(),
        Outcome::Succeeded
        | Outcome::Staged
        | Outcome::RolledBack
        | Outcome::Interfered
        | Outcome::Interrupted => cause.unwrap_or("rolled back").to_owned(),
    }
}

/// The kinds that a switch cures, each with what it means here.
fn drift_clause(subject: &Subject<'_>) -> String {
    let kinds = subject.drift.iter().filter_map(|kind| match kind {
        DriftKind::Outdated => Some("outdated: runs an earlier system; "),
        DriftKind::Diverged => Some("diverged: not deployed by driftless; "),
        DriftKind::Unpersisted => Some("unpersisted: boots another system than it runs; "),
        DriftKind::RebootRequired | DriftKind::Degraded => None,
    });
    // Of a node that somebody changed one asks what they did; of any other, what a deployment brings.
    let packages = subject.packages.map(|packages| {
        if subject.drift.contains(&DriftKind::Diverged) { packages.reversed() } else { packages.clone() }
    });
    let packages = packages.map(|packages| format!("{}; ", packages.summary(NAMED_PACKAGES)));
    kinds.map(str::to_owned).chain(packages).collect()
}

fn stays(subject: &Subject<'_>) -> &'static str {
    if subject.desired.is_some() { "; its last good system stays" } else { "" }
}

fn because(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!(": {}", quote(reason)) }
}

fn pin_end(end: &PinEnd) -> String {
    match end {
        PinEnd::At(at) => format!("until {}", clock(*at)),
        PinEnd::NextRelease(_) => "until the next release".to_owned(),
    }
}

/// Nix prints a trace first and the reason last.
fn nix_error(error: &str) -> String {
    let said = |line: &&str| line.strip_prefix("error:").is_some_and(|rest| !rest.trim().is_empty());
    let line = error.lines().map(str::trim).rfind(said).unwrap_or_else(|| last_line(error));
    quote(line.trim_start_matches("error:").trim())
}

fn last_line(text: &str) -> &str {
    text.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or("no reason given")
}

fn quote(text: &str) -> String {
    match text.char_indices().nth(QUOTE) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
