//! The nodes of one evaluation that wait, and which of them go into the next process. Pure.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::experience::Experience;
use super::share::{Budget, Share, Waiting};
use crate::config::Bytes;
use crate::model::name::NodeName;

/// In which order nodes are evaluated: those of an earlier group begin before those of a later one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order(pub Vec<BTreeSet<NodeName>>);

impl From<BTreeSet<NodeName>> for Order {
    fn from(nodes: BTreeSet<NodeName>) -> Self {
        Self(vec![nodes])
    }
}

/// What one process is asked, with how much memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chunk {
    pub(super) nodes: Vec<NodeName>,
    pub(super) memory: Bytes,
    pub(super) place: Company,
}

/// Which others may run beside a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Company {
    /// As many as there are workers.
    Others,
    /// None: it may have all of the memory.
    Nobody,
}

/// How a chunk failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// It wanted more memory.
    Memory,
    /// Anything else.
    Other,
}

/// Nodes that wait.
#[derive(Debug)]
pub(super) struct Queue {
    share: Share,
    most: Option<usize>,
    groups: VecDeque<VecDeque<NodeName>>,
    /// Of chunks that failed.
    halves: VecDeque<Vec<NodeName>>,
    /// Nodes that want more memory than a share, for the end: nothing else runs beside them.
    alone: VecDeque<NodeName>,
    allocated: BTreeMap<NodeName, u64>,
}

impl Queue {
    /// Nodes in groups, with what is known of each; `memory` is for all of them.
    pub(super) fn new(
        groups: Vec<Vec<NodeName>>,
        known: &BTreeMap<NodeName, Experience>,
        memory: Budget,
        workers: usize,
        most: Option<usize>,
    ) -> Self {
        let allocated: BTreeMap<NodeName, u64> = known
            .iter()
            .filter_map(|(name, experience)| Some((name.clone(), experience.allocated?)))
            .collect();
        let share = Share::of(memory, workers, middle(&allocated));
        let too_large = |name: &NodeName| {
            let tried = known.get(name).and_then(|experience| experience.too_little);
            share.each < share.whole && tried.is_some_and(|tried| tried >= share.each.0)
        };
        let (mut alone, mut waiting) = (VecDeque::new(), VecDeque::new());
        for group in groups {
            let (large, others): (Vec<_>, VecDeque<_>) = {
                let (large, others): (Vec<_>, Vec<_>) = group.into_iter().partition(too_large);
                (large, others.into())
            };
            alone.extend(large);
            waiting.push_back(others);
        }
        Self { share, most, groups: waiting, halves: VecDeque::new(), alone, allocated }
    }

    /// How many processes may run beside each other.
    pub(super) fn workers(&self) -> usize {
        self.share.workers
    }

    /// What comes next beside so many that run, if anything may.
    pub(super) fn next(&mut self, running: usize) -> Option<Chunk> {
        let memory = self.share.each;
        if let Some(nodes) = self.halves.pop_front() {
            return Some(Chunk { nodes, memory, place: Company::Others });
        }
        while self.groups.front().is_some_and(VecDeque::is_empty) {
            self.groups.pop_front();
        }
        let Some(group) = self.groups.front() else {
            if running > 0 {
                return None;
            }
            let nodes = vec![self.alone.pop_front()?];
            return Some(Chunk { nodes, memory: self.share.whole, place: Company::Nobody });
        };
        // A group is done as soon as it can be, even if small: the ones after it do not count.
        let waiting = Waiting { nodes: group.len(), typical: middle(&self.allocated), most: self.most };
        let needs = group.iter().map(|name| self.allocated.get(name).copied());
        let count = self.share.together(needs, waiting);
        let nodes = self.groups.front_mut()?.drain(..count).collect();
        Some(Chunk { nodes, memory, place: Company::Others })
    }

    /// Takes in what a chunk that succeeded allocated, all nodes together.
    pub(super) fn succeeded(&mut self, chunk: &Chunk, allocated: Option<u64>) {
        let Some(allocated) = allocated else { return };
        let each = allocated / (chunk.nodes.len().max(1) as u64);
        self.allocated.extend(chunk.nodes.iter().map(|name| (name.clone(), each)));
    }

    /// Takes back a chunk that failed, in parts. Returns whether it could be divided, or given more memory: if not, the
    /// failure is its only node's.
    pub(super) fn failed(&mut self, chunk: &Chunk, fault: Fault) -> bool {
        match (chunk.nodes.as_slice(), fault, chunk.place) {
            ([one], Fault::Memory, Company::Others) if self.share.each < self.share.whole => {
                self.alone.push_back(one.clone());
                true
            }
            ([] | [_], Fault::Memory | Fault::Other, Company::Others | Company::Nobody) => false,
            (many, Fault::Memory | Fault::Other, Company::Others | Company::Nobody) => {
                self.halves.extend(many.chunks(many.len().div_ceil(2)).map(<[NodeName]>::to_vec));
                true
            }
        }
    }
}

