//! What must hold between nodes: waves, soaking, approvals, `after`, windows, and how much goes on at once. In other words than
//! the plan's, over what the controller's newest reads have found.

use std::collections::{BTreeMap, BTreeSet};

use deciding::model::action::{Action, Purpose};
use deciding::model::intent::Intent;
use deciding::model::journal::{Entry, Outcome, PinEnd};
use deciding::model::name::{NodeName, Tag};
use deciding::model::node::{Availability, NodeSpec, RebootPolicy};
use deciding::model::observed::{NodeState, Observed};
use deciding::model::release::{Progress, Release};
use deciding::model::rollout::{Effect, OnFailure, Span};
use deciding::model::selector::Selector;
use deciding::model::store_path::StorePath;
use jiff::{SignedDuration, Timestamp};

use crate::judge::{is_final, is_there};

/// What a person approved: which wave or node, with which systems, and until when.
#[derive(Debug, Clone)]
pub struct Approved {
    pub what: String,
    pub systems: BTreeMap<NodeName, StorePath>,
    pub until: Timestamp,
}

/// The fleet when something is begun on one node.
#[derive(Debug)]
pub struct Fleet<'a> {
    /// What the controller's wall clock shows.
    pub wall: Timestamp,
    pub release: &'a Release,
    pub observed: &'a Observed,
    pub intent: &'a Intent,
    pub approved: &'a [Approved],
    /// The nodes that are worked on, this one aside.
    pub acting: BTreeSet<NodeName>,
    /// Those of them that were when the plan was made.
    pub before: BTreeSet<NodeName>,
    /// Those of them that are being rebooted.
    pub rebooting: BTreeSet<NodeName>,
    /// What has to be added to a time of a node's clock.
    pub behind: BTreeMap<NodeName, SignedDuration>,
}

/// Where a node stands with the release.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Stand {
    Done(Option<Timestamp>),
    Failed,
    /// Whoever waits for it waits.
    Blocks,
    /// It was told to reboot; whether that has failed takes more to say.
    Perhaps,
    Passed,
}

/// A selector in one of the three simple forms that schedules use.
pub fn means(on: &Selector, name: &NodeName, tags: &BTreeSet<Tag>) -> bool {
    match on.to_string().as_str() {
        "*" => true,
        text => match text.strip_prefix('@') {
            Some(tag) => tags.iter().any(|has| has.as_str() == tag),
            None => name.as_str() == text,
        },
    }
}

/// The first wave that means a node. Of one that was never evaluated no tag is known.
pub fn wave_of(release: &Release, name: &NodeName) -> Option<usize> {
    let node = release.nodes.get(name)?;
    for (number, wave) in release.rollout.waves.iter().enumerate() {
        match &node.spec {
            Some(spec) if means(&wave.on, name, &spec.tags) => return Some(number),
            Some(_) => {}
            None if wave.on.to_string().starts_with('@') => return None,
            None if means(&wave.on, name, &BTreeSet::new()) => return Some(number),
            None => {}
        }
    }
    None
}

/// The systems that the nodes of a wave would get.
pub fn systems_of_wave(release: &Release, wave: usize) -> BTreeMap<NodeName, StorePath> {
    let names = release.nodes.keys().filter(|name| wave_of(release, name) == Some(wave));
    names.flat_map(|name| system_of(release, name)).collect()
}

/// The system that a node would get: what it keeps, where its own does not evaluate.
pub fn system_of(release: &Release, name: &NodeName) -> Option<(NodeName, StorePath)> {
    let node = release.nodes.get(name)?;
    let system = match node.progress {
        Progress::NotEvaluated { .. } => node.last_good.clone()?,
        Progress::Evaluating | Progress::Building | Progress::NotBuilt { .. } | Progress::Built => {
            node.spec.as_ref()?.toplevel.clone()
        }
    };
    Some((name.clone(), system))
}

