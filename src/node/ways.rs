//! The one or two ways to a node: the declared one, and the one that answered last while that does not. Work goes over
//! one of them; contact only over the declared one, which is thereby proven.

use std::sync::{Mutex, PoisonError};

use super::NodeError;
use super::ssh::Link;
use crate::config::SshConfig;
use crate::model::name::NodeName;
use crate::model::way::{Way, Which};

/// The ways to one node.
#[derive(Debug)]
pub struct Ways {
    declared: (Way, Link),
    last: Option<(Way, Link)>,
    working: Mutex<Which>,
}

impl Ways {
    /// Prepares both; nothing is connected yet. The last one is of use only where it is another than the declared one.
    pub fn new(
        node: &NodeName,
        declared: Way,
        last: Option<&Way>,
        ssh: &SshConfig,
        runtime_dir: &std::path::Path,
    ) -> Result<Self, NodeError> {
        let prepare = |way: Way| Link::new(node, &way, ssh, runtime_dir).map(|link| (way, link));
        let last = last.filter(|last| **last != declared).cloned().map(prepare).transpose()?;
        Ok(Self { declared: prepare(declared)?, last, working: Mutex::new(Which::Declared) })
    }

    /// Which way work goes over.
    pub fn which(&self) -> Which {
        *self.working.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection that work goes over.
    pub fn working(&self) -> &Link {
        self.link(self.which())
    }

    /// The declared way.
    pub fn declared(&self) -> &Way {
        &self.declared.0
    }

    /// The way that answered last, where it is another than the declared one.
    pub fn last(&self) -> Option<&Way> {
        self.last.as_ref().map(|(way, _)| way)
    }

    /// One connection; the declared one where there is no other.
    pub fn link(&self, which: Which) -> &Link {
        match (which, &self.last) {
            (Which::Last, Some((_, link))) => link,
            (Which::Last | Which::Declared, Some(_) | None) => &self.declared.1,
        }
    }

    /// From now on work goes over this way. Whether it went over another before.
    pub fn work_over(&self, which: Which) -> Moved {
        let mut working = self.working.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *working, which);
        if before == which || self.last.is_none() { Moved::No } else { Moved::Yes }
    }

    /// Work goes over the other way, if there is one.
    pub fn turn(&self) {
        let other = match self.which() {
            Which::Declared => Which::Last,
            Which::Last => Which::Declared,
        };
        if self.last.is_some() {
            self.work_over(other);
        }
    }

    /// Ends the kept connections, except those that `still` uses.
    pub async fn close_except(&self, still: Option<&Self>) {
        let mine = [Some(&self.declared), self.last.as_ref()];
        for (_, link) in mine.into_iter().flatten() {
            let used = |other: &Self| {
                link.shares_with(&other.declared.1)
                    || other.last.as_ref().is_some_and(|(_, theirs)| link.shares_with(theirs))
            };
            if !still.is_some_and(used) {
                link.close().await;
            }
        }
    }
}

/// Whether work goes over another way than before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moved {
    /// It does.
    Yes,
    /// It does not.
    No,
}
