//! What Git says over time: revisions with the specs of their nodes, and how far the newest one is evaluated and built.
//!
//! Goes from one release to the next with the controller's own [`succession`].

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use deciding::model::manifest::Names;
use deciding::model::name::NodeName;
use deciding::model::node::{Availability, Goal, NodeSpec, OnDrift, Reboot, RebootPolicy};
use deciding::model::release::Release;
use deciding::model::revision::Revision;
use deciding::model::rollout::{Amount, OnFailure, RolloutSpec, Unreachable, Wave, Window};
use deciding::model::selector::Selector;
use deciding::model::store_path::StorePath;
use deciding::reconcile::succession;

use crate::chance::Chance;
use crate::systems::{Systems, a_fate, a_kernel};
use crate::time::{Ms, SECOND, dawn};

/// What becomes of one node's system in a revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Making {
    /// It is built after so long.
    Builds(Ms),
    /// It does not evaluate.
    NotEvaluated,
    /// It does not build.
    NotBuilt,
    /// Its build fails so often before it succeeds.
    Flaky(u32),
}

#[derive(Debug, Clone)]
pub struct Declared {
    pub spec: Arc<NodeSpec>,
    pub making: Making,
}

/// One commit.
#[derive(Debug, Clone)]
pub struct Commit {
    pub revision: Revision,
    pub nodes: BTreeMap<NodeName, Declared>,
    pub rollout: RolloutSpec,
}

/// One step of a preparation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Evaluated,
    Built,
}

/// The branch, and the controller's way with it.
#[derive(Debug)]
pub struct Repository {
    pub commits: Vec<Commit>,
    /// Everything that was ever built for a node: a system is switched to only after that.
    pub built: BTreeMap<NodeName, Vec<StorePath>>,
    /// The newest built system of each node, which a GC root remembers.
    pub roots: BTreeMap<NodeName, StorePath>,
    /// How often a flaky build has failed.
    failed: BTreeMap<(usize, NodeName), u32>,
}

impl Repository {
    pub fn new(first: Commit) -> Self {
        Self { commits: vec![first], built: BTreeMap::new(), roots: BTreeMap::new(), failed: BTreeMap::new() }
    }

    pub fn head(&self) -> &Commit {
        &self.commits[self.commits.len() - 1]
    }

    /// The head comes into force, with nothing known of its nodes.
    pub fn begin(&self, before: Option<Release>) -> Release {
        let head = self.head();
        let names = Names {
            version: 1,
            format: "driftless".into(),
            nodes: head.nodes.keys().cloned().collect(),
            rollout: head.rollout.clone(),
            unsupported: Vec::new(),
        };
        succession::begin(before, head.revision.clone(), &names, |name| self.roots.get(name).cloned())
    }

    /// How long the build of a node's system takes.
    pub fn build_time(&self, commit: usize, name: &NodeName) -> Ms {
        match self.commits[commit].nodes.get(name).map(|declared| declared.making) {
            Some(Making::Builds(lasts)) => lasts + 100,
            Some(Making::NotBuilt | Making::Flaky(_)) => 10 * SECOND,
            Some(Making::NotEvaluated) | None => 1,
        }
    }

    /// Whether another try of a commit could bring more than the last.
    pub fn may_change(&self, commit: usize, release: &Release) -> bool {
        let flaky = |declared: &Declared| matches!(declared.making, Making::Flaky(_));
        let broken = release.nodes.iter().filter(|(_, node)| succession::is_broken(node));
        broken.into_iter().any(|(name, _)| self.commits[commit].nodes.get(name).is_some_and(flaky))
    }

    /// Takes in one step of the preparation of a commit. `steadily`: what fails in passing does not.
    pub fn prepared(
        &mut self,
        release: &mut Release,
        commit: usize,
        (name, step): (&NodeName, Step),
        steadily: bool,
    ) {
        let Some(declared) = self.commits[commit].nodes.get(name) else { return };
        match (step, declared.making) {
            (Step::Evaluated, Making::NotEvaluated) => {
                succession::evaluated(release, name, Err("undefined variable 'pkg'".into()));
            }
            (Step::Evaluated, Making::Builds(_) | Making::NotBuilt | Making::Flaky(_)) => {
                succession::evaluated(release, name, Ok(Some(declared.spec.clone())));
            }
            (Step::Built, Making::NotEvaluated) => {}
            (Step::Built, Making::NotBuilt) => succession::built(release, name, Err("builder failed".into())),
            (Step::Built, Making::Flaky(times))
                if !steadily && {
                    let failed = self.failed.entry((commit, name.clone())).or_default();
                    *failed += 1;
                    *failed <= times
                } =>
            {
                succession::built(release, name, Err("lost the substituter".into()));
            }
            (Step::Built, Making::Builds(_) | Making::Flaky(_)) => {
                let toplevel = declared.spec.toplevel.clone();
                self.roots.insert(name.clone(), toplevel.clone());
                let built = self.built.entry(name.clone()).or_default();
                if !built.contains(&toplevel) {
                    built.push(toplevel);
                }
                succession::built(release, name, Ok(()));
            }
        }
    }
}

