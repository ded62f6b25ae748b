//! Gauges of the source and the nodes, made anew from the snapshot for every scrape.
//!
//! What is not known has no series: a missing value is never a 0. While a node is unreachable, what it last ran stays, and
//! its drift has no series.

use jiff::Timestamp;
use prometheus::GaugeVec;

use super::Make;
use crate::model::decision::{Decision, Hold};
use crate::model::drift::DriftKind;
use crate::model::journal::Outcome;
use crate::model::node::{Availability, Goal, NodeSpec};
use crate::model::observed::{Contact, NodeState};
use crate::model::progress::{self, WavePhase, WaveView};
use crate::model::release::Progress;
use crate::model::snapshot::{BlockedReason, NodeView, Snapshot, SourceView, State};

/// Adds everything the snapshot knows.
pub(super) fn export(make: &Make<'_>, snapshot: &Snapshot) {
    make.gauge(
        "driftless_last_reconcile_timestamp_seconds",
        "When the last pass of the control loop ended, as Unix time.",
    )
    .set(seconds(snapshot.at));
    source(make, &snapshot.source);
    let building = snapshot.nodes.values().filter(|view| match view.progress {
        Progress::Building => true,
        Progress::Evaluating
        | Progress::NotEvaluated { .. }
        | Progress::NotBuilt { .. }
        | Progress::Built => false,
    });
    make.gauge("driftless_builds_in_progress", "Systems being built or waiting for their turn.")
        .set(building.count() as f64);
    rollout(make, &snapshot.waves);
    let series = Series::new(make);
    for (name, view) in &snapshot.nodes {
        let node = Node { name: name.as_str(), view, source: &snapshot.source };
        node.declared(&series);
        node.decided(&series);
        node.seen(&series);
        node.deployed(&series);
    }
}

fn source(make: &Make<'_>, source: &SourceView) {
    make.gauges("driftless_source_info", "What is followed; always 1.", &["repository", "branch"])
        .with_label_values(&[&source.url, &source.branch])
        .set(1.0);
    if let Some(at) = source.fetched_at {
        let name = "driftless_git_last_success_timestamp_seconds";
        make.gauge(name, "When the source was last fetched successfully, as Unix time.").set(seconds(at));
    }
    let revisions = make.gauges(
        "driftless_git_revision_info",
        "Newest commit seen (head) and newest that evaluated (last_good); always 1.",
        &["role", "revision"],
    );
    let head = ("head", "driftless_git_head_commit_timestamp_seconds", &source.head);
    let last_good = ("last_good", "driftless_git_last_good_commit_timestamp_seconds", &source.last_good);
    for (role, name, revision) in [head, last_good] {
        if let Some(revision) = revision {
            revisions.with_label_values(&[role, revision.commit.as_str()]).set(1.0);
            let help = format!("Committer's time of {role}, as Unix time.");
            make.gauge(name, &help).set(seconds(revision.committed_at));
        }
    }
    let blocked = make.gauges(
        "driftless_git_head_blocked",
        "1 where the newest commit is not in force, by reason.",
        &["reason"],
    );
    for reason in BlockedReason::ALL {
        let this = source.blocked.as_ref().is_some_and(|blocked| blocked.reason == reason);
        blocked.with_label_values(&[reason.as_str()]).set(flag(this));
    }
    let name = "driftless_publication_failing";
    make.gauge(name, "1 while what was built last could not be signed or pushed to the binary cache.")
        .set(flag(source.publish_error.is_some()));
}

fn rollout(make: &Make<'_>, waves: &[WaveView]) {
    let name = "driftless_rollout_state";
    let states = make.gauges(
        name,
        "1 for where the first wave that is not done stands; done where all are.",
        &["state"],
    );
    let now = progress::word(waves);
    for word in WavePhase::WORDS {
        states.with_label_values(&[word]).set(flag(word == now));
    }
    let name = "driftless_rollout_nodes";
    let nodes = make.gauges(
        name,
        "Nodes of a wave: all, those that have the release, those on which it failed.",
        &["wave", "status"],
    );
    for (number, wave) in waves.iter().enumerate() {
        let wave_number = (number + 1).to_string();
        for (status, count) in [("all", wave.nodes), ("done", wave.done), ("failed", wave.failed.len())] {
            nodes.with_label_values(&[wave_number.as_str(), status]).set(count as f64);
        }
    }
}

