//! Builders of small worlds, named for the condition they make: `node("web1").running("old").wants("new")`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::model::decision::{Decision, Plan};
use crate::model::hook::{Hook, HookPoint};
use crate::model::intent::{Approval, Intent, PlanHash, SuspensionId, SuspensionMark};
use crate::model::journal::{Cause, Entry, Forgiven, Journal, Outcome, Phase, Pin, PinEnd, SwitchId};
use crate::model::name::NodeName;
use crate::model::node::{Availability, Goal, NodeSpec, OnDrift, RebootPolicy};
use crate::model::observed::{
    Attempt, AttemptKind, Begun, BegunWhat, Contact, Elsewhere, InFlight, KernelPair, NodeState, Observation,
    Observed, RebootOrder, Stage,
};
use crate::model::release::{NodeRelease, Progress, Release};
use crate::model::revision::Revision;
use crate::model::rollout::RolloutSpec;
use crate::model::store_path::StorePath;

/// The moment at which every world stands still, plus so many seconds.
pub fn at(seconds: i64) -> Timestamp {
    let noon: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
    noon + SignedDuration::from_secs(seconds)
}

/// The toplevel called so.
pub fn system(name: &str) -> StorePath {
    format!("/nix/store/{}-nixos-system-{name}", "a".repeat(32)).parse().unwrap()
}

pub fn revision() -> Revision {
    Revision {
        commit: "3f9c2e1000000000000000000000000000000000".parse().unwrap(),
        tree: "1".repeat(40),
        subject: "nginx: enable http3".into(),
        author: "Alice <alice@example.org>".into(),
        committed_at: at(-60),
    }
}

#[derive(Debug, Clone)]
pub struct SwitchBuilder(Entry);

/// A switch to this system by the controller, a quarter of an hour ago, that succeeded.
pub fn switch(to: &str) -> SwitchBuilder {
    SwitchBuilder(Entry {
        id: SwitchId::new(at(-900), 7),
        system: system(to),
        previous: system("previous"),
        phase: Phase::Finished,
        outcome: Some(Outcome::Succeeded),
        cause: None,
        started: at(-900),
        finished: Some(at(-890)),
        revision: "b81d0aa000000000000000000000000000000000".into(),
        asker: "controller".into(),
        forgiven: Forgiven::No,
        detail: String::new(),
    })
    .finished(-10)
}

impl SwitchBuilder {
    pub fn live(mut self) -> Self {
        (self.0.phase, self.0.outcome, self.0.finished) = (Phase::Contact, None, None);
        self
    }
    pub fn interrupted_in(mut self, phase: Phase) -> Self {
        self.0.phase = phase;
        self.ended(Outcome::Interrupted, Some(Cause::Killed))
    }
    pub fn ended(mut self, outcome: Outcome, cause: Option<Cause>) -> Self {
        (self.0.outcome, self.0.cause) = (Some(outcome), cause);
        self
    }
    pub fn by(mut self, asker: &str) -> Self {
        self.0.asker = asker.into();
        self
    }
    pub fn finished(mut self, seconds: i64) -> Self {
        (self.0.started, self.0.finished) = (at(seconds - 8), Some(at(seconds)));
        self
    }
    pub fn forgiven(mut self) -> Self {
        self.0.forgiven = Forgiven::Yes;
        self
    }
    pub fn entry(self) -> Entry {
        self.0
    }
    pub fn detail(mut self, detail: &str) -> Self {
        self.0.detail = detail.into();
        self
    }
}

#[derive(Debug, Clone)]
pub struct NodeBuilder {
    name: NodeName,
    node: NodeRelease,
    observation: Option<Observation>,
    in_flight: bool,
    attempt: Option<Attempt>,
}

/// A node of the release, built, that was never looked at.
pub fn node(name: &str) -> NodeBuilder {
    let spec = serde_json::json!({
        "drv": format!("/nix/store/{}-x.drv", "b".repeat(32)),
        "toplevel": system("new").as_str(), "system": "x86_64-linux", "host": name,
    });
    NodeBuilder {
        name: name.parse().unwrap(),
        node: NodeRelease {
            spec: Some(Arc::new(serde_json::from_value(spec).unwrap())),
            progress: Progress::Built,
            last_good: None,
        },
        observation: None,
        in_flight: false,
        attempt: None,
    }
}

