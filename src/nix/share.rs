//! How evaluations share the memory that they may have: how many processes, how much for each, how many nodes in one. Pure.
//!
//! Seen with real NixOS systems: a node allocates 0.5 GiB and up, whatever else is in its process, for each has a package
//! set of its own. A process is fastest while its heap is never collected, and slower again the more memory it touches. So
//! few nodes go into one process, many where they are small, and the heap is as large as its share allows.

use crate::config::Bytes;

const MIB: u64 = 1 << 20;

/// What an evaluator needs beside its heap: code, symbols, stacks.
const BESIDE_HEAP: u64 = 192 * MIB;
/// Of nodes that nobody has evaluated yet.
const GUESSED: u64 = 768 * MIB;
/// One process allocates about so much: its pages are then still cheap, and starting it costs little beside the rest.
const WORTHWHILE: u64 = 1280 * MIB;
/// The heap of an evaluator at its start, at the least and at the most.
const HEAP: (u64, u64) = (16 * MIB, 4096 * MIB);

/// What evaluations may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Budget {
    /// All that run at once.
    pub(super) together: Bytes,
    /// One that runs alone, because it wants more than its share of that.
    pub(super) alone: Bytes,
}

/// The memory of evaluations, divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Share {
    /// Evaluators at a time.
    pub(super) workers: usize,
    /// For each of them.
    pub(super) each: Bytes,
    /// For one that is alone.
    pub(super) whole: Bytes,
}

impl Share {
    /// Divides a budget among at most `workers`: among fewer where each would have too little for a node like `typical`.
    pub(super) fn of(budget: Budget, workers: usize, typical: Option<u64>) -> Self {
        let Budget { together, alone } = budget;
        // With half of what it allocates, a node's evaluation collects garbage a few times, and ends well.
        let comfortable = BESIDE_HEAP + typical.unwrap_or(GUESSED) / 2;
        let fitting = usize::try_from(together.0 / comfortable).unwrap_or(usize::MAX);
        let workers = fitting.clamp(1, workers.max(1));
        Self { workers, each: Bytes(together.0 / workers as u64), whole: alone }
    }

    /// How many of the nodes that wait, the next one first, go into one process: `needs` is what each allocated before.
    pub(super) fn together(&self, needs: impl Iterator<Item = Option<u64>>, wait: Waiting) -> usize {
        let heap = heap(self.each).0.min(WORTHWHILE);
        let fits = needs
            .scan(0, |sum: &mut u64, need| {
                *sum += need.or(wait.typical).unwrap_or(GUESSED);
                Some(*sum)
            })
            .take_while(|sum| *sum <= heap)
            .count();
        // No worker goes without while another one has several left.
        let even = wait.nodes.div_ceil(self.workers);
        fits.min(even).min(wait.most.unwrap_or(usize::MAX)).max(1)
    }
}

/// What waits to be evaluated.
#[derive(Debug, Clone, Copy)]
pub(super) struct Waiting {
    /// Nodes.
    pub(super) nodes: usize,
    /// What one of them allocates, as far as that is known of the others.
    pub(super) typical: Option<u64>,
    /// `eval.chunk`.
    pub(super) most: Option<usize>,
}

/// The heap with which an evaluator starts that may have so much in all. Pages that it does not touch cost nothing.
pub(super) fn heap(most: Bytes) -> Bytes {
    Bytes(most.0.saturating_sub(BESIDE_HEAP).clamp(HEAP.0, HEAP.1))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn budget(whole: u64) -> Budget {
        Budget { together: Bytes(whole), alone: Bytes(whole) }
    }

    fn share(whole: u64, workers: usize, typical: Option<u64>) -> (usize, u64) {
        let share = Share::of(budget(whole), workers, typical);
        assert!(share.each.0 * share.workers as u64 <= whole, "more than there is: {share:?}");
        (share.workers, share.each.0 / MIB)
    }

    #[test]
    fn everyone_works_where_there_is_memory_for_everyone() {
        assert_eq!(share(16 * GIB, 2, None), (2, 8192));
        assert_eq!(share(64 * GIB, 16, Some(GIB)), (16, 4096));
    }

    #[test]
    fn fewer_work_where_each_would_have_too_little() {
        assert_eq!(share(2 * GIB, 8, None), (3, 682));
        assert_eq!(share(2 * GIB, 8, Some(2 * GIB)), (1, 2048), "larger nodes, fewer workers");
        assert_eq!(share(2 * GIB, 8, Some(10 * MIB)), (8, 256), "small nodes need little");
        assert_eq!(share(128 * MIB, 8, None), (1, 128), "one always works");
    }

    fn together(whole: u64, needs: &[Option<u64>], wait: Waiting) -> usize {
        Share::of(budget(whole), 2, None).together(needs.iter().copied(), wait)
    }

    const MANY: Waiting = Waiting { nodes: 1000, typical: None, most: None };

    #[test]
    fn as_many_nodes_as_a_heap_holds_without_being_collected() {
        let real = [Some(500 * MIB); 20];
        assert_eq!(together(16 * GIB, &real, MANY), 2);
        assert_eq!(together(GIB, &real, MANY), 1, "a small share");
        assert_eq!(together(16 * GIB, &[Some(5 * MIB); 1000], MANY), 256, "small ones");
        assert_eq!(
            together(16 * GIB, &[Some(5 * GIB), Some(MIB)], MANY),
            1,
            "one that is too large is asked alone"
        );
        assert_eq!(together(16 * GIB, &[Some(MIB), Some(5 * GIB)], MANY), 1);
    }

    #[test]
    fn nodes_that_nobody_knows_are_like_the_others() {
        assert_eq!(together(16 * GIB, &[None; 20], MANY), 1);
        let small = Waiting { typical: Some(MIB), ..MANY };
        assert_eq!(together(16 * GIB, &[None; 20], small), 20);
    }

    #[test]
    fn the_last_ones_are_spread_over_the_workers() {
        for (nodes, expected) in [(8, 4), (3, 2), (2, 1), (1, 1)] {
            let needs = vec![Some(MIB); nodes];
            assert_eq!(together(16 * GIB, &needs, Waiting { nodes, ..MANY }), expected);
        }
    }

    #[test]
    fn the_configuration_has_the_last_word() {
        assert_eq!(together(16 * GIB, &[Some(MIB); 20], Waiting { most: Some(3), ..MANY }), 3);
    }

    #[test]
    fn a_heap_leaves_room_for_what_is_beside_it() {
        assert_eq!(heap(Bytes(GIB)).0, 832 * MIB);
        assert_eq!(heap(Bytes(64 * GIB)).0, 4 * GIB);
        assert_eq!(heap(Bytes(128 * MIB)).0, 16 * MIB);
    }
}
