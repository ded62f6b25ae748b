//! What ends a suspension: as a whole, or for some of its nodes while the others stay suspended. Pure.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::{Asked, Declared, Done, EditError, Fleet, listed};
use crate::model::intent::{Intent, SuspensionId};
use crate::model::name::NodeName;
use crate::model::selector::Selector;

impl Intent {
    pub(super) fn resume_unreadable(&mut self) -> Result<Done, EditError> {
        if !self.is_unreadable() {
            return Err(EditError::Which);
        }
        *self = Self::default();
        let said = "goes on; what is marked on nodes stays suspended, and approvals have to be given again";
        Ok(Done { said: vec![said.into()], ..Done::default() })
    }

    pub(super) fn resume_all(&mut self, fleet: Option<&Fleet>, asked: Asked<'_>) -> Result<Done, EditError> {
        let mut done = if self.is_unreadable() { self.resume_unreadable()? } else { Done::default() };
        let marks = fleet.into_iter().flat_map(|fleet| &fleet.nodes).flat_map(|(name, node)| {
            node.marks.iter().filter(move |_| node.seen).map(move |mark| (name, mark))
        });
        let marks: Vec<SuspensionId> =
            marks.filter(|(name, mark)| self.counts(name, mark)).map(|(_, mark)| mark.id.clone()).collect();
        let ids: BTreeSet<SuspensionId> = self.suspensions.keys().cloned().chain(marks).collect();
        for id in &ids {
            done.said.push(self.end(id, fleet, &mut done.nodes, asked.now));
        }
        if done.said.is_empty() {
            return Err(EditError::NotSuspended("any node".into()));
        }
        Ok(done)
    }

    pub(super) fn resume_id(
        &mut self,
        id: &SuspensionId,
        fleet: Option<&Fleet>,
        asked: Asked<'_>,
    ) -> Result<Done, EditError> {
        let marked = fleet.into_iter().flat_map(|fleet| fleet.nodes.values()).flat_map(|node| &node.marks);
        let known = self.suspensions.contains_key(id)
            || (!self.resumed.contains_key(id) && marked.into_iter().any(|mark| mark.id == *id));
        if !known {
            return Err(EditError::NotSuspended(id.to_string()));
        }
        let mut done = Done::default();
        done.said.push(self.end(id, fleet, &mut done.nodes, asked.now));
        Ok(done)
    }

    fn end(
        &mut self,
        id: &SuspensionId,
        fleet: Option<&Fleet>,
        nodes: &mut BTreeSet<NodeName>,
        now: Timestamp,
    ) -> String {
        let mut meant = BTreeSet::new();
        for (name, _) in fleet.into_iter().flat_map(|fleet| &fleet.nodes).filter(|(_, node)| node.has(id)) {
            meant.insert(name.clone());
        }
        let ended = self.suspensions.remove(id);
        if let (Some(fleet), Some(ended)) = (fleet, &ended) {
            meant.extend(fleet.meant(&ended.on));
        }
        self.resumed.insert(id.clone(), now);
        self.released.remove(id);
        let what = match (&ended, meant.is_empty()) {
            (Some(ended), true) => ended.on.to_string(),
            (_, _) => listed(&meant),
        };
        let why = ended.map(|ended| format!(": {}", ended.reason)).unwrap_or_default();
        nodes.extend(meant);
        format!("resumed {what} ({id}{why})")
    }

    pub(super) fn resume_nodes(
        &mut self,
        on: &Selector,
        fleet: Option<&Fleet>,
        asked: Asked<'_>,
    ) -> Result<Done, EditError> {
        let Some(fleet) = fleet else { return self.resume_unseen(on, asked) };
        let chosen = fleet.select(on)?;
        let mut done = Done::default();
        for id in self.suspensions.keys().cloned().collect::<Vec<_>>() {
            let Some(suspension) = self.suspensions.get_mut(&id) else { continue };
            let meant = fleet.meant(&suspension.on);
            let hit: BTreeSet<NodeName> = meant.intersection(&chosen).cloned().collect();
            if hit.is_empty() {
                continue;
            }
            if meant.is_subset(&chosen) && !fleet.may_mean_more(&suspension.on) {
                done.said.push(self.end(&id, Some(fleet), &mut done.nodes, asked.now));
                continue;
            }
            let rest = format!("({}) and not ({on})", suspension.on);
            let together =
                || EditError::Together { named: listed(&hit), on: suspension.on.clone(), id: id.clone() };
            suspension.on = rest.parse().map_err(|_| together())?;
            let left: BTreeSet<NodeName> = meant.difference(&chosen).cloned().collect();
            let left = if left.is_empty() { "nothing that is known".into() } else { listed(&left) };
            done.said.push(format!("resumed {}; {left} stays suspended ({id})", listed(&hit)));
            done.nodes.extend(hit);
        }
        self.release_marked(&chosen, fleet, &mut done);
        let in_git =
            |name: &&NodeName| fleet.nodes.get(*name).map(|node| node.declared) == Some(Declared::Suspended);
        let in_git: BTreeSet<NodeName> = chosen.iter().filter(in_git).cloned().collect();
        match (done.said.is_empty(), in_git.is_empty()) {
            (true, true) => Err(EditError::NotSuspended(listed(&chosen))),
            (true, false) => Err(EditError::InGit(listed(&in_git))),
            (false, true) => Ok(done),
            (false, false) => {
                done.said.push(EditError::InGit(listed(&in_git)).to_string());
                Ok(done)
            }
        }
    }

    /// While nobody knows the fleet, only what was said in the same words can be taken back.
    fn resume_unseen(&mut self, on: &Selector, asked: Asked<'_>) -> Result<Done, EditError> {
        let same = self.suspensions.iter().filter(|(_, suspension)| suspension.on == *on);
        let same: Vec<SuspensionId> = same.map(|(id, _)| id.clone()).collect();
        if same.is_empty() {
            return Err(EditError::NotSuspended(format!(
                "{on}, by these very words (the fleet is not known yet)"
            )));
        }
        let mut done = Done::default();
        for id in same {
            done.said.push(self.end(&id, None, &mut done.nodes, asked.now));
        }
        Ok(done)
    }

    /// What is known of these suspensions is only what stands on nodes, and others that are out of reach may have it too.
    fn release_marked(&mut self, chosen: &BTreeSet<NodeName>, fleet: &Fleet, done: &mut Done) {
        for name in chosen {
            let Some(node) = fleet.nodes.get(name) else { continue };
            for mark in &node.marks {
                if self.counts(name, mark) {
                    self.released.entry(mark.id.clone()).or_default().insert(name.clone());
                    done.said.push(format!("resumed {name} ({}: {})", mark.id, mark.reason));
                    done.nodes.insert(name.clone());
                }
            }
        }
    }
}
