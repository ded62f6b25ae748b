//! What the nodes really ran, and would have booted, seen from outside all the time: what journals are held against. Reads a
//! few links per node, and asks nobody on it.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::Duration;

use driftless_lab::{Node, Power};

use crate::diary::{held, now};
use crate::schedule::NODES;

/// Between two looks. A system that succeeds or fails is there for longer.
const LOOK: Duration = Duration::from_millis(30);

/// How a node stood, until the next sight of it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sight {
    /// Seconds since 1970.
    pub(crate) at: f64,
    /// How often it was booted; 0 while it is off.
    pub(crate) boot: u32,
    /// What it ran, booted, and would boot by its profile and by its boot loader.
    pub(crate) running: Option<String>,
    pub(crate) booted: Option<String>,
    pub(crate) profile: Option<String>,
    pub(crate) loader: Option<String>,
}

/// What was seen.
pub(crate) struct Witness {
    seen: Vec<Mutex<Vec<Sight>>>,
    wrong: Mutex<Option<String>>,
    over: AtomicBool,
}

impl Witness {
    pub(crate) fn new() -> Self {
        Self {
            seen: NODES.iter().map(|_| Mutex::default()).collect(),
            wrong: Mutex::default(),
            over: AtomicBool::new(false),
        }
    }

    /// Looks until [`Witness::end`].
    pub(crate) fn watch(&self, nodes: &[Node]) {
        while !self.over.load(Ordering::Relaxed) {
            for (node, seen) in nodes.iter().zip(&self.seen) {
                let sight = look(node);
                let mut seen = held(seen);
                if seen.last().is_none_or(|last| Sight { at: sight.at, ..last.clone() } != sight) {
                    seen.push(sight);
                }
                drop(seen);
                self.look_for_two(node);
            }
            sleep(LOOK);
        }
    }

    pub(crate) fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// Two switch-to-configuration of ours at once on one node.
    fn look_for_two(&self, node: &Node) {
        let activations = node.services("driftless-stc-");
        if activations.len() > 1 {
            let wrong = format!("{} has two activations at once: {activations:?}", node.name());
            held(&self.wrong).get_or_insert(wrong);
        }
    }

    /// What must never be seen, and was.
    pub(crate) fn wrong(&self) -> Option<String> {
        held(&self.wrong).clone()
    }

    /// How a node stood between two times, the state at the first of them included.
    pub(crate) fn between(&self, node: usize, from: f64, until: f64) -> Vec<Sight> {
        let seen = held(&self.seen[node]);
        let first = seen.partition_point(|sight| sight.at <= from).saturating_sub(1);
        seen[first..].iter().take_while(|sight| sight.at <= until).cloned().collect()
    }

    /// Everything about a node since a time.
    pub(crate) fn since(&self, node: usize, from: f64) -> Vec<Sight> {
        self.between(node, from, f64::INFINITY)
    }
}

fn look(node: &Node) -> Sight {
    let at = now();
    if node.power() != Power::On {
        return Sight { at, boot: 0, running: None, booted: None, profile: None, loader: None };
    }
    Sight {
        at,
        boot: node.boot_count(),
        running: node.running().ok(),
        booted: node.booted().ok(),
        profile: node.boot_default().ok(),
        loader: node.loader_default().ok(),
    }
}