/// The series of one kind each, for all nodes.
struct Series {
    info: GaugeVec,
    suspended: GaugeVec,
    state: GaugeVec,
    hold: GaugeVec,
    deploying: GaugeVec,
    reachable: GaugeVec,
    last_contact: GaugeVec,
    in_sync: GaugeVec,
    drift: GaugeVec,
    reboot_required: GaugeVec,
    failed_units: GaugeVec,
    failing_checks: GaugeVec,
    free_bytes: GaugeVec,
    running_commit: GaugeVec,
    desired_commit: GaugeVec,
    last_success: GaugeVec,
    suspended_until: GaugeVec,
    last_deployment: GaugeVec,
    failures: GaugeVec,
}

impl Series {
    fn new(make: &Make<'_>) -> Self {
        let of_node = |name: &str, help: &str| make.gauges(name, help, &["node"]);
        Self {
            info: make.gauges(
                "driftless_node_info",
                "What the deployment declares; always 1.",
                &["node", "system", "availability", "goal"],
            ),
            suspended: of_node("driftless_node_suspended", "1 while the node is suspended."),
            state: make.gauges(
                "driftless_node_state",
                "1 for the state the node is in, 0 for the others.",
                &["node", "state"],
            ),
            hold: make.gauges(
                "driftless_node_hold",
                "1 for the reason why the node is not acted on; no series when there is none.",
                &["node", "reason"],
            ),
            deploying: of_node("driftless_node_deploying", "1 while a deployment to the node runs."),
            reachable: of_node("driftless_node_reachable", "1 if the last look at the node succeeded."),
            last_contact: of_node(
                "driftless_node_last_contact_timestamp_seconds",
                "When the node was last read or, while it is unreachable, first failed to answer, as Unix time.",
            ),
            in_sync: of_node(
                "driftless_node_in_sync",
                "1 if the node, as last seen, has the system that Git says.",
            ),
            drift: make.gauges(
                "driftless_node_drift",
                "1 for each kind of difference between desired and observed.",
                &["node", "kind"],
            ),
            reboot_required: of_node(
                "driftless_node_reboot_required",
                "1 if only a reboot starts the kernel, initrd or modules of the running system.",
            ),
            failed_units: of_node("driftless_node_failed_units", "Failed systemd units."),
            failing_checks: of_node(
                "driftless_node_failing_checks",
                "Health checks that fail, as last asked.",
            ),
            free_bytes: make.gauges(
                "driftless_node_free_bytes",
                "Free bytes on the file systems of /nix and /boot.",
                &["node", "filesystem"],
            ),
            running_commit: of_node(
                "driftless_node_running_commit_timestamp_seconds",
                "Committer's time of the commit that the node runs, as Unix time.",
            ),
            desired_commit: of_node(
                "driftless_node_desired_commit_timestamp_seconds",
                "Committer's time of the commit that the node should run, as Unix time.",
            ),
            suspended_until: of_node(
                "driftless_node_suspended_until_timestamp_seconds",
                "When the suspension of the node ends, as Unix time; no series where it has no end.",
            ),
            last_success: of_node(
                "driftless_node_last_deployment_success",
                "1 if the last finished switch in the node's journal succeeded.",
            ),
            last_deployment: of_node(
                "driftless_node_last_deployment_timestamp_seconds",
                "End of the last finished switch in the node's journal, as Unix time.",
            ),
            failures: of_node(
                "driftless_node_consecutive_failures",
                "Deployments that failed in a row since the last that succeeded.",
            ),
        }
    }
}

struct Node<'a> {
    name: &'a str,
    view: &'a NodeView,
    source: &'a SourceView,
}

