//! Committer's times of the commits that nodes are shown with. Asked of the clone once per fetch, never of the network.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use crate::source::Source;

/// By the short id that a node is shown with; `None` where the clone does not have the commit.
#[derive(Debug, Default)]
pub struct CommitTimes(BTreeMap<String, Option<Timestamp>>);

impl CommitTimes {
    /// What the clone does not have, only a fetch can bring: after one it is asked again.
    pub fn fetched(&mut self) {
        self.0.retain(|_, time| time.is_some());
    }

    /// The times of exactly these commits, as far as they are known.
    pub fn of(&mut self, shown: &BTreeSet<String>, source: &Source) -> BTreeMap<String, Timestamp> {
        self.0.retain(|short, _| shown.contains(short));
        for short in shown {
            if !self.0.contains_key(short) {
                let time = source.resolve(short).ok().map(|revision| revision.committed_at);
                self.0.insert(short.clone(), time);
            }
        }
        self.0.iter().filter_map(|(short, time)| Some((short.clone(), (*time)?))).collect()
    }
}
