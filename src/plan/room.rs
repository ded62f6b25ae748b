//! How much may go on at once: of the fleet, of a wave, and how many nodes of a wave may be worked on, silent or not well.
//! Who goes first where not all can.

use std::collections::{BTreeMap, BTreeSet};

use super::drift;
use super::waves::Waves;
use crate::model::decision::{Action, Decision, Hold, Purpose};
use crate::model::name::NodeName;
use crate::model::node::{Availability, NodeSpec};
use crate::model::observed::{Observation, Observed, Stage};
use crate::model::release::Release;
use crate::model::rollout::Wave;

/// What is taken of the fleet's room, and of each wave's.
struct Room<'a> {
    limit: u32,
    left: usize,
    waves: Vec<WaveRoom<'a>>,
}

struct WaveRoom<'a> {
    wave: &'a Wave,
    nodes: usize,
    worked_on: usize,
    unavailable: BTreeSet<&'a NodeName>,
    rebooting: Option<&'a NodeName>,
}

/// Holds the actions for which there is no room. Nodes in flight count even when the release dropped them; a switch that
/// waits for its verdict goes on without room.
pub fn limit(
    release: &Release,
    observed: &Observed,
    waves: &Waves<'_>,
    decisions: &mut BTreeMap<NodeName, Decision>,
) {
    let mut room = Room::new(release, observed, waves, decisions);
    let mut held = BTreeMap::new();
    for turn in by_turn(release, waves, decisions) {
        if let Err(hold) = room.take(&turn) {
            held.insert(turn.name, hold);
        }
    }
    let mut held = held.into_iter().peekable();
    for (name, decision) in decisions {
        if let Some((_, hold)) = held.next_if(|(other, _)| *other == name) {
            *decision = hold.into();
        }
    }
}

/// How a node is worked on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// What has begun is brought to its end, however many others are down.
    Freely,
    /// Only while enough others are up.
    Carefully,
    /// The same, and no other of its wave reboots.
    Alone,
}

impl<'a> Room<'a> {
    fn new(
        release: &'a Release,
        observed: &'a Observed,
        waves: &'a Waves<'a>,
        decisions: &BTreeMap<NodeName, Decision>,
    ) -> Self {
        let is_attach =
            |decision: &Decision| matches!(decision, Decision::Act { action: Action::Attach { .. } });
        let attached: Vec<&NodeName> =
            decisions.iter().filter(|(_, decision)| is_attach(decision)).map(|(name, _)| name).collect();
        let limit = release.rollout.max_in_flight;
        let most = usize::try_from(limit).unwrap_or(usize::MAX);
        let left = most.saturating_sub(observed.in_flight.len()).saturating_sub(attached.len());
        let empty = |(number, wave): (usize, &'a Wave)| WaveRoom {
            wave,
            nodes: waves.nodes(number).len(),
            worked_on: 0,
            unavailable: BTreeSet::new(),
            rebooting: None,
        };
        let mut room =
            Self { limit, left, waves: release.rollout.waves.iter().enumerate().map(empty).collect() };
        for name in observed.in_flight.keys().chain(attached) {
            // Only what is declared is in a wave.
            let (Some(row), Some((name, _))) = (
                waves.wave_of(name).and_then(|wave| room.waves.get_mut(wave)),
                release.nodes.get_key_value(name),
            ) else {
                continue;
            };
            row.worked_on += 1;
            row.unavailable.insert(name);
            let stage = observed.in_flight.get(name).map(|flight| &flight.stage);
            if stage == Some(&Stage::Rebooting) {
                row.rebooting = Some(name);
            }
        }
        for (number, row) in
            room.waves.iter_mut().enumerate().filter(|(_, row)| row.wave.max_unavailable.is_some())
        {
            let down = |name: &&NodeName| {
                let spec = release.nodes.get(*name).and_then(|node| node.spec.as_deref());
                let seen = observed.nodes.get(*name).map(|seen| &**seen);
                spec.is_some_and(|spec| is_unavailable(spec, seen))
            };
            row.unavailable.extend(waves.nodes(number).filter(down));
        }
        room
    }