impl Fleet<'_> {
    /// What is begun on a node, if it was not its turn.
    pub fn judge(&self, name: &NodeName, action: &Action) -> Result<(), String> {
        let Some(spec) = self.release.nodes.get(name).and_then(|node| node.spec.as_deref()) else {
            return Ok(());
        };
        match action {
            Action::Attach { .. } => Ok(()),
            Action::Deploy { purpose: Purpose::Proof, .. } => Ok(()),
            Action::Deploy { purpose: Purpose::TakeBack, .. } => {
                let back = self.release.rollout.on_failure == OnFailure::Rollback;
                let by = [Stand::Failed, Stand::Perhaps];
                let mut waves = 0..self.release.rollout.waves.len();
                let halted = waves.any(|wave| self.may_be_halted(wave, &by));
                if back && halted {
                    Ok(())
                } else {
                    Err("is taken back, and the release has not failed".into())
                }
            }
            Action::Deploy { purpose: Purpose::Heal, .. } => {
                self.window(name, spec).and_then(|()| self.room(name, spec))
            }
            Action::Deploy { purpose: Purpose::Release, .. } => self
                .waves(name)
                .and_then(|()| self.approval(name, spec))
                .and_then(|()| self.after(name, spec))
                .and_then(|()| self.window(name, spec))
                .and_then(|()| self.room(name, spec)),
            Action::Reboot { .. } => self.reboot(name, spec),
        }
    }

    fn state(&self, name: &NodeName) -> Option<&NodeState> {
        let seen = self.observed.nodes.get(name)?;
        seen.state.as_ref().filter(|_| seen.contact.is_reachable())
    }

    pub fn is_suspended(&self, name: &NodeName, spec: &NodeSpec) -> bool {
        let kept = self.intent.suspensions.values();
        let mut kept = kept.filter(|kept| kept.until.is_none_or(|until| self.wall < until));
        spec.suspended.is_some() || kept.any(|kept| means(&kept.on, name, &spec.tags))
    }

    fn stand(&self, name: &NodeName) -> Stand {
        let node = &self.release.nodes[name];
        let Some(spec) = node.spec.as_deref() else { return Stand::Passed };
        match node.progress {
            Progress::NotEvaluated { .. } | Progress::NotBuilt { .. } => return Stand::Passed,
            Progress::Evaluating => return self.unless_suspended(name, spec, Stand::Blocks),
            Progress::Building | Progress::Built => {}
        }
        if spec.host.is_none() {
            return Stand::Passed;
        }
        if self.before.contains(name) {
            return Stand::Blocks;
        }
        match self.observed.nodes.get(name) {
            None => self.unless_suspended(name, spec, Stand::Blocks),
            Some(seen) if seen.contact.is_reachable() => {
                let Some(state) = &seen.state else { return Stand::Blocks };
                let stand = answering(spec, state, self.behind.get(name).copied().unwrap_or_default());
                if matches!(stand, Stand::Done(_)) { stand } else { self.unless_suspended(name, spec, stand) }
            }
            Some(seen) => {
                let begun =
                    self.observed.begun.get(name).is_some_and(|begun| begun.toplevel == spec.toplevel);
                if begun && spec.availability == Availability::Always {
                    return self.unless_suspended(name, spec, Stand::Failed);
                }
                let kept = seen.state.as_ref().map(|state| answering(spec, state, SignedDuration::ZERO));
                match kept {
                    Some(stand @ (Stand::Failed | Stand::Perhaps)) => {
                        self.unless_suspended(name, spec, stand)
                    }
                    // What was last seen of it may say that it is done.
                    Some(Stand::Done(_) | Stand::Blocks | Stand::Passed) | None => Stand::Passed,
                }
            }
        }
    }

    fn unless_suspended(&self, name: &NodeName, spec: &NodeSpec, stand: Stand) -> Stand {
        if self.is_suspended(name, spec) { Stand::Passed } else { stand }
    }

    fn members(&self, wave: usize) -> impl Iterator<Item = &NodeName> {
        self.release.nodes.keys().filter(move |name| wave_of(self.release, name) == Some(wave))
    }

    fn is_halted(&self, wave: usize) -> bool {
        self.may_be_halted(wave, &[Stand::Failed])
    }

    fn may_be_halted(&self, wave: usize, by: &[Stand]) -> bool {
        // One that is worked on may have failed all the same.
        let told = |name: &NodeName| by.contains(&Stand::Perhaps) && self.was_told_to_reboot(name);
        let failed = self.members(wave).filter(|name| by.contains(&self.stand(name)) || told(name)).count();
        failed > self.release.rollout.waves[wave].max_failures.of(self.members(wave).count())
    }

    fn was_told_to_reboot(&self, name: &NodeName) -> bool {
        let state = self.observed.nodes.get(name).and_then(|seen| seen.state.as_ref());
        let order = state.and_then(|state| state.reboot.as_ref());
        let spec = self.release.nodes[name].spec.as_ref();
        order.zip(spec).is_some_and(|(order, spec)| order.toplevel == spec.toplevel)
    }

    fn waves(&self, name: &NodeName) -> Result<(), String> {
        let Some(own) = wave_of(self.release, name) else { return Ok(()) };
        let back = self.release.rollout.on_failure == OnFailure::Rollback;
        let last = if back { self.release.rollout.waves.len() - 1 } else { own };
        if let Some(wave) = (0..=last).find(|wave| self.is_halted(*wave)) {
            return Err(format!("gets a release that has failed in wave {}", wave + 1));
        }
        for wave in 0..own {
            if let Some(open) = self.members(wave).find(|other| self.stand(other) == Stand::Blocks) {
                return Err(format!("gets the release before {open} of wave {}", wave + 1));
            }
            let soak = self.release.rollout.waves[wave].soak;
            let early = |other: &&NodeName| match self.stand(other) {
                // A clock that is off by less than this is taken as right.
                Stand::Done(Some(since)) => self.wall + SignedDuration::from_secs(31) < since + soak,
                Stand::Done(None) | Stand::Failed | Stand::Blocks | Stand::Perhaps | Stand::Passed => false,
            };
            if !soak.is_zero()
                && let Some(other) = self.members(wave).find(early)
            {
                return Err(format!("gets the release while {other} of wave {} still soaks", wave + 1));
            }
        }
        Ok(())
    }

    fn approval(&self, name: &NodeName, spec: &NodeSpec) -> Result<(), String> {
        let given = |what: &str, systems: &BTreeMap<NodeName, StorePath>| {
            let same = |given: &&Approved| given.what == what && given.systems == *systems;
            self.approved.iter().filter(same).any(|given| self.wall < given.until)
        };
        if let Some(wave) = wave_of(self.release, name)
            && self.release.rollout.waves[wave].approval
            && !given(&format!("wave {}", wave + 1), &systems_of_wave(self.release, wave))
        {
            return Err(format!("gets what nobody has approved for wave {}", wave + 1));
        }
        let own = system_of(self.release, name).into_iter().collect();
        if spec.approval && !given(&format!("node {name}"), &own) {
            return Err("gets what nobody has approved for it".into());
        }
        Ok(())
    }

    fn after(&self, name: &NodeName, spec: &NodeSpec) -> Result<(), String> {
        let tags = |other: &NodeName| {
            self.release.nodes[other].spec.as_ref().map(|spec| spec.tags.clone()).unwrap_or_default()
        };
        let waited_for = |other: &&NodeName| spec.after.iter().any(|on| means(on, other, &tags(other)));
        let stands = |other: &&NodeName| matches!(self.stand(other), Stand::Blocks | Stand::Failed);
        match self.release.nodes.keys().filter(|other| *other != name).filter(waited_for).find(stands) {
            Some(other) => Err(format!("goes before {other}, after which it is declared")),
            None => Ok(()),
        }
    }

    fn window(&self, name: &NodeName, spec: &NodeSpec) -> Result<(), String> {
        let overrides = &self.intent.overrides;
        if overrides.iter().any(|given| means(&given.on, name, &spec.tags) && self.wall < given.until) {
            return Ok(());
        }
        let its = self.release.rollout.windows.iter().filter(|window| means(&window.on, name, &spec.tags));
        let (mut allowed, mut any) = (false, false);
        for window in its {
            let open = is_open(&window.span, self.wall);
            match window.effect {
                Effect::Deny if open => return Err("is worked on while a window is shut".into()),
                Effect::Deny => {}
                Effect::Allow => (allowed, any) = (allowed || open, true),
            }
        }
        if any && !allowed { Err("is worked on while no window is open".into()) } else { Ok(()) }
    }

    fn reboot(&self, name: &NodeName, spec: &NodeSpec) -> Result<(), String> {
        if spec.reboot.policy == RebootPolicy::Never {
            return Err("is rebooted, and never to be".into());
        }
        let wave = wave_of(self.release, name);
        let mut others = self.rebooting.iter().filter(|other| wave_of(self.release, other) == wave);
        if let Some(other) = others.next().filter(|_| wave.is_some()) {
            return Err(format!("is rebooted while {other} of its wave is"));
        }
        if let Some(halted) = (0..=wave.unwrap_or(0)).find(|wave| self.is_halted(*wave)) {
            return Err(format!("is rebooted for a release that failed in wave {}", halted + 1));
        }
        if spec.reboot.window.as_ref().is_some_and(|span| !is_open(span, self.wall)) {
            return Err("is rebooted outside of reboot.window".into());
        }
        self.window(name, spec).and_then(|()| self.room(name, spec))
    }

    fn room(&self, name: &NodeName, _: &NodeSpec) -> Result<(), String> {
        let Some(number) = wave_of(self.release, name) else { return Ok(()) };
        let wave = &self.release.rollout.waves[number];
        let others: Vec<_> = self.members(number).filter(|other| *other != name).collect();
        let worked_on = others.iter().filter(|other| self.acting.contains(**other)).count();
        if wave.max_in_flight.is_some_and(|most| worked_on >= most as usize) {
            return Err(format!("is one too many of its wave: {worked_on} others are worked on"));
        }
        let down = others.iter().filter(|other| self.is_down(other)).count();
        if let Some(most) = wave.max_unavailable
            && down >= most.of(others.len() + 1).max(1)
            && !self.is_down(name)
        {
            let down = others.iter().filter(|other| self.is_down(other)).map(|name| name.as_str());
            let down: Vec<_> = down.collect();
            return Err(format!(
                "makes too many of wave {} unavailable: {} are",
                number + 1,
                down.join(", ")
            ));
        }
        Ok(())
    }

    fn is_down(&self, name: &NodeName) -> bool {
        let Some(spec) = self.release.nodes[name].spec.as_deref().filter(|spec| spec.host.is_some()) else {
            return false;
        };
        match (self.state(name), self.observed.nodes.get(name)) {
            _ if self.acting.contains(name) => true,
            (Some(state), _) => {
                state.live_switch().is_some()
                    || state.failed_units.iter().any(|unit| !state.baseline.contains(unit))
            }
            (None, Some(seen)) => !seen.contact.is_reachable() && spec.availability == Availability::Always,
            (None, None) => spec.availability == Availability::Always,
        }
    }
}