impl Node<'_> {
    fn set(&self, series: &GaugeVec, value: f64) {
        series.with_label_values(&[self.name]).set(value);
    }

    fn declared(&self, series: &Series) {
        let spec = self.view.spec.as_ref();
        let system = spec.map_or("unknown", |spec| spec.system.as_str());
        let availability = match spec.map(|spec| spec.availability) {
            Some(Availability::Always) => "always",
            Some(Availability::Intermittent) => "intermittent",
            None => "unknown",
        };
        let goal = spec.map_or("unknown", |spec| spec.goal.as_str());
        series.info.with_label_values(&[self.name, system, availability, goal]).set(1.0);
        self.set(&series.suspended, flag(self.view.suspended.is_some()));
        if let Some(until) = self.view.suspended.as_ref().and_then(|suspension| suspension.until) {
            self.set(&series.suspended_until, seconds(until));
        }
        if let Some(at) = self.committed(self.view.desired_revision.as_deref()) {
            self.set(&series.desired_commit, seconds(at));
        }
    }

    fn decided(&self, series: &Series) {
        for state in State::ALL {
            let word = state.as_str().replace(' ', "-");
            series.state.with_label_values(&[self.name, &word]).set(flag(self.view.state == state));
        }
        match &self.view.decision {
            Decision::Hold { hold } => {
                series.hold.with_label_values(&[self.name, hold.as_str()]).set(1.0);
            }
            Decision::InSync | Decision::InFlight | Decision::Act { .. } => {}
        }
        self.set(&series.deploying, flag(self.view.in_flight.is_some()));
    }

    fn seen(&self, series: &Series) {
        let Some(observation) = &self.view.observation else { return };
        let (reachable, contact) = match &observation.contact {
            Contact::Reachable { at } => (true, *at),
            Contact::Unreachable { since, error: _ } => (false, *since),
        };
        self.set(&series.reachable, flag(reachable));
        self.set(&series.last_contact, seconds(contact));
        // What differs now is not known of a node that does not answer; what it last ran is.
        if reachable && observation.state.is_some() {
            for kind in DriftKind::ALL {
                let found = self.view.drift.contains(&kind);
                series.drift.with_label_values(&[self.name, kind.as_str()]).set(flag(found));
            }
            let reboot = self.view.drift.contains(&DriftKind::RebootRequired);
            self.set(&series.reboot_required, flag(reboot));
        }
        if reachable {
            self.set(&series.failing_checks, observation.health.len() as f64);
        }
        let Some(state) = &observation.state else { return };
        if let Some(in_sync) = self.in_sync(state) {
            self.set(&series.in_sync, flag(in_sync));
        }
        self.set(&series.failed_units, state.failed_units.len() as f64);
        for (filesystem, free) in [("nix", state.free_nix), ("boot", state.free_boot)] {
            if let Some(bytes) = free {
                series.free_bytes.with_label_values(&[self.name, filesystem]).set(bytes as f64);
            }
        }
        if let Some(at) = self.committed(self.view.running_revision.as_deref()) {
            self.set(&series.running_commit, seconds(at));
        }
    }

    /// Whether the node has the desired system where its goal wants it; unknown while nothing is desired yet.
    fn in_sync(&self, state: &NodeState) -> Option<bool> {
        let desired = self.view.desired.as_ref()?;
        let goal = self.view.spec.as_deref().map_or_else(Goal::default, |spec: &NodeSpec| spec.goal);
        let running = !goal.activates() || state.running == *desired;
        let persisted = !goal.persists() || state.boot_default.as_ref() == Some(desired);
        Some(running && persisted)
    }

    fn deployed(&self, series: &Series) {
        let Some(state) = self.view.observation.as_ref().and_then(|seen| seen.state.as_ref()) else { return };
        let outcomes = state.journal.iter().rev().filter_map(|entry| Some((entry, entry.outcome?)));
        let well = |outcome| matches!(outcome, Outcome::Succeeded | Outcome::Staged);
        let failed_in_a_row = outcomes.clone().take_while(|(_, outcome)| !well(*outcome)).count() as f64;
        // Attempts that never reached the node's journal (connection, copy) stand in the decision.
        let attempts = match &self.view.decision {
            Decision::Hold { hold: Hold::Backoff { failures, .. } } => f64::from(*failures),
            Decision::Hold { hold: _ } | Decision::InSync | Decision::InFlight | Decision::Act { .. } => 0.0,
        };
        self.set(&series.failures, failed_in_a_row.max(attempts));
        if let Some((entry, outcome)) = outcomes.clone().next() {
            self.set(&series.last_success, flag(well(outcome)));
            self.set(&series.last_deployment, seconds(entry.finished.unwrap_or(entry.started)));
        }
    }

    fn committed(&self, revision: Option<&str>) -> Option<Timestamp> {
        let revision = revision?;
        let known = [&self.source.head, &self.source.last_good];
        let known = known.into_iter().flatten().find(|known| known.commit.short() == revision);
        known.map(|known| known.committed_at).or_else(|| self.source.commit_times.get(revision).copied())
    }
}

fn flag(set: bool) -> f64 {
    if set { 1.0 } else { 0.0 }
}

fn seconds(at: Timestamp) -> f64 {
    at.as_millisecond() as f64 / 1000.0
}