/// What every node of a schedule has in common with none of the others.
pub fn a_spec(chance: &mut Chance, node: usize, toplevel: StorePath) -> NodeSpec {
    static PLAIN: OnceLock<NodeSpec> = OnceLock::new();
    let plain = PLAIN.get_or_init(|| {
        serde_json::from_value(serde_json::json!({
            "drv": format!("/nix/store/{}-x.drv", "b".repeat(32)),
            "toplevel": format!("/nix/store/{}-x", "b".repeat(32)),
            "system": "x86_64-linux",
            "host": "node",
        }))
        .unwrap()
    });
    let tags = [("canary", 300), ("db", 300)];
    let tags =
        tags.into_iter().filter(|(_, often)| chance.happens(*often)).map(|(tag, _)| tag.parse().unwrap());
    let tags = tags.collect();
    let after = node > 0 && chance.happens(80);
    NodeSpec {
        toplevel,
        tags,
        host: Some(format!("n{node}")).filter(|_| !chance.happens(20)),
        goal: chance.pick(&[Goal::Switch, Goal::Switch, Goal::Switch, Goal::Switch, Goal::Boot, Goal::Test]),
        on_drift: if chance.happens(150) { OnDrift::Report } else { OnDrift::Heal },
        suspended: chance.happens(50).then(|| "disk is full".to_owned()),
        availability: if chance.happens(150) { Availability::Intermittent } else { Availability::Always },
        after: if after { vec![selector(&format!("n{}", chance.place(node)))] } else { Vec::new() },
        approval: chance.happens(40),
        reboot: Reboot {
            policy: chance.pick(&[
                RebootPolicy::Never,
                RebootPolicy::Never,
                RebootPolicy::Never,
                RebootPolicy::WhenRequired,
                RebootPolicy::Always,
            ]),
            ..Reboot::default()
        },
        ..plain.clone()
    }
}

fn a_making(chance: &mut Chance, bad: u64) -> Making {
    if chance.happens(bad) {
        chance.pick(&[Making::NotEvaluated, Making::NotBuilt, Making::Flaky(1), Making::Flaky(2)])
    } else {
        Making::Builds(chance.pick(&[0, SECOND, 5 * SECOND, 20 * SECOND, 90 * SECOND, 400 * SECOND]))
    }
}

fn a_rollout(chance: &mut Chance) -> RolloutSpec {
    let simple = chance.happens(350);
    RolloutSpec {
        waves: if simple { vec![Wave::default()] } else { some_waves(chance) },
        max_in_flight: chance.pick(&[1, 1, 2, 2, 3, 5]),
        on_failure: if chance.happens(250) { OnFailure::Rollback } else { OnFailure::Halt },
        unreachable: if chance.happens(200) { Unreachable::Wait } else { Unreachable::Skip },
        windows: if simple { Vec::new() } else { some_windows(chance) },
        require_all: chance.happens(80),
        heal_after: Duration::from_secs(chance.pick(&[0, 60, 300, 300])),
        ..RolloutSpec::default()
    }
}

fn some_waves(chance: &mut Chance) -> Vec<Wave> {
    let on: &[&str] = chance.pick(&[&["@canary", "*"][..], &["n1", "@db", "*"], &["@canary", "@db"], &["*"]]);
    on.iter()
        .map(|on| Wave {
            on: selector(on),
            soak: Duration::from_secs(chance.pick(&[0, 0, 40, 200])),
            max_in_flight: chance.pick(&[None, None, Some(1), Some(2)]),
            max_unavailable: chance.pick(&[None, None, Some(Amount::Count(1)), Some(Amount::Percent(50))]),
            max_failures: chance.pick(&[
                Amount::Count(0),
                Amount::Count(0),
                Amount::Count(1),
                Amount::Percent(34),
            ]),
            order: if chance.happens(200) { vec![selector("n2")] } else { Vec::new() },
            approval: chance.happens(120),
        })
        .collect()
}

/// Most deployments have none; these are shut and open within minutes of the beginning, and on other days.
fn some_windows(chance: &mut Chance) -> Vec<Window> {
    if chance.happens(700) {
        return Vec::new();
    }
    let windows = chance.within(1..3);
    (0..windows).map(|_| a_window(chance)).collect()
}