/// The one in the middle of what is known.
fn middle(allocated: &BTreeMap<NodeName, u64>) -> Option<u64> {
    let mut all: Vec<u64> = allocated.values().copied().collect();
    all.sort_unstable();
    all.get(all.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn names(names: &[&str]) -> Vec<NodeName> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    fn queue(groups: &[&[&str]], known: &[(&str, Experience)], mib: u64) -> Queue {
        let known = known.iter().map(|(name, known)| (name.parse().unwrap(), known.clone())).collect();
        let groups = groups.iter().map(|group| names(group)).collect();
        Queue::new(groups, &known, budget(mib), 2, None)
    }

    fn budget(mib: u64) -> Budget {
        Budget { together: Bytes(mib * MIB), alone: Bytes(mib * MIB) }
    }

    fn allocated(mib: u64) -> Experience {
        Experience { allocated: Some(mib * MIB), ..Experience::default() }
    }

    fn all(queue: &mut Queue) -> Vec<String> {
        let each = std::iter::from_fn(|| queue.next(0));
        each.map(|chunk| {
            let text: Vec<&str> = chunk.nodes.iter().map(NodeName::as_str).collect();
            let place = match chunk.place {
                Company::Others => "",
                Company::Nobody => "!",
            };
            format!("{}{place}", text.join("+"))
        })
        .collect()
    }

    #[test]
    fn an_earlier_group_is_begun_first_and_shares_no_process_with_a_later_one() {
        let known: Vec<_> = ["a", "b", "c", "d", "e"].map(|name| (name, allocated(1))).into();
        let mut queue = queue(&[&["c"], &[], &["a", "b", "d", "e"]], &known, 8192);
        assert_eq!(all(&mut queue), ["c", "a+b", "d", "e"]);
        let known: Vec<_> = (0..12).map(|at| format!("n{at:02}")).collect();
        let refs: Vec<&str> = known.iter().map(String::as_str).collect();
        let known: Vec<_> = refs.iter().map(|name| (*name, allocated(1))).collect();
        let mut queue = Queue::new(
            vec![names(&["z"]), names(&refs)],
            &known.iter().map(|(name, known)| (name.parse().unwrap(), known.clone())).collect(),
            budget(8192),
            2,
            None,
        );
        assert_eq!(all(&mut queue)[..3], ["z", "n00+n01+n02+n03+n04+n05", "n06+n07+n08"]);
    }

    #[test]
    fn what_the_first_chunks_show_shapes_the_next_ones() {
        let mut queue = queue(&[&["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"]], &[], 8192);
        let first = queue.next(0).unwrap();
        assert_eq!(first.nodes, names(&["a"]), "nothing is known");
        queue.succeeded(&first, Some(2 * MIB));
        assert_eq!(queue.next(0).unwrap().nodes, names(&["b", "c", "d", "e", "f"]), "they are small");
    }

    #[test]
    fn a_failing_chunk_is_divided_before_anything_else_begins() {
        let known: Vec<_> = ["a", "b", "c", "d", "e", "f", "g", "h"].map(|name| (name, allocated(1))).into();
        let mut queue = queue(&[&["a", "b", "c", "d", "e", "f", "g", "h"]], &known, 8192);
        let chunk = queue.next(0).unwrap();
        assert_eq!(chunk.nodes, names(&["a", "b", "c", "d"]));
        assert!(queue.failed(&chunk, Fault::Other));
        assert_eq!(queue.next(0).unwrap().nodes, names(&["a", "b"]));
        let half = queue.next(0).unwrap();
        assert_eq!(half.nodes, names(&["c", "d"]));
        assert!(queue.failed(&half, Fault::Other));
        let one = queue.next(0).unwrap();
        assert_eq!(one.nodes, names(&["c"]));
        assert!(!queue.failed(&one, Fault::Other), "it is its own fault");
        assert_eq!(queue.next(0).unwrap().nodes, names(&["d"]));
    }

    #[test]
    fn a_node_that_wants_more_than_its_share_comes_last_and_may_have_everything() {
        let mut queue = queue(&[&["big", "small"]], &[], 4096);
        let chunk = queue.next(0).unwrap();
        assert_eq!((&chunk.nodes, chunk.memory), (&names(&["big"]), Bytes(2048 * MIB)));
        assert!(queue.failed(&chunk, Fault::Memory));
        assert_eq!(queue.next(0).unwrap().nodes, names(&["small"]));
        let again = queue.next(0).unwrap();
        assert_eq!(
            again,
            Chunk { nodes: names(&["big"]), memory: Bytes(4096 * MIB), place: Company::Nobody }
        );
        assert!(!queue.failed(&again, Fault::Memory), "there is no more");
        assert_eq!(queue.next(0), None);
    }

    #[test]
    fn the_only_worker_may_use_swap_for_one_node_that_needs_it() {
        let memory = Budget { together: Bytes(512 * MIB), alone: Bytes(2048 * MIB) };
        let mut queue = Queue::new(vec![names(&["big"])], &BTreeMap::new(), memory, 1, None);
        let chunk = queue.next(0).unwrap();
        assert!(queue.failed(&chunk, Fault::Memory));
        assert_eq!(queue.next(0).unwrap().memory, Bytes(2048 * MIB));
    }

    #[test]
    fn a_node_that_is_known_to_want_more_is_not_tried_with_less() {
        let large = Experience { too_little: Some(2048 * MIB), ..Experience::default() };
        assert_eq!(all(&mut queue(&[&["big", "small"]], &[("big", large.clone())], 4096)), ["small", "big!"]);
        assert_eq!(
            all(&mut queue(&[&["big", "small"]], &[("big", large)], 16384)),
            ["big", "small"],
            "a larger share may be enough"
        );
    }
}