    fn take(&mut self, turn: &Turn<'a>) -> Result<(), Hold> {
        let Turn { name, wave, manner } = *turn;
        let number = wave.map_or(0, |wave| wave + 1);
        let row = wave.and_then(|wave| self.waves.get_mut(wave));
        if let (Some(row), true) = (&row, manner == Manner::Alone)
            && let Some(node) = row.rebooting
        {
            return Err(Hold::RebootTurn { node: node.clone() });
        }
        let careful = manner != Manner::Freely;
        if let (Some(row), true) = (&row, careful)
            && let Some(most) = row.wave.max_unavailable
        {
            let limit = most.of(row.nodes).max(1);
            if !row.unavailable.contains(name) && row.unavailable.len() >= limit {
                return Err(Hold::Unavailable { wave: number, limit });
            }
        }
        if let (Some(row), true) = (&row, careful)
            && let Some(limit) = row.wave.max_in_flight
            && row.worked_on >= usize::try_from(limit).unwrap_or(usize::MAX)
        {
            return Err(Hold::WaveLimit { wave: number, limit });
        }
        let Some(left) = self.left.checked_sub(1) else {
            return Err(Hold::InFlightLimit { limit: self.limit });
        };
        self.left = left;
        if let Some(row) = row {
            row.worked_on += 1;
            row.unavailable.insert(name);
            if manner == Manner::Alone {
                row.rebooting = Some(name);
            }
        }
        Ok(())
    }
}

/// Whether a node does not do its work now. One whose silence is ordinary does. One that nobody has looked at yet may be down:
/// a controller that has just begun does not take the others away before it knows.
fn is_unavailable(spec: &NodeSpec, seen: Option<&Observation>) -> bool {
    if spec.host.is_none() {
        return false;
    }
    let answers = seen.filter(|seen| seen.contact.is_reachable());
    match (answers.and_then(|seen| Some((seen, seen.state.as_ref()?))), spec.availability) {
        (Some((seen, state)), _) => state.live_switch().is_some() || drift::is_degraded(spec, seen, state),
        (None, Availability::Always) => true,
        (None, Availability::Intermittent) => false,
    }
}

/// A node to be worked on.
struct Turn<'a> {
    name: &'a NodeName,
    wave: Option<usize>,
    manner: Manner,
}

/// The nodes to be worked on: what is to be brought to an end first, then by wave, its order, and name.
fn by_turn<'a>(
    release: &'a Release,
    waves: &Waves<'_>,
    decisions: &BTreeMap<NodeName, Decision>,
) -> Vec<Turn<'a>> {
    let mut turns = Vec::new();
    let nodes = release.nodes.iter().zip(decisions.values()).zip(waves.places());
    for (((name, node), decision), &wave) in nodes {
        let Decision::Act { action } = decision else { continue };
        let (what, manner) = match action {
            Action::Attach { .. } => continue,
            Action::Deploy { purpose: Purpose::Proof, .. } => (0, Manner::Freely),
            Action::Deploy { purpose: Purpose::TakeBack, .. } => (1, Manner::Freely),
            Action::Deploy { purpose: Purpose::Heal | Purpose::Release, .. } => (2, Manner::Carefully),
            Action::Reboot { .. } => (2, Manner::Alone),
        };
        let order = wave.and_then(|wave| release.rollout.waves.get(wave)).map_or(&[][..], |wave| &wave.order);
        let tags = node.spec.as_ref().map(|spec| &spec.tags);
        let first = |tags| order.iter().position(|on| on.matches(name, tags));
        let place = tags.and_then(first).unwrap_or(order.len());
        turns.push(((what, wave.unwrap_or(usize::MAX), place), Turn { name, wave, manner }));
    }
    // Stable: they came by name.
    turns.sort_by_key(|(key, _)| *key);
    turns.into_iter().map(|(_, turn)| turn).collect()
}