fn a_window(chance: &mut Chance) -> Window {
    let on = chance.pick(&["*", "@db", "n2"]);
    let effect = chance.pick(&["allow", "deny"]);
    let days: &[&str] = chance.pick(&[&[][..], &[], &["sun"], &["mon", "tue"]]);
    let span = a_span(chance);
    let mut window = serde_json::json!({ "on": on, "effect": effect, "days": days, "timeZone": "UTC" });
    window["hours"] = span.into();
    serde_json::from_value(window).unwrap()
}

fn a_span(chance: &mut Chance) -> String {
    let from = chance.within(0..12);
    let to = from + chance.within(1..8);
    format!("12:{from:02}-12:{to:02}")
}

fn selector(text: &str) -> Selector {
    text.parse().unwrap()
}

/// How bad the revisions of a schedule are, in a thousand.
#[derive(Debug, Clone, Copy)]
pub struct Quality {
    pub bad: u64,
    pub flaky: u64,
    pub unbuilt: u64,
}

impl Quality {
    pub fn of(chance: &mut Chance) -> Self {
        Self {
            bad: chance.pick(&[0, 60, 150, 400]),
            flaky: chance.pick(&[0, 100, 300]),
            unbuilt: chance.pick(&[0, 0, 60, 250]),
        }
    }
}

/// The first commit of a fleet of so many nodes.
pub fn first_commit(chance: &mut Chance, nodes: usize, quality: Quality, systems: &mut Systems) -> Commit {
    let mut declared = BTreeMap::new();
    for node in 0..nodes {
        let fate = a_fate(chance, quality.bad / 2, quality.flaky);
        let toplevel = systems.add(node, fate, a_kernel(chance));
        let spec = a_spec(chance, node, toplevel);
        declared.insert(
            name_of(node),
            Declared { spec: Arc::new(spec), making: a_making(chance, quality.unbuilt) },
        );
    }
    Commit { revision: a_revision(0), nodes: declared, rollout: a_rollout(chance) }
}

/// A merge: some nodes change, a few in more than their system; some go back to what they were before.
pub fn next_commit(
    chance: &mut Chance,
    (commits, nodes): (&[Commit], usize),
    quality: Quality,
    systems: &mut Systems,
) -> Commit {
    let number = commits.len();
    let mut commit = commits[number - 1].clone();
    commit.revision = a_revision(number);
    // A revert of everything.
    if number > 1 && chance.happens(120) {
        let back = chance.place(number - 1);
        commit.nodes = commits[back].nodes.clone();
        return commit;
    }
    let touched = chance.pick(&[150, 400, 1000]);
    for node in 0..nodes {
        if chance.happens(touched) {
            redeclare(chance, &mut commit, (commits, node), quality, systems);
        }
    }
    if chance.happens(100) {
        commit.rollout = a_rollout(chance);
    }
    commit
}

fn redeclare(
    chance: &mut Chance,
    commit: &mut Commit,
    (commits, node): (&[Commit], usize),
    quality: Quality,
    systems: &mut Systems,
) {
    let name = name_of(node);
    let making = a_making(chance, quality.unbuilt);
    let Some(declared) = commit.nodes.get_mut(&name) else {
        let fate = a_fate(chance, quality.bad, quality.flaky);
        let toplevel = systems.add(node, fate, a_kernel(chance));
        let spec = Arc::new(a_spec(chance, node, toplevel));
        commit.nodes.insert(name, Declared { spec, making });
        return;
    };
    if commits.len() > 1 && chance.happens(40) {
        commit.nodes.remove(&name);
        return;
    }
    declared.making = making;
    let spec = Arc::make_mut(&mut declared.spec);
    if chance.happens(100) {
        let other = a_spec(chance, node, spec.toplevel.clone());
        *spec = other;
    }
    let before = chance.place(commits.len());
    spec.toplevel = match commits[before].nodes.get(&name) {
        Some(older) if chance.happens(150) => older.spec.toplevel.clone(),
        Some(_) | None => {
            let fate = a_fate(chance, quality.bad, quality.flaky);
            systems.add(node, fate, a_kernel(chance))
        }
    };
}

pub fn name_of(node: usize) -> NodeName {
    format!("n{node}").parse().unwrap()
}

fn a_revision(number: usize) -> Revision {
    Revision {
        commit: format!("{:040x}", number + 0xabc_0000).parse().unwrap(),
        tree: format!("{number:040x}"),
        subject: format!("change {number}"),
        author: "Alice <alice@example.org>".into(),
        committed_at: dawn(),
    }
}