/// Where a node stands that answers.
fn answering(spec: &NodeSpec, state: &NodeState, behind: SignedDuration) -> Stand {
    let toplevel = &spec.toplevel;
    let ordered = state.reboot.as_ref().is_some_and(|order| order.toplevel == *toplevel);
    if state.live_switch().is_some() {
        return Stand::Blocks;
    }
    let tries =
        || state.journal.iter().rev().filter(|entry| entry.system == *toplevel && entry.outcome.is_some());
    let succeeded = |entry: &&Entry| entry.outcome == Some(Outcome::Succeeded);
    let ours = |entry: &Entry| entry.finished.unwrap_or(entry.started) + behind;
    if is_there(toplevel, spec.goal, (&state.running, state.boot_default.as_ref(), state.staged.as_ref())) {
        let failing = state.failed_units.iter().any(|unit| !state.baseline.contains(unit));
        return match tries().find(succeeded) {
            _ if ordered => Stand::Perhaps,
            // Whether its units count against the release depends on who brought it.
            Some(_) if failing => Stand::Done(None),
            Some(entry) => Stand::Done(Some(ours(entry))),
            None => Stand::Done(None),
        };
    }
    let counts = |entry: &&Entry| entry.forgiven == deciding::model::journal::Forgiven::No;
    if tries().next().filter(counts).is_some_and(is_final) {
        return Stand::Failed;
    }
    if let Some(PinEnd::NextRelease(of)) = state.pin.as_ref().map(|pin| &pin.until)
        && of == toplevel
    {
        return Stand::Blocks;
    }
    let waits = state.staged.as_ref() == Some(toplevel);
    if waits && spec.reboot.policy == RebootPolicy::Never {
        return Stand::Passed;
    }
    let last = state.journal.iter().rev().find(succeeded);
    match last.is_some_and(|entry| entry.system == *toplevel) {
        true => Stand::Done(None),
        // A reboot that came to nothing, or is under way.
        false if ordered => Stand::Perhaps,
        false => Stand::Blocks,
    }
}

/// Windows of schedules are spans of a day in UTC, perhaps on some days of the week.
pub fn is_open(span: &Span, wall: Timestamp) -> bool {
    let seconds = wall.as_second();
    let (day, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // The first day of the epoch was a Thursday.
    let names = ["thu", "fri", "sat", "sun", "mon", "tue", "wed"];
    let today = names[usize::try_from(day.rem_euclid(7)).unwrap_or(0)];
    let on_day = |day: &deciding::model::rollout::Day| {
        serde_json::to_value(day).is_ok_and(|word| word.as_str() == Some(today))
    };
    let in_hours = span.hours.is_none_or(|hours| {
        let at = |time: jiff::civil::Time| i64::from(time.hour()) * 3600 + i64::from(time.minute()) * 60;
        at(hours.from) <= second && second < at(hours.to)
    });
    in_hours && (span.days.is_empty() || span.days.iter().any(on_day))
}