impl NodeBuilder {
    pub fn named(mut self, name: NodeName) -> Self {
        self.name = name;
        self
    }
    pub fn never_seen(mut self) -> Self {
        self.observation = None;
        self
    }
    fn spec(mut self, change: impl FnOnce(&mut NodeSpec)) -> Self {
        change(Arc::make_mut(self.node.spec.as_mut().unwrap()));
        self
    }
    fn state(mut self, change: impl FnOnce(&mut NodeState)) -> Self {
        let observation = self.observation.get_or_insert_with(|| Observation {
            contact: Contact::Reachable { at: at(0) },
            state: Some(state("old")),
            state_since: Some(at(-9999)),
            elsewhere: None,
            health: Vec::new(),
        });
        change(observation.state.get_or_insert_with(|| state("old")));
        self
    }
    pub fn wants(self, name: &str) -> Self {
        self.spec(|spec| spec.toplevel = system(name))
    }
    pub fn running(self, name: &str) -> Self {
        self.state(|state| {
            state.running = system(name);
            state.boot_default = Some(system(name));
        })
    }
    pub fn boots(self, name: &str) -> Self {
        self.state(|state| state.boot_default = Some(system(name)))
    }
    pub fn since(mut self, seconds: i64) -> Self {
        self.observation.as_mut().unwrap().state_since = Some(at(seconds));
        self
    }
    pub fn entry(self, entry: SwitchBuilder) -> Self {
        self.state(|state| state.journal.edit(|entries| entries.push(entry.0)))
    }
    pub fn failed(self, unit: &str) -> Self {
        self.state(|state| state.failed_units.push(unit.into()))
    }
    pub fn other_kernel_booted(self) -> Self {
        let kernel = KernelPair { booted: vec!["linux-6.6".into()], running: vec!["linux-6.12".into()] };
        self.state(|state| state.kernel = kernel)
    }
    pub fn machine(self, digit: char) -> Self {
        let id = digit.to_string().repeat(32).parse().unwrap();
        self.state(|state| state.machine_id = Some(id))
    }
    pub fn must_be_machine(self, digit: char) -> Self {
        let id = digit.to_string().repeat(32).parse().unwrap();
        self.spec(|spec| spec.machine_id = Some(id))
    }
    pub fn pinned(self, until: PinEnd) -> Self {
        self.state(|state| {
            state.pin = Some(Pin { by: "alice".into(), reason: "disk replaced".into(), until });
        })
    }
    pub fn elsewhere(mut self) -> Self {
        let way = self.node.spec.as_ref().unwrap().way().at("192.0.2.6");
        let (at, error) = (way.to_string(), "connect to 192.0.2.7:22 timed out after 10 s".into());
        self.observation.as_mut().unwrap().elsewhere = Some(Elsewhere { way, at, error });
        self
    }
    pub fn unreachable(mut self) -> Self {
        let error = "connect to 192.0.2.7:22 timed out after 10 s".into();
        self.observation
            .get_or_insert(Observation {
                contact: Contact::Reachable { at: at(0) },
                state: None,
                state_since: None,
                elsewhere: None,
                health: Vec::new(),
            })
            .contact = Contact::Unreachable { since: at(-300), error };
        self
    }
    pub fn no_host(self) -> Self {
        self.spec(|spec| spec.host = None)
    }
    pub fn goal(self, goal: Goal) -> Self {
        self.spec(|spec| spec.goal = goal)
    }
    pub fn with_a_secret(self) -> Self {
        let secret = serde_json::json!({
            "path": "/run/driftless-secrets/x", "marker": "/nix/store/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-x",
            "user": "root", "group": "root", "mode": "0400", "source": { "file": "/x" },
        });
        let secret = serde_json::from_value(secret).unwrap();
        self.spec(|spec| drop(spec.secrets.insert("x".parse().unwrap(), secret)))
    }
    pub fn suspended(self) -> Self {
        self.spec(|spec| spec.suspended = Some("disk is full".into()))
    }
    pub fn marked(self, until: Option<Timestamp>) -> Self {
        let (id, by) = (SuspensionId::new(at(-60), 7), "alice@laptop".to_owned());
        let mark = SuspensionMark { id, by, reason: "disk swap".into(), until };
        self.state(|state| state.suspended.push(mark))
    }
    pub fn hook(self, name: &str) -> Self {
        let (at, name) = (HookPoint::BeforeSwitch, name.to_owned());
        let (script, drv) = (system("hook"), format!("{}.drv", system("hook")).parse().unwrap());
        self.spec(|spec| spec.hooks.push(Hook { name, at, script, drv }))
    }
    pub fn reports_drift(self) -> Self {
        self.spec(|spec| spec.on_drift = OnDrift::Report)
    }
    pub fn ignores(self, pattern: &str) -> Self {
        self.spec(|spec| spec.ignore_units.push(pattern.into()))
    }
    pub fn progress(mut self, progress: Progress) -> Self {
        self.node.progress = progress;
        self
    }
    pub fn unevaluated(mut self) -> Self {
        (self.node.spec, self.node.progress) = (None, Progress::Evaluating);
        self
    }
    pub fn last_good(mut self, name: &str) -> Self {
        self.node.last_good = Some(system(name));
        self
    }
    pub fn in_flight(mut self) -> Self {
        self.in_flight = true;
        self
    }
    pub fn attempts(mut self, to: &str, failures: u32, last: i64) -> Self {
        let error = "the copy made no progress for 60 s".into();
        self.attempt =
            Some(Attempt { toplevel: system(to), failures, last: at(last), error, kind: AttemptKind::Way });
        self
    }
}

