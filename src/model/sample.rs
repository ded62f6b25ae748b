//! The fleet that tests of the windows show: one node in every state a person can meet.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;

use super::decision::{Action, Decision, Hold, Purpose};
use super::drift::DriftKind;
use super::journal::{Cause, Journal, Outcome};
use super::node::{Goal, NodeSpec};
use super::observed::{Contact, KernelPair, NodeState, Observation};
use super::packages::PackageDiff;
use super::release::Progress;
use super::revision::Revision;
use super::snapshot::{NodeView, Ready, Snapshot, SourceView, State};
use super::store_path::StorePath;

/// The time at which tests look.
pub(crate) fn now() -> Timestamp {
    "2026-11-22T17:00:00Z".parse().unwrap()
}

fn ago(seconds: i64) -> Timestamp {
    Timestamp::from_second(now().as_second() - seconds).unwrap()
}

/// A store path that can be told by its digit.
pub(crate) fn path(digit: char, name: &str) -> StorePath {
    format!("/nix/store/{}-{name}", digit.to_string().repeat(32)).parse().unwrap()
}

fn commit(start: &str) -> Revision {
    Revision {
        commit: format!("{start:0<40}").parse().unwrap(),
        tree: "0".repeat(40),
        subject: "nginx: enable http3".into(),
        author: "Alice <alice@example.org>".into(),
        committed_at: ago(300),
    }
}

pub(crate) fn spec(name: &str) -> NodeSpec {
    serde_json::from_value(serde_json::json!({
        "drv": format!("/nix/store/{}-nixos-system-{name}-24.11.drv", "d".repeat(32)),
        "toplevel": path('a', &format!("nixos-system-{name}-24.11")),
        "system": "x86_64-linux",
        "host": name,
        "tags": if name.starts_with("web") { vec!["web"] } else { vec![] },
    }))
    .unwrap()
}

fn state(running: StorePath) -> NodeState {
    NodeState {
        boot_id: "11111111-2222-3333-4444-555555555555".parse().unwrap(),
        clock: Some(now()),
        machine_id: None,
        uptime: 90_000,
        staged: None,
        boot_default: Some(running.clone()),
        booted: Some(running.clone()),
        running,
        generation: Some(7),
        kernel: KernelPair::default(),
        failed_units: vec![],
        baseline: vec![],
        nix_version: Some("2.24.10".into()),
        free_nix: Some(20 << 30),
        free_boot: None,
        journal: Journal::default(),
        pin: None,
        reboot: None,
        suspended: Vec::new(),
    }
}

/// A node that runs what it should.
pub(crate) fn in_sync(name: &str) -> NodeView {
    let spec = spec(name);
    NodeView {
        decision: Decision::InSync,
        state: State::InSync,
        since: ago(120),
        why: "runs what Git says".into(),
        progress: Progress::Built,
        desired: Some(spec.toplevel.clone()),
        desired_revision: Some("3f9c2e1".into()),
        running_revision: Some("3f9c2e1".into()),
        drift: BTreeSet::new(),
        packages: None,
        observation: Some(Arc::new(Observation {
            contact: Contact::Reachable { at: ago(2) },
            state: Some(state(spec.toplevel.clone())),
            state_since: Some(ago(120)),
            elsewhere: None,
            health: Vec::new(),
        })),
        in_flight: None,
        suspended: None,
        spec: Some(Arc::new(spec)),
    }
}

/// A node that runs something else, with this decision.
fn other(name: &str, decision: Decision, word: State, seconds: i64, why: &str) -> NodeView {
    let running = path('b', &format!("nixos-system-{name}-24.05"));
    NodeView {
        decision,
        state: word,
        since: ago(seconds),
        why: why.into(),
        running_revision: Some("b81d0aa".into()),
        drift: BTreeSet::from([DriftKind::Outdated]),
        observation: Some(Arc::new(Observation {
            contact: Contact::Reachable { at: ago(2) },
            state: Some(state(running)),
            state_since: Some(ago(86_400)),
            elsewhere: None,
            health: Vec::new(),
        })),
        ..in_sync(name)
    }
}

