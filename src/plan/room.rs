//! How much may go on at once: of the fleet, of a wave, and how many nodes of a wave may be worked on, silent or not well.
//! Who goes first where not all can.

use std::collections::BTreeSet;

use super::standing::Member;
use super::waves::Waves;
use crate::model::decision::{Action, Decision, Hold, Purpose};
use crate::model::name::NodeName;
use crate::model::observed::{Observed, Stage};
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

/// Holds the actions for which there is no room; decisions are in the order of the release's nodes. Nodes in flight count even
/// when the release dropped them; a switch that waits for its verdict goes on without room.
pub fn limit(
    release: &Release,
    observed: &Observed,
    (waves, members): (&Waves<'_>, &[Member<'_>]),
    decisions: &mut [Decision],
) {
    let turns = by_turn(release, waves, decisions);
    let mut room = Room::new(release, observed, (waves, members), &turns);
    for turn in turns {
        if let Err(hold) = room.take(&turn) {
            decisions[turn.at] = hold.into();
        }
    }
}

/// How a node is worked on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// It waits for its verdict, and has its room already.
    Begun,
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
        observed: &Observed,
        (waves, members): (&'a Waves<'a>, &'a [Member<'a>]),
        turns: &[Turn<'a>],
    ) -> Self {
        let begun = turns.iter().filter(|turn| turn.manner == Manner::Begun);
        let attached: Vec<&NodeName> = begun.map(|turn| turn.name).collect();
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
        for (member, place) in members.iter().zip(waves.places()).filter(|(member, _)| member.is_down) {
            if let Some(row) = place.and_then(|place| room.waves.get_mut(place)) {
                row.unavailable.insert(member.name);
            }
        }
        room
    }

    fn take(&mut self, turn: &Turn<'a>) -> Result<(), Hold> {
        let Turn { at: _, name, wave, manner } = *turn;
        if manner == Manner::Begun {
            return Ok(());
        }
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

/// A node to be worked on.
struct Turn<'a> {
    /// Its place among the decisions.
    at: usize,
    name: &'a NodeName,
    wave: Option<usize>,
    manner: Manner,
}

/// The nodes to be worked on: what is to be brought to an end first, then by wave, its order, and name.
fn by_turn<'a>(release: &'a Release, waves: &Waves<'_>, decisions: &[Decision]) -> Vec<Turn<'a>> {
    let mut turns = Vec::new();
    let nodes = release.nodes.iter().zip(waves.places()).zip(decisions);
    for (at, (((name, node), wave), decision)) in nodes.enumerate() {
        let Decision::Act { action } = decision else { continue };
        let (what, manner) = match action {
            Action::Attach { .. } => (0, Manner::Begun),
            Action::Deploy { purpose: Purpose::Proof, .. } => (1, Manner::Freely),
            Action::Deploy { purpose: Purpose::TakeBack, .. } => (2, Manner::Freely),
            Action::Deploy { purpose: Purpose::Heal | Purpose::Release, .. } => (3, Manner::Carefully),
            Action::Reboot { .. } => (3, Manner::Alone),
        };
        let order = wave.and_then(|wave| release.rollout.waves.get(wave)).map_or(&[][..], |wave| &wave.order);
        let tags = node.spec.as_ref().map(|spec| &spec.tags);
        let first = |tags| order.iter().position(|on| on.matches(name, tags));
        let place = tags.and_then(first).unwrap_or(order.len());
        turns.push(((what, wave.unwrap_or(usize::MAX), place), Turn { at, name, wave, manner }));
    }
    // Stable: they came by name.
    turns.sort_by_key(|(key, _)| *key);
    turns.into_iter().map(|(_, turn)| turn).collect()
}