/// A state of the machine with this id.
pub fn machine(digit: char) -> NodeState {
    NodeState { machine_id: Some(digit.to_string().repeat(32).parse().unwrap()), ..state("any") }
}

fn state(running: &str) -> NodeState {
    NodeState {
        boot_id: "1f2e3d4c-0000-4000-8000-000000000000".parse().unwrap(),
        machine_id: None,
        clock: Some(at(0)),
        uptime: 86_400,
        running: system(running),
        staged: None,
        boot_default: Some(system(running)),
        booted: Some(system(running)),
        generation: Some(1),
        kernel: KernelPair::default(),
        failed_units: Vec::new(),
        baseline: Vec::new(),
        nix_version: Some("2.26.3".into()),
        free_nix: Some(1 << 33),
        free_boot: Some(1 << 28),
        journal: Journal::default(),
        pin: None,
        reboot: None,
        suspended: Vec::new(),
    }
}

/// A release, what is seen of its nodes, and the time.
#[derive(Debug, Clone)]
pub struct World {
    pub release: Release,
    pub observed: Observed,
    pub intent: Intent,
    pub now: Timestamp,
}

pub fn fleet(nodes: impl IntoIterator<Item = NodeBuilder>) -> World {
    let mut world = World {
        release: Release {
            revision: Some(revision()),
            nodes: BTreeMap::new(),
            rollout: RolloutSpec::default(),
        },
        observed: Observed::default(),
        intent: Intent::default(),
        now: at(0),
    };
    for built in nodes {
        let name = built.name;
        if built.in_flight {
            let stage = Stage::Switching { phase: Phase::Health, detail: "http :80/ 2 of 3".into() };
            let flight = InFlight { toplevel: system("new"), since: at(-4), stage };
            world.observed.in_flight.insert(name.clone(), flight);
        }
        world.observed.nodes.extend(built.observation.map(|seen| (name.clone(), Arc::new(seen))));
        world.observed.attempts.extend(built.attempt.map(|attempt| (name.clone(), attempt)));
        world.release.nodes.insert(name, built.node);
    }
    world
}

impl World {
    pub fn plan(&self) -> Plan {
        super::plan(&self.release, &self.observed, &self.intent, self.now)
    }
    pub fn decision(&self, name: &str) -> Decision {
        self.plan().decisions[&name.parse::<NodeName>().unwrap()].clone()
    }
    /// The word of each decision, in the order of names.
    pub fn words(&self) -> Vec<&'static str> {
        self.plan().decisions.values().map(Decision::as_str).collect()
    }
    pub fn later(mut self, seconds: i64) -> Self {
        self.now += SignedDuration::from_secs(seconds);
        self
    }
    pub fn max_in_flight(mut self, limit: u32) -> Self {
        self.release.rollout.max_in_flight = limit;
        self
    }
    pub fn require_all(mut self) -> Self {
        self.release.rollout.require_all = true;
        self
    }
    pub fn heal_after(mut self, delay: Duration) -> Self {
        self.release.rollout.heal_after = delay;
        self
    }
}

