//! What people may say to a controller, and what becomes of its intent. Pure: who asks, when, and a random number are
//! arguments; the fleet is as it was last seen.

mod fleet;
mod resume;

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{Approval, Intent, Override, PlanHash, Suspension, SuspensionId};
use crate::model::name::NodeName;
use crate::model::selector::{SelectionError, Selector};
use crate::model::spoken::clock;

pub use fleet::{Declared, Fleet, Member};

/// A reason fits the mark on a node, and one line of a wide terminal.
pub const LONGEST_REASON: usize = 300;
/// Windows are overridden for an emergency, not for good.
pub const LONGEST_OVERRIDE: SignedDuration = SignedDuration::from_hours(7 * 24);
/// So many of each kind; people say a handful.
const MOST: usize = 1_000;
/// A node that was out of reach for longer than this keeps the mark of a suspension that was ended meanwhile, and waits for a
/// person.
const REMEMBERED: SignedDuration = SignedDuration::from_hours(400 * 24);

/// Something that a person wants of a running controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edit {
    /// Leave nodes alone.
    Suspend(Suspend),
    /// Go on with nodes.
    Resume(Resume),
    /// Let what waits go on.
    Approve(Approve),
    /// Heed no windows.
    Override(Open),
}

/// Leave nodes alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Suspend {
    /// Which.
    pub on: Selector,
    /// Why.
    pub reason: String,
    /// Until when; `None`: until somebody says otherwise.
    #[serde(default)]
    pub until: Option<Timestamp>,
}

/// Go on with what was suspended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Resume {
    /// These nodes.
    On(Selector),
    /// Whatever this suspension means.
    Id(SuspensionId),
    /// Everything.
    All,
    /// Only what the controller itself has suspended, because it cannot read what people said.
    Unreadable,
}

/// Let what waits go on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Approve {
    /// Exactly what.
    pub hash: PlanHash,
}

/// Heed no windows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Open {
    /// For which nodes.
    pub on: Selector,
    /// Why.
    pub reason: String,
    /// Until when.
    pub until: Timestamp,
}

/// Who asks, when, and what makes an id unique.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// Who.
    pub by: &'a str,
    /// When.
    pub now: Timestamp,
    /// For the id of a suspension.
    pub random: u32,
}

/// What became of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Done {
    /// For people, a sentence each.
    pub said: Vec<String>,
    /// The nodes that it means now.
    pub nodes: BTreeSet<NodeName>,
    /// The suspension that was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<SuspensionId>,
    /// Until when it counts; `None`: until somebody says otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

/// Why it cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// No node is meant.
    #[error(transparent)]
    Selection(#[from] SelectionError),
    /// Others have to know why.
    #[error("a reason is needed: others will read it")]
    NoReason,
    /// It does not fit where it is shown.
    #[error("the reason has {0} characters, more than {LONGEST_REASON}")]
    LongReason(usize),
    /// It would be over before it began.
    #[error("{} is not in the future", clock(*.0))]
    Past(Timestamp),
    /// That is no emergency.
    #[error("{} is more than 7 days from now: change the windows in the deployment instead", clock(*.0))]
    TooLong(Timestamp),
    /// Only what the controller itself has suspended needs no name.
    #[error("resume what? name nodes, --id ID or --all; `driftless status` shows what is suspended")]
    Which,
    /// Nothing of the kind is suspended.
    #[error("not suspended: {0}; `driftless status` shows what is")]
    NotSuspended(String),
    /// Only a commit ends it.
    #[error("{0}: suspended by the deployment; remove `suspended` there")]
    InGit(String),
    /// What is suspended does not fit what is asked.
    #[error(
        "{named}: suspended together with others ({on}); `driftless resume --id {id}` ends it for all of them"
    )]
    Together {
        /// The nodes that were named.
        named: String,
        /// What the suspension means.
        on: Selector,
        /// Its id.
        id: SuspensionId,
    },
    /// Nothing with this hash waits.
    #[error("nothing that waits for approval has the hash {hash}; {waiting}")]
    NotWaiting {
        /// What was to be approved.
        hash: PlanHash,
        /// What waits instead.
        waiting: String,
    },
    /// Nothing is changed while what people said before cannot be read.
    #[error(
        "what people said before cannot be read, and so nothing is done: {0}; say `driftless resume` first"
    )]
    Unreadable(String),
    /// More than anybody can mean.
    #[error("there are {MOST} of them already")]
    TooMany,
}

