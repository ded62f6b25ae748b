//! What a campaign has to show for itself, as a table.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::diary::Done;
use crate::journal::Entry;

/// Figures of a campaign.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// What it can be replayed with.
    pub seed: u64,
    /// Faults that were done, by kind.
    pub faults: BTreeMap<&'static str, usize>,
    /// Faults of the schedule that could not be done: the node was not up.
    pub not_done: usize,
    /// Ends of switches during each kind of fault.
    pub ends: BTreeMap<&'static str, BTreeMap<String, usize>>,
    /// Ends of all switches.
    pub switches: BTreeMap<String, usize>,
    /// Merges by kind.
    pub merges: BTreeMap<&'static str, usize>,
    /// Checkpoints, all passed.
    pub checkpoints: usize,
    /// The longest way from the good release of a checkpoint to a fleet in sync, in seconds.
    pub longest_convergence: f64,
    /// The most resident memory that a controller had at a checkpoint, in KiB.
    pub most_memory: u64,
    /// The whole campaign, in seconds.
    pub seconds: f64,
}

impl Report {
    /// How many faults were done.
    #[must_use]
    pub fn injected(&self) -> usize {
        self.faults.values().sum()
    }

    /// Counts the ends of switches, in all and beside each fault that bore on them.
    pub(crate) fn count_ends<'a>(&mut self, entries: impl Iterator<Item = (usize, &'a Entry)>, all: &[Done]) {
        self.switches.clear();
        self.ends.clear();
        for (node, entry) in entries {
            *self.switches.entry(entry.end()).or_default() += 1;
            let end = entry.finished.unwrap_or(entry.started + 10.0);
            let bears = |done: &&Done| {
                done.node.is_none_or(|at| at == node)
                    && done.from <= end
                    && done.until.min(done.from + 60.0) >= entry.started
            };
            for done in all.iter().filter(bears) {
                *self.ends.entry(done.kind).or_default().entry(entry.end()).or_default() += 1;
            }
        }
    }

    /// For people.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = format!("{:<28} {:>6}  ends of the switches they fell into\n", "fault", "count");
        for (kind, count) in &self.faults {
            let ends = self.ends.get(kind).map(listed).unwrap_or_default();
            let _ = writeln!(text, "{kind:<28} {count:>6}  {ends}");
        }
        let _ = writeln!(text, "\nall switches: {}", listed(&self.switches));
        let _ = writeln!(text, "merges: {}", listed(&self.merges));
        let _ = writeln!(
            text,
            "\nseed {}: {} faults ({} more could not be done), {} merges, {} switches, {} checkpoints, longest convergence \
             {:.1} s, controller at most {} MiB, {:.0} s in all",
            self.seed,
            self.injected(),
            self.not_done,
            self.merges.values().sum::<usize>(),
            self.switches.values().sum::<usize>(),
            self.checkpoints,
            self.longest_convergence,
            self.most_memory / 1024,
            self.seconds
        );
        text
    }
}

fn listed<K: AsRef<str>>(counts: &BTreeMap<K, usize>) -> String {
    let words: Vec<String> =
        counts.iter().map(|(what, count)| format!("{} {count}", what.as_ref())).collect();
    words.join(", ")
}