impl NodeBuilder {
    pub fn tags(self, tags: &[&str]) -> Self {
        self.spec(|spec| spec.tags = tags.iter().map(|tag| tag.parse().unwrap()).collect())
    }
    pub fn after(self, selector: &str) -> Self {
        self.spec(|spec| spec.after.push(selector.parse().unwrap()))
    }
    pub fn needs_approval(self) -> Self {
        self.spec(|spec| spec.approval = true)
    }
    pub fn intermittent(self) -> Self {
        self.spec(|spec| spec.availability = Availability::Intermittent)
    }
    pub fn reboots(self, policy: RebootPolicy) -> Self {
        self.spec(|spec| spec.reboot.policy = policy)
    }
    pub fn reboot_window(self, span: serde_json::Value) -> Self {
        self.spec(|spec| spec.reboot.window = Some(serde_json::from_value(span).unwrap()))
    }
    /// In this boot, so many seconds ago, it was told to reboot into this system.
    pub fn told_to_reboot(self, name: &str, seconds: i64) -> Self {
        self.state(|state| {
            let (boot, toplevel) = (state.boot_id.clone(), system(name));
            state.reboot = Some(RebootOrder { boot, toplevel, at: at(seconds) });
        })
    }
    pub fn booted_since(self) -> Self {
        self.state(|state| state.boot_id = "2f2e3d4c-0000-4000-8000-000000000000".parse().unwrap())
    }
    pub fn staged(self, name: &str) -> Self {
        self.state(|state| state.staged = Some(system(name)))
    }
    /// It has the wanted system by a switch of this release, which ended so many seconds ago.
    pub fn got(self, name: &str, from: &str, seconds: i64) -> Self {
        let entry = switch(name).from(from).of_this_release().finished(seconds);
        self.wants(name).running(name).entry(entry)
    }
    /// The wanted system was rolled back there.
    pub fn rolled_back(self, name: &str) -> Self {
        let entry = switch(name).ended(Outcome::RolledBack, Some(Cause::Contact)).of_this_release();
        self.wants(name).running("old").entry(entry)
    }
}

impl SwitchBuilder {
    pub fn from(mut self, previous: &str) -> Self {
        self.0.previous = system(previous);
        self
    }
    pub fn of_this_release(mut self) -> Self {
        self.0.revision = revision().commit.to_string();
        self
    }
}

impl World {
    /// The deployment's `rollout`, where it is not the default.
    pub fn rollout(mut self, rollout: serde_json::Value) -> Self {
        self.release.rollout = serde_json::from_value(rollout).unwrap();
        self
    }
    pub fn begun(mut self, name: &str, to: &str, seconds: i64) -> Self {
        let begun = Begun { toplevel: system(to), at: at(seconds), what: BegunWhat::Switch };
        self.observed.begun.insert(name.parse().unwrap(), begun);
        self
    }
    pub fn reboot_begun(mut self, name: &str, to: &str, seconds: i64) -> Self {
        let boot = "1f2e3d4c-0000-4000-8000-000000000000".parse().unwrap();
        let what = BegunWhat::Reboot { boot };
        let begun = Begun { toplevel: system(to), at: at(seconds), what };
        self.observed.begun.insert(name.parse().unwrap(), begun);
        self
    }
    pub fn approved(mut self, hash: &PlanHash, until: i64) -> Self {
        let (hash, what, by) = (hash.clone(), "wave 1".into(), "alice".into());
        self.intent.approvals.push(Approval { hash, what, by, at: at(0), until: at(until) });
        self
    }
    /// `name: word`, for each node.
    pub fn said(&self) -> Vec<String> {
        self.plan()
            .decisions
            .iter()
            .map(|(name, decision)| format!("{name}: {}", decision.as_str()))
            .collect()
    }
}