impl Intent {
    /// This with what somebody says; `fleet` is `None` while nobody knows it yet.
    pub fn edited(
        &self,
        edit: &Edit,
        fleet: Option<&Fleet>,
        asked: Asked<'_>,
    ) -> Result<(Self, Done), EditError> {
        let mut next = self.clone();
        next.prune(asked.now);
        let done = match edit {
            Edit::Resume(Resume::Unreadable) => next.resume_unreadable(),
            Edit::Resume(Resume::All) => next.resume_all(fleet, asked),
            Edit::Resume(Resume::Id(id)) if *id == SuspensionId::of_unreadable() => next.resume_unreadable(),
            Edit::Suspend(_)
            | Edit::Resume(Resume::On(_) | Resume::Id(_))
            | Edit::Approve(_)
            | Edit::Override(_)
                if self.is_unreadable() =>
            {
                let why = self.suspensions.values().next().map(|own| own.reason.clone());
                Err(EditError::Unreadable(why.unwrap_or_default()))
            }
            Edit::Suspend(suspend) => next.suspend(suspend, fleet, asked),
            Edit::Resume(Resume::On(on)) => next.resume_nodes(on, fleet, asked),
            Edit::Resume(Resume::Id(id)) => next.resume_id(id, fleet, asked),
            Edit::Approve(approve) => next.approve(&approve.hash, fleet, asked),
            Edit::Override(open) => next.open(open, fleet, asked),
        }?;
        Ok((next, done))
    }

    /// What stands for an `intent.json` that cannot be read: nothing is done until a person says so.
    pub fn unreadable(reason: String, now: Timestamp) -> Self {
        let on = Selector::everything();
        let own = Suspension { on, by: "driftless".into(), reason, since: now, until: None };
        Self { suspensions: [(SuspensionId::of_unreadable(), own)].into(), ..Self::default() }
    }

    /// Whether this stands for an `intent.json` that cannot be read.
    pub fn is_unreadable(&self) -> bool {
        self.suspensions.contains_key(&SuspensionId::of_unreadable())
    }

    /// Without what is over. Says whether anything was.
    pub fn prune(&mut self, now: Timestamp) -> bool {
        let before = (self.suspensions.len(), self.resumed.len(), self.approvals.len(), self.overrides.len());
        self.suspensions.retain(|_, suspension| suspension.until.is_none_or(|until| now < until));
        self.resumed.retain(|_, at| at.saturating_add(REMEMBERED).is_ok_and(|end| now < end));
        self.approvals.retain(|approval| now < approval.until);
        self.overrides.retain(|open| now < open.until);
        before != (self.suspensions.len(), self.resumed.len(), self.approvals.len(), self.overrides.len())
    }

    /// Whether anything is over.
    pub fn is_stale(&self, now: Timestamp) -> bool {
        self.suspensions.values().any(|suspension| suspension.until.is_some_and(|until| until <= now))
            || self.approvals.iter().any(|approval| approval.until <= now)
            || self.overrides.iter().any(|open| open.until <= now)
    }

    /// Without the names of nodes whose marks are gone: what they were released from is nowhere any more.
    pub fn forget_released(&mut self, fleet: &Fleet) {
        self.released.retain(|id, names| {
            names.retain(|name| {
                fleet
                    .nodes
                    .get(name)
                    .is_some_and(|node| !node.seen || node.marks.iter().any(|mark| mark.id == *id))
            });
            !names.is_empty()
        });
    }

