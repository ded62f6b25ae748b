//! What a node waits for on account of the others: waves, soaking, approvals, `after`, windows, and the taking back of a
//! release that failed. What there is room for is [`room`](super::room)'s.
//!
//! | what is to be done | waits for |
//! |---|---|
//! | a new system | a first look at all that may have failed, the waves before, their soaking, approval, `after`, windows, room |
//! | healing, back to a system that the node had | windows, room |
//! | a reboot | a halt, that look, windows, its turn, room |
//! | taking a failed release back | room |
//! | the proof of what was booted once | room |
//! | a switch that waits for its verdict | nothing |

use jiff::Timestamp;

use super::approval;
use super::plan_time::PlanTime;
use super::standing::{Member, Standing};
use super::waves::Waves;
use super::windows;
use crate::model::decision::{Action, Hold, Purpose};
use crate::model::intent::Intent;
use crate::model::name::NodeName;
use crate::model::node::NodeSpec;
use crate::model::progress::{WavePhase, WaveView};
use crate::model::release::{NodeRelease, Release};
use crate::model::rollout::{OnFailure, Wave};

/// How far the release is, for those who wait.
pub struct Gate<'a> {
    release: &'a Release,
    intent: &'a Intent,
    time: &'a PlanTime,
    waves: &'a Waves<'a>,
    members: Vec<Member<'a>>,
    unseen: Vec<&'a NodeName>,
    rows: Vec<Row<'a>>,
}

/// One wave.
struct Row<'a> {
    wave: &'a Wave,
    nodes: usize,
    done: usize,
    failed: Vec<(&'a NodeName, String)>,
    /// The first node that others wait for.
    open: Option<&'a NodeName>,
    /// When all of it have been well for long enough.
    soaked: Option<Timestamp>,
    halted: bool,
}

impl<'a> Gate<'a> {
    /// Of a release whose members, in the order of their names, stand like that.
    pub fn new(
        release: &'a Release,
        (intent, time): (&'a Intent, &'a PlanTime),
        waves: &'a Waves<'a>,
        members: Vec<Member<'a>>,
    ) -> Self {
        let rows = rows(release, waves, &members);
        let unseen = members.iter().filter(|member| member.unseen).map(|member| member.name).collect();
        Self { release, intent, time, waves, members, unseen, rows }
    }

    /// Its members, in the order of their names.
    pub fn members(&self) -> &[Member<'a>] {
        &self.members
    }

    /// Whether what the release has changed is taken back.
    pub fn takes_back(&self) -> bool {
        match self.release.rollout.on_failure {
            OnFailure::Halt => false,
            OnFailure::Rollback => self.rows.iter().any(|row| row.halted),
        }
    }

    /// Why an action on a node of this wave has to wait, if it has to.
    pub fn hold(
        &self,
        (name, node): (&NodeName, &NodeRelease),
        wave: Option<usize>,
        action: &Action,
    ) -> Option<Hold> {
        let spec = node.spec.as_deref()?;
        match action {
            Action::Attach { .. } | Action::Deploy { purpose: Purpose::Proof | Purpose::TakeBack, .. } => {
                None
            }
            Action::Deploy { purpose: Purpose::Heal, .. } => self.window(name, spec),
            Action::Deploy { purpose: Purpose::Release, .. } => self
                .halted(wave)
                .or_else(|| self.unseen(wave))
                .or_else(|| self.earlier(wave))
                .or_else(|| self.approval(name, spec, wave))
                .or_else(|| self.after(name, spec))
                .or_else(|| self.window(name, spec)),
            Action::Reboot { .. } => self
                .halted(wave)
                .or_else(|| self.unseen(wave))
                .or_else(|| self.window(name, spec))
                .or_else(|| self.reboot_window(spec)),
        }
    }

