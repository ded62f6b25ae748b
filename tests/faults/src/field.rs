//! The fleet under the campaign, shared by those who do things to it. Each node has one worker and so does the controller;
//! who only reads the fleet does not wait for the others.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::Result;
use driftless_lab::{Fleet, Node, Output};

use crate::diary::Diary;
use crate::schedule::{NODES, When};

/// How long a step waits for its phase before it is done all the same.
const PHASE: Duration = Duration::from_secs(4);
/// How long a round waits for the first switch of its first merge.
const FIRST_SWITCH: Duration = Duration::from_secs(6);
/// Between two looks for a phase: committing takes a few hundred milliseconds.
const LOOK: Duration = Duration::from_millis(10);

/// Everything there is to do something to.
pub(crate) struct Field {
    fleet: RwLock<Fleet>,
    /// In the order of [`NODES`].
    pub(crate) nodes: Vec<Node>,
    /// Systems that nobody deploys through driftless.
    pub(crate) strays: Vec<String>,
    /// What every node ran first.
    pub(crate) installed: String,
    /// Held by whoever commits, and while the repository is not there.
    pub(crate) repository: Mutex<()>,
    /// Nodes whose sshd a person stopped while no switch ran that would notice.
    pub(crate) shut: Mutex<BTreeSet<usize>>,
    /// What is done.
    pub(crate) diary: Diary,
}

impl Field {
    pub(crate) fn new(fleet: Fleet, installed: String, strays: Vec<String>, diary: Diary) -> Self {
        let nodes = NODES.iter().filter_map(|name| fleet.nodes.get(*name).cloned()).collect();
        Self {
            fleet: RwLock::new(fleet),
            nodes,
            strays,
            installed,
            repository: Mutex::new(()),
            shut: Mutex::default(),
            diary,
        }
    }

    /// The fleet, to look at and to commit.
    pub(crate) fn fleet(&self) -> RwLockReadGuard<'_, Fleet> {
        self.fleet.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The fleet, to start and stop its controller.
    pub(crate) fn fleet_mut(&self) -> RwLockWriteGuard<'_, Fleet> {
        self.fleet.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// A person runs driftless.
    pub(crate) fn say(&self, arguments: &[&str]) -> Result<Output> {
        let saying = self.fleet().ready_to_say(arguments);
        saying()
    }

    /// The phase of the switch that a node began last, as the node shows it; `None` where it shows none.
    pub(crate) fn phase(&self, node: usize) -> Option<String> {
        let live = self.nodes[node].path("/run/driftless-node");
        let id = fs::read_to_string(live.join("owner")).ok()?;
        let phase = fs::read_to_string(PathBuf::from(&live).join(id.trim()).join("phase")).ok()?;
        Some(phase.trim().to_owned()).filter(|phase| phase != "finished")
    }

    /// Waits until a step is due; `node`: whose phase counts, `None` for anybody's. Says how it stands then.
    pub(crate) fn wait(&self, when: When, node: Option<usize>) -> String {
        let phase = match when {
            When::After(delay) => {
                sleep(delay);
                return self.stands(node);
            }
            When::InPhase(phase) => phase,
        };
        let deadline = Instant::now() + PHASE;
        while Instant::now() < deadline {
            let mut whose = node.map_or(0..self.nodes.len(), |node| node..node + 1);
            if whose.any(|node| self.phase(node).as_deref() == Some(phase)) {
                return phase.to_owned();
            }
            sleep(LOOK);
        }
        self.stands(node)
    }

    /// Waits until a switch runs somewhere: faults are for those. Not every merge brings one.
    pub(crate) fn wait_for_switches(&self) {
        let deadline = Instant::now() + FIRST_SWITCH;
        while Instant::now() < deadline && self.stands(None).is_empty() {
            sleep(LOOK);
        }
    }

    fn stands(&self, node: Option<usize>) -> String {
        match node {
            Some(node) => self.phase(node).unwrap_or_else(|| "no switch".to_owned()),
            None => (0..self.nodes.len()).filter_map(|node| self.phase(node)).collect::<Vec<_>>().join(","),
        }
    }
}
