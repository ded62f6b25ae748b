//! The status page: one look at the fleet, trouble first, with the reason in words.
//!
//! One document without scripts or foreign assets, so that it works from a terminal browser to a wall display. It shows the
//! snapshot and computes nothing but ages and order.

use jiff::Timestamp;
use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::model::decision::Decision;
use crate::model::name::NodeName;
use crate::model::observed::{Contact, InFlight, Stage};
use crate::model::progress as rollout;
use crate::model::revision::Revision;
use crate::model::snapshot::{BlockedReason, NodeView, Ready, Snapshot, SourceView, State};

const STYLE: &str = include_str!("page.css");

/// Time between two loads of the page, seconds.
const REFRESH: u32 = 10;
/// A snapshot older than this many seconds is not shown as if it were the present.
const OLD: i64 = 120;

/// States, worst first.
const TROUBLE: [State; 7] = [
    State::Failed,
    State::RolledBack,
    State::Drift,
    State::Unreachable,
    State::Switching,
    State::Held,
    State::InSync,
];

/// The whole page.
pub fn render(snapshot: &Snapshot, now: Timestamp) -> Markup {
    let mut nodes: Vec<(&NodeName, &NodeView)> =
        snapshot.nodes.iter().map(|(name, view)| (name, &**view)).collect();
    nodes.sort_by_key(|(name, view)| (rank(view.state), *name));
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta http-equiv="refresh" content=(REFRESH);
                meta name="color-scheme" content="light dark";
                title { (title(snapshot)) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                header {
                    h1 { "driftless" }
                    (source(&snapshot.source, now))
                    @if let Some(sentence) = rollout::sentence(&snapshot.waves) { p.origin { (sentence) } }
                }
                main {
                    (notices(snapshot, now))
                    (summary(snapshot))
                    @if nodes.is_empty() { (nothing(snapshot)) } @else { (table(&nodes, now)) }
                }
                footer {
                    span { "as of " (snapshot.at.strftime("%Y-%m-%d %H:%M:%S UTC")) }
                    span { "refreshed every " (REFRESH) " s" }
                    a href="/api/v1/fleet" { "JSON" }
                    a href="/metrics" { "metrics" }
                }
            }
        }
    }
}

fn rank(state: State) -> usize {
    TROUBLE.iter().position(|other| *other == state).unwrap_or(TROUBLE.len())
}

fn title(snapshot: &Snapshot) -> String {
    let good = snapshot.nodes.values().filter(|view| view.state == State::InSync).count();
    format!("{good}/{} in sync · driftless", snapshot.nodes.len())
}

fn source(source: &SourceView, now: Timestamp) -> Markup {
    html! {
        p.source {
            strong { (source.branch) }
            @match &source.head {
                Some(head) => { " " (commit(head)) " " span.subject { (head.subject) } }
                None => { " no commit seen yet" }
            }
        }
        p.origin {
            span.url { (source.url) }
            @if let Some(at) = source.fetched_at { span { "fetched " (ago(at, now)) " ago" } }
            @if let Some(at) = source.evaluated_at { span { "evaluated " (ago(at, now)) " ago" } }
        }
    }
}

fn commit(revision: &Revision) -> Markup {
    html! { code title=(revision.commit) { (revision.commit.short()) } }
}

fn notices(snapshot: &Snapshot, now: Timestamp) -> Markup {
    let age = now.as_second() - snapshot.at.as_second();
    let source = &snapshot.source;
    html! {
        @if age > OLD {
            p.notice.bad { strong { "This is old." } " The last pass of the controller ended " (ago(snapshot.at, now)) " ago." }
        }
        @match snapshot.ready {
            Ready::Starting => { p.notice { "The controller is starting: the first look at source and nodes is not over yet." } }
            Ready::Ready => {}
        }
        @if let Some(blocked) = &source.blocked {
            div.notice.bad {
                strong { "The newest commit is not in force" }
                ": " (blocked_because(blocked.reason))
                @if let Some(good) = &source.last_good { "; " (commit(good)) " " span.subject { (good.subject) } " stays" }
                "."
                pre { (blocked.message) }
            }
        }
        @if let Some(error) = &source.fetch_error {
            div.notice.bad { strong { "The source cannot be fetched." } pre { (error) } }
        }
        @if let Some(error) = &source.publish_error {
            div.notice.bad { strong { "What was built last is not signed, or not in the binary cache." } pre { (error) } }
        }
    }
}