fn packages() -> PackageDiff {
    let names = |digit, names: &[&str]| names.iter().map(|name| path(digit, name)).collect::<Vec<_>>();
    PackageDiff::between(
        &names('b', &["openssh-9.8p1", "htop-3.3.0", "zlib-1.3", "etc"]),
        &names('a', &["openssh-9.7p1", "nano-8.0", "zlib-1.3", "etc"]),
    )
}

fn hold(hold: Hold) -> Decision {
    Decision::Hold { hold }
}

fn diverged() -> NodeView {
    NodeView {
        running_revision: None,
        drift: BTreeSet::from([DriftKind::Diverged, DriftKind::Unpersisted]),
        packages: Some(packages()),
        ..other(
            "mail",
            hold(Hold::ReportOnly),
            State::Drift,
            3_700,
            "diverged: not deployed by driftless; +htop 3.3.0, openssh 9.7p1 → 9.8p1",
        )
    }
}

fn rolled_back() -> NodeView {
    let given_up = Hold::GivenUp {
        id: "20261122T165800Z-1f2e3d4c".parse().unwrap(),
        outcome: Outcome::RolledBack,
        cause: Some(Cause::Contact),
        detail: String::new(),
    };
    let why = "lost contact after activation; retried on a new commit or `driftless retry vps3`";
    other("vps3", hold(given_up), State::RolledBack, 120, why)
}

fn unreachable() -> NodeView {
    let error = "connect to 192.0.2.7:22 timed out after 10 s".to_owned();
    let gone = Contact::Unreachable { since: ago(260_000), error: error.clone() };
    let mut node = other(
        "old",
        hold(Hold::Unreachable { since: ago(260_000), error: error.clone() }),
        State::Unreachable,
        260_000,
        &error,
    );
    node.drift.clear();
    if let Some(seen) = &mut node.observation {
        Arc::make_mut(seen).contact = gone;
    }
    node
}

fn to_deploy() -> NodeView {
    let action = Action::Deploy {
        toplevel: path('a', "nixos-system-web2-24.11"),
        expected: path('b', "nixos-system-web2-24.05"),
        goal: Goal::Switch,
        purpose: Purpose::Release,
    };
    NodeView {
        packages: Some(packages()),
        ..other("web2", Decision::Act { action }, State::Switching, 4, "outdated")
    }
}

/// The fleet of the design's example, and a node that does not evaluate.
pub(crate) fn fleet() -> Snapshot {
    let error = "error: undefined variable 'pkg' at web.nix:3:5".to_owned();
    let broken = NodeView {
        progress: Progress::NotEvaluated { error: error.clone() },
        drift: BTreeSet::new(),
        ..other("db1", hold(Hold::NotEvaluated { error: error.clone() }), State::Failed, 12, &error)
    };
    let nodes = [
        ("web1", in_sync("web1")),
        ("web2", to_deploy()),
        ("db1", broken),
        ("mail", diverged()),
        ("vps3", rolled_back()),
        ("old", unreachable()),
    ];
    Snapshot {
        version: 1,
        at: now(),
        passes: 42,
        ready: Ready::Ready,
        source: SourceView {
            url: "https://git.example.org/infra.git".into(),
            branch: "main".into(),
            head: Some(commit("3f9c2e1")),
            last_good: Some(commit("3f9c2e1")),
            blocked: None,
            fetched_at: Some(ago(20)),
            fetch_error: None,
            publish_error: None,
            commit_times: BTreeMap::new(),
            evaluated_at: Some(ago(12)),
        },
        intent: Arc::default(),
        waves: Vec::new(),
        nodes: nodes
            .into_iter()
            .map(|(name, node)| (name.parse().unwrap(), Arc::new(node)))
            .collect::<BTreeMap<_, _>>(),
    }
}

/// A fleet in which everything is as it should be.
pub(crate) fn quiet() -> Snapshot {
    let mut snapshot = fleet();
    snapshot.nodes.retain(|_, node| node.state == State::InSync);
    snapshot
}