    fn suspend(
        &mut self,
        Suspend { on, reason, until }: &Suspend,
        fleet: Option<&Fleet>,
        Asked { by, now, random }: Asked<'_>,
    ) -> Result<Done, EditError> {
        let reason = reason_of(reason)?;
        if let Some(until) = until.filter(|until| *until <= now) {
            return Err(EditError::Past(until));
        }
        let nodes = fleet.map(|fleet| fleet.select(on)).transpose()?;
        room(self.suspensions.len())?;
        let id = SuspensionId::new(now, random);
        let end = until.map_or_else(
            || format!("until `driftless resume --id {id}`"),
            |until| format!("until {}", clock(until)),
        );
        let said = match &nodes {
            Some(nodes) => format!("suspended {} {end}", listed(nodes)),
            None => format!("suspended {on} {end}; which nodes that means is not known yet"),
        };
        let suspension = Suspension { on: on.clone(), by: by.to_owned(), reason, since: now, until: *until };
        self.suspensions.insert(id.clone(), suspension);
        Ok(Done { said: vec![said], nodes: nodes.unwrap_or_default(), id: Some(id), until: *until })
    }

    fn approve(
        &mut self,
        hash: &PlanHash,
        fleet: Option<&Fleet>,
        Asked { by, now, .. }: Asked<'_>,
    ) -> Result<Done, EditError> {
        let waits =
            |(name, node): (&NodeName, &Member)| node.waits.clone().map(|waits| (name.clone(), waits));
        let waiting: Vec<(NodeName, (String, PlanHash))> =
            fleet.into_iter().flat_map(|fleet| &fleet.nodes).filter_map(waits).collect();
        let meant = waiting.iter().filter(|(_, (_, waits))| waits == hash);
        let nodes: BTreeSet<NodeName> = meant.clone().map(|(name, _)| name.clone()).collect();
        let Some((_, (what, _))) = meant.clone().next() else {
            let others: BTreeSet<String> =
                waiting.iter().map(|(_, (what, hash))| format!("{what} ({hash})")).collect();
            let others = others.into_iter().collect::<Vec<_>>().join(", ");
            let waiting =
                if others.is_empty() { "nothing waits".into() } else { format!("what waits: {others}") };
            return Err(EditError::NotWaiting { hash: hash.clone(), waiting });
        };
        let expires = fleet.map(|fleet| fleet.approval_expires).unwrap_or_default();
        let until = now.saturating_add(expires).unwrap_or(Timestamp::MAX);
        self.approvals.retain(|approval| approval.hash != *hash);
        room(self.approvals.len())?;
        let said = format!("approved {what} ({hash}), until {}", clock(until));
        let (hash, what, by) = (hash.clone(), what.clone(), by.to_owned());
        self.approvals.push(Approval { hash, what, by, at: now, until });
        Ok(Done { said: vec![said], nodes, id: None, until: Some(until) })
    }

    fn open(
        &mut self,
        Open { on, reason, until }: &Open,
        fleet: Option<&Fleet>,
        Asked { by, now, .. }: Asked<'_>,
    ) -> Result<Done, EditError> {
        let reason = reason_of(reason)?;
        if *until <= now {
            return Err(EditError::Past(*until));
        }
        if now.saturating_add(LONGEST_OVERRIDE).is_ok_and(|longest| *until > longest) {
            return Err(EditError::TooLong(*until));
        }
        let nodes = fleet.map(|fleet| fleet.select(on)).transpose()?.unwrap_or_default();
        room(self.overrides.len())?;
        let said = format!("windows do not count for {on} until {}", clock(*until));
        let (on, by) = (on.clone(), by.to_owned());
        self.overrides.push(Override { on, by, reason, since: now, until: *until });
        Ok(Done { said: vec![said], nodes, id: None, until: Some(*until) })
    }
}

/// One line, without what could forge another, in a length that is fit to be shown.
fn reason_of(text: &str) -> Result<String, EditError> {
    let plain: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let plain = plain.split_whitespace().collect::<Vec<_>>().join(" ");
    match plain.chars().count() {
        0 => Err(EditError::NoReason),
        count if count > LONGEST_REASON => Err(EditError::LongReason(count)),
        _ => Ok(plain),
    }
}

fn room(taken: usize) -> Result<(), EditError> {
    if taken < MOST { Ok(()) } else { Err(EditError::TooMany) }
}

fn listed(nodes: &BTreeSet<NodeName>) -> String {
    let named: Vec<&str> = nodes.iter().map(NodeName::as_str).take(10).collect();
    match nodes.len() {
        0 => "no node".into(),
        count if count > 10 => format!("{} and {} more", named.join(", "), count - 10),
        _ => named.join(", "),
    }
}

#[cfg(test)]
mod tests;