fn blocked_because(reason: BlockedReason) -> &'static str {
    match reason {
        BlockedReason::InvalidFile => "its deployment file is missing or not usable",
        BlockedReason::EvalFailed => "it does not evaluate",
        BlockedReason::Misdeclared => "it declares what cannot be meant",
        BlockedReason::NonFastForward => "the branch was rewritten",
        BlockedReason::MassRemoval => "it removes most of the fleet",
    }
}

fn summary(snapshot: &Snapshot) -> Markup {
    html! {
        ul.summary {
            @for state in TROUBLE {
                @let count = snapshot.nodes.values().filter(|view| view.state == state).count();
                @if count > 0 || state == State::InSync {
                    li class=(class(state)) { strong { (count) } " " (state.as_str()) }
                }
            }
        }
    }
}

fn nothing(snapshot: &Snapshot) -> Markup {
    html! {
        p.nothing {
            @match snapshot.ready {
                Ready::Starting => "No nodes are known yet.",
                Ready::Ready => "The deployment declares no nodes.",
            }
        }
    }
}

fn table(nodes: &[(&NodeName, &NodeView)], now: Timestamp) -> Markup {
    html! {
        table {
            thead {
                tr { th { "Node" } th { "State" } th { "Since" } th { "Running" } th { "Desired" } th { "Why" } }
            }
            tbody {
                @for (name, view) in nodes { (row(name, view, now)) }
            }
        }
    }
}

fn row(name: &NodeName, view: &NodeView, now: Timestamp) -> Markup {
    let revision = |revision: &Option<String>| revision.clone().unwrap_or_else(|| "–".to_owned());
    html! {
        tr class=(class(view.state)) {
            td.node {
                a href={ "/api/v1/nodes/" (name) } { (name) }
                @if let Some(spec) = &view.spec {
                    @for tag in &spec.tags { " " span.tag { (tag) } }
                }
            }
            td.state { span.badge { (view.state.as_str()) (view.note()) } }
            td.since title=(view.since) { (ago(view.since, now)) }
            td.revision data-label="running" { code { (revision(&view.running_revision)) } }
            td.revision data-label="desired" { code { (revision(&view.desired_revision)) } }
            td.why {
                (view.why)
                @if let Some(doing) = &view.in_flight { (progress(doing)) }
                (last_seen(view, now))
            }
        }
    }
}

/// How much of the closure is copied; the sentence in `why` has the figures.
fn progress(doing: &InFlight) -> Markup {
    html! {
        @match &doing.stage {
            Stage::Copying { bytes, total } if *total > 0 => {
                progress max=(total) value=(bytes.min(total)) {}
            }
            Stage::Preparing | Stage::Rebooting | Stage::Copying { .. } | Stage::Building { .. } | Stage::Hook { .. } | Stage::Switching { .. } => {}
        }
    }
}

fn last_seen(view: &NodeView, now: Timestamp) -> Markup {
    let since = match view.observation.as_ref().map(|seen| &seen.contact) {
        Some(Contact::Unreachable { since, error: _ }) => Some(*since),
        Some(Contact::Reachable { .. }) | None => None,
    };
    // Where silence is the decision itself, the SINCE column says it already.
    let hidden = match view.decision {
        Decision::Hold { .. } => view.state == State::Unreachable,
        Decision::InSync | Decision::InFlight | Decision::Act { .. } => false,
    };
    html! {
        @if let (Some(since), false) = (since, hidden) { span.detail { "silent for " (ago(since, now)) } }
    }
}

fn class(state: State) -> &'static str {
    match state {
        State::InSync => "in-sync",
        State::Switching => "switching",
        State::Held => "held",
        State::Drift => "drift",
        State::RolledBack => "rolled-back",
        State::Failed => "failed",
        State::Unreachable => "unreachable",
    }
}

/// The age in its largest whole unit, as `driftless status` shows it.
fn ago(then: Timestamp, now: Timestamp) -> String {
    let seconds = (now.as_second() - then.as_second()).max(0);
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} m", seconds / 60),
        3_600..86_400 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_is_told_in_its_largest_unit_and_never_negative() {
        let now: Timestamp = "2026-11-22T17:00:00Z".parse().unwrap();
        let age = |seconds| ago(now - jiff::SignedDuration::from_secs(seconds), now);
        assert_eq!([-5, 59, 60, 7_199, 86_400].map(age), ["0 s", "59 s", "1 m", "1 h", "1 d"]);
    }

    #[test]
    fn every_state_has_its_rank() {
        assert!(State::ALL.iter().all(|state| rank(*state) < TROUBLE.len()));
    }
}