    /// The rows of waves that a node must not overtake: its own and all before; all, while its own is not known.
    fn up_to(&self, wave: Option<usize>) -> &[Row<'a>] {
        wave.and_then(|wave| self.rows.get(..=wave)).unwrap_or(&self.rows)
    }

    fn halted(&self, wave: Option<usize>) -> Option<Hold> {
        // What is taken back goes nowhere any more, also not to the waves that had it.
        let rows = if self.takes_back() { &self.rows } else { self.up_to(wave) };
        let (number, row) = rows.iter().enumerate().find(|(_, row)| row.halted)?;
        let (node, why) = row.failed.first()?;
        Some(Hold::Halted { wave: number + 1, node: (*node).clone(), why: why.clone() })
    }

    /// What failed before a restart has to be seen before anything goes on.
    fn unseen(&self, wave: Option<usize>) -> Option<Hold> {
        let counts = |name: &NodeName| match (self.release.rollout.on_failure, wave, self.waves.wave_of(name))
        {
            (OnFailure::Halt, Some(own), Some(its)) => its <= own,
            (OnFailure::Halt | OnFailure::Rollback, _, _) => true,
        };
        let node = self.unseen.iter().find(|name| counts(name))?;
        Some(Hold::Unseen { node: (*node).clone() })
    }

    fn earlier(&self, wave: Option<usize>) -> Option<Hold> {
        let own = wave?;
        let before = self.rows.get(..own)?;
        // A node that was never evaluated may belong to any of them.
        let unknown = self.waves.unknown().first().copied().filter(|_| own > 0);
        for (number, row) in before.iter().enumerate() {
            if let Some(node) = row.open.or(unknown) {
                return Some(Hold::Wave { wave: own + 1, waits_for: number + 1, node: node.clone() });
            }
        }
        let soaking = before.iter().enumerate().filter_map(|(number, row)| Some((number, row.soaked?)));
        soaking
            .filter(|(_, until)| self.time.is_before(*until))
            .max_by_key(|(_, until)| *until)
            .map(|(number, until)| Hold::Soak { wave: number + 1, until })
    }

    fn approval(&self, name: &NodeName, spec: &NodeSpec, wave: Option<usize>) -> Option<Hold> {
        if let Some(hold) = wave.and_then(|wave| self.wave_approval(wave)) {
            return Some(hold);
        }
        if !spec.approval {
            return None;
        }
        let what = format!("node {name}");
        let hash = approval::hash(&what, self.release.nodes.get_key_value(name).into_iter());
        self.asked(what, hash)
    }

    fn wave_approval(&self, wave: usize) -> Option<Hold> {
        if !self.rows.get(wave)?.wave.approval {
            return None;
        }
        let what = format!("wave {}", wave + 1);
        self.asked(what.clone(), approval::hash(&what, self.nodes_of(wave)))
    }

    fn asked(&self, what: String, hash: Option<crate::model::intent::PlanHash>) -> Option<Hold> {
        match hash {
            None => Some(Hold::Evaluating),
            Some(hash) if approval::is_given(self.intent, &hash, self.time) => None,
            Some(hash) => Some(Hold::Approval { what, hash }),
        }
    }

    fn nodes_of(&self, wave: usize) -> impl Iterator<Item = (&'a NodeName, &'a NodeRelease)> {
        let nodes = &self.release.nodes;
        self.waves.nodes(wave).filter_map(move |name| nodes.get_key_value(name))
    }

