//! The fleet, as far as it bears on what people say: who is meant, what is marked, what waits. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::model::decision::{Decision, Hold};
use crate::model::intent::{PlanHash, SuspensionId, SuspensionMark};
use crate::model::name::{NodeName, Tag};
use crate::model::release::Release;
use crate::model::selector::{SelectionError, Selector};
use crate::model::snapshot::NodeView;

/// The fleet, as far as it bears on what people say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fleet {
    /// Its nodes.
    pub nodes: BTreeMap<NodeName, Member>,
    /// How long an approval counts.
    pub approval_expires: Duration,
}

/// A node of the fleet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Member {
    /// Its tags; `None` where it does not evaluate.
    pub tags: Option<BTreeSet<Tag>>,
    /// Whether the deployment declares it as suspended.
    pub declared: Declared,
    /// Suspensions that are written on it.
    pub marks: Vec<SuspensionMark>,
    /// Whether it was looked at, so that `marks` are all it has.
    pub seen: bool,
    /// The approval that it waits for.
    pub waits: Option<(String, PlanHash)>,
}

/// Whether the deployment declares a node as suspended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Declared {
    /// It is to be kept equal to Git.
    #[default]
    Active,
    /// It is to be left alone.
    Suspended,
}

impl Fleet {
    /// A release and what was seen of its nodes.
    pub fn of<V: AsRef<NodeView>>(release: &Release, views: &BTreeMap<NodeName, V>) -> Self {
        let member = |name: &NodeName| {
            let spec = release.nodes.get(name).and_then(|node| node.spec.as_ref());
            let view = views.get(name).map(AsRef::as_ref);
            let state = view.and_then(|view| view.observation.as_ref()).and_then(|seen| seen.state.as_ref());
            let waits = match view.map(|view| &view.decision) {
                Some(Decision::Hold { hold: Hold::Approval { what, hash } }) => {
                    Some((what.clone(), hash.clone()))
                }
                Some(
                    Decision::Hold { .. } | Decision::Act { .. } | Decision::InSync | Decision::InFlight,
                )
                | None => None,
            };
            let declared = spec.is_some_and(|spec| spec.suspended.is_some());
            Member {
                tags: spec.map(|spec| spec.tags.clone()),
                declared: if declared { Declared::Suspended } else { Declared::Active },
                marks: state.map(|state| state.suspended.clone()).unwrap_or_default(),
                seen: state.is_some(),
                waits,
            }
        };
        Self {
            nodes: release.nodes.keys().map(|name| (name.clone(), member(name))).collect(),
            approval_expires: release.rollout.approval_expires,
        }
    }

    pub(super) fn select(&self, on: &Selector) -> Result<BTreeSet<NodeName>, SelectionError> {
        on.select(
            &self
                .nodes
                .iter()
                .map(|(name, node)| (name.clone(), node.tags.clone().unwrap_or_default()))
                .collect(),
        )
    }

    pub(super) fn meant(&self, on: &Selector) -> BTreeSet<NodeName> {
        let no_tags = BTreeSet::new();
        let means =
            |(name, node): &(&NodeName, &Member)| on.matches(name, node.tags.as_ref().unwrap_or(&no_tags));
        self.nodes.iter().filter(means).map(|(name, _)| name.clone()).collect()
    }

    /// Whether a node that does not evaluate could be meant by a tag.
    pub(super) fn may_mean_more(&self, on: &Selector) -> bool {
        on.needs_tags() && self.nodes.values().any(|node| node.tags.is_none())
    }
}

impl Member {
    pub(super) fn has(&self, id: &SuspensionId) -> bool {
        self.marks.iter().any(|mark| mark.id == *id)
    }
}