    fn after(&self, name: &NodeName, spec: &NodeSpec) -> Option<Hold> {
        if spec.after.is_empty() {
            return None;
        }
        let waits_for = |other: &&Member<'_>| {
            let stands = match other.standing {
                Standing::Open | Standing::Unwell | Standing::Failed { .. } => true,
                Standing::Done { .. } | Standing::Passed => false,
            };
            let node = self.release.nodes.get(other.name);
            let none = std::collections::BTreeSet::new();
            let tags = node.and_then(|node| node.spec.as_ref()).map_or(&none, |spec| &spec.tags);
            stands && other.name != name && spec.after.iter().any(|on| on.matches(other.name, tags))
        };
        let first = self.members.iter().find(waits_for)?;
        Some(Hold::After { node: first.name.clone() })
    }

    fn window(&self, name: &NodeName, spec: &NodeSpec) -> Option<Hold> {
        let windows = &self.release.rollout.windows;
        if windows.is_empty() || self.is_overridden(name, spec) {
            return None;
        }
        let its = windows.iter().filter(|window| window.on.matches(name, &spec.tags));
        let standing = windows::standing(its, self.time.now());
        standing.changes_at.into_iter().for_each(|at| self.time.look_again(at));
        let by = standing.by.unwrap_or_default();
        (!standing.open).then_some(Hold::Window { by, until: standing.changes_at })
    }

    fn is_overridden(&self, name: &NodeName, spec: &NodeSpec) -> bool {
        let meant = |given: &&crate::model::intent::Override| given.on.matches(name, &spec.tags);
        self.intent.overrides.iter().filter(meant).any(|given| self.time.is_before(given.until))
    }

    fn reboot_window(&self, spec: &NodeSpec) -> Option<Hold> {
        let span = spec.reboot.window.as_ref()?;
        let (open, changes_at) = windows::span_standing(span, self.time.now());
        changes_at.into_iter().for_each(|at| self.time.look_again(at));
        (!open).then_some(Hold::Window { by: "reboot.window".into(), until: changes_at })
    }

    /// The same for people.
    pub fn view(&self) -> Vec<WaveView> {
        let phase = |number: usize, row: &Row<'_>| {
            let waits = self.earlier(Some(number)).is_some();
            let halted = self.halted(Some(number)).is_some();
            match (row.open, row.soaked) {
                _ if row.halted => WavePhase::Halted,
                (Some(_), _) if waits || halted => WavePhase::Waiting,
                (Some(_), _) => match self.wave_approval(number) {
                    Some(Hold::Approval { hash, .. }) => WavePhase::Approval { hash: Some(hash) },
                    Some(_) => WavePhase::Approval { hash: None },
                    None => WavePhase::Running,
                },
                (None, Some(until)) if self.time.is_before(until) => WavePhase::Soaking { until },
                (None, _) => WavePhase::Done,
            }
        };
        let view = |(number, row): (usize, &Row<'_>)| WaveView {
            on: row.wave.on.clone(),
            nodes: row.nodes,
            done: row.done,
            failed: row.failed.iter().map(|(name, _)| (*name).clone()).collect(),
            phase: phase(number, row),
        };
        self.rows.iter().enumerate().map(view).collect()
    }
}

fn rows<'a>(release: &'a Release, waves: &Waves<'a>, members: &[Member<'a>]) -> Vec<Row<'a>> {
    let empty = |wave: &'a Wave| Row {
        wave,
        nodes: 0,
        done: 0,
        failed: Vec::new(),
        open: None,
        soaked: None,
        halted: false,
    };
    let mut rows: Vec<Row<'a>> = release.rollout.waves.iter().map(empty).collect();
    // Both are in the order of names: no search for any of them.
    for (member, place) in members.iter().zip(waves.places()) {
        let Some(row) = place.and_then(|place| rows.get_mut(place)) else { continue };
        row.nodes += 1;
        match &member.standing {
            Standing::Done { since } => {
                row.done += 1;
                let soak = row.wave.soak;
                let soaked = since.filter(|_| !soak.is_zero()).map(|since| super::later(since, soak));
                row.soaked = row.soaked.max(soaked);
            }
            Standing::Unwell | Standing::Open => row.open = row.open.or(Some(member.name)),
            Standing::Failed { why } => row.failed.push((member.name, why.clone())),
            Standing::Passed => {}
        }
    }
    for row in &mut rows {
        row.halted = row.failed.len() > row.wave.max_failures.of(row.nodes);
    }
    rows
}
