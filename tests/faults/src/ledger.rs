//! All journals of all nodes, kept across checkpoints (a node keeps only its newest twenty switches), and what must hold
//! between entries: no two at once, none that changes its mind, none that tries again what cannot work, none that boots what
//! was never proven.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result};

use crate::diary::Done;
use crate::field::Field;
use crate::journal::{self, Entry};
use crate::schedule::NODES;
use crate::truth::{Case, ECHO};
use crate::witness::{Sight, Witness};

/// What one node's journal has said so far.
#[derive(Default)]
struct Page {
    entries: BTreeMap<String, Entry>,
    /// Entries that were held against what was seen.
    judged: BTreeSet<String>,
    /// Up to when boots and boot defaults were checked.
    until: f64,
}

/// Every node's.
pub(crate) struct Ledger {
    pages: Vec<Page>,
}

impl Ledger {
    pub(crate) fn new() -> Self {
        Self { pages: NODES.iter().map(|_| Page::default()).collect() }
    }

    /// Reads what is new and yields what is wrong with it.
    pub(crate) fn audit(&mut self, field: &Field, witness: &Witness) -> Result<Vec<String>> {
        let mut wrong = Vec::new();
        for (node, page) in self.pages.iter_mut().enumerate() {
            let name = NODES[node];
            let read = journal::read(&field.nodes[node]).with_context(|| format!("the journal of {name}"))?;
            let mut found = page.take_in(read);
            found.extend(page.judge(node, field, witness)?);
            found.extend(page.overlaps());
            found.extend(page.tried_again(node, field));
            // A journal on a full disk that a reboot follows has lost its end: what was proven in it nobody knows.
            let lost = |entry: &Entry| {
                let end = entry.finished.unwrap_or(entry.started);
                let done = field.diary.between(node, entry.started - ECHO, end + ECHO);
                done.iter().any(|done| ["fill-var", "full-disk"].contains(&done.kind))
            };
            let sights = witness.since(node, page.until);
            found.extend(page.boots(&field.installed, &field.strays, &sights, lost));
            if let Some(last) = witness.since(node, page.until).last() {
                page.until = last.at;
            }
            wrong.extend(found.into_iter().map(|what| format!("{name}: {what}")));
        }
        Ok(wrong)
    }

    /// Every entry, with its node.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (usize, &Entry)> {
        self.pages
            .iter()
            .enumerate()
            .flat_map(|(node, page)| page.entries.values().map(move |entry| (node, entry)))
    }
}

impl Page {
    /// An entry that has ended says the same for ever.
    fn take_in(&mut self, read: Vec<Entry>) -> Vec<String> {
        let mut wrong = Vec::new();
        for entry in read {
            let before = self.entries.insert(entry.id.clone(), entry.clone());
            if let Some(before) = before.filter(|before| before.outcome.is_some())
                && (before.end(), before.finished) != (entry.end(), entry.finished)
            {
                wrong.push(format!("{} was {} and says {} now", entry.id, before.end(), entry.end()));
            }
        }
        wrong
    }

    fn judge(&mut self, node: usize, field: &Field, witness: &Witness) -> Result<Vec<String>> {
        let boot = field.nodes[node].boot_id()?;
        // What still runs is judged when it has ended; what another boot left unfinished has.
        let ended = |entry: &&Entry| entry.outcome.is_some() || entry.boot != boot;
        let new = || self.entries.values().filter(|entry| !self.judged.contains(&entry.id)).filter(ended);
        let mut wrong = Vec::new();
        for entry in new().filter(|entry| entry.faults().contains_key("fillDisk")) {
            field.diary.note(Done {
                kind: "full-disk",
                node: Some(node),
                from: entry.started,
                until: f64::INFINITY,
            });
        }
        for entry in new() {
            let end = entry.finished.unwrap_or(f64::INFINITY);
            let done = field.diary.between(node, entry.started - ECHO, end + 1.0);
            let sights = witness.between(node, entry.started - 1.0, end + 3.0);
            wrong.extend(Case { entry, done: &done, sights: &sights }.lies());
        }
        let judged: Vec<String> = new().map(|entry| entry.id.clone()).collect();
        self.judged.extend(judged);
        Ok(wrong)
    }

    /// Two switches of one node never run at the same time.
    fn overlaps(&self) -> Vec<String> {
        let ended = self.entries.values().filter_map(|entry| Some((entry, entry.finished?)));
        let mut spans: Vec<(&Entry, f64)> = ended.collect();
        spans.sort_by(|a, b| a.0.started.total_cmp(&b.0.started));
        let meet = |pair: &[(&Entry, f64)]| {
            let ((first, end), (second, _)) = (pair[0], pair[1]);
            (second.started < end && first.boot == second.boot)
                .then(|| format!("{} began before {} had ended", second.id, first.id))
        };
        spans.windows(2).filter_map(meet).collect()
    }

    /// What failed for good is tried again only when a person asks, or after somebody brought it to succeed.
    fn tried_again(&self, node: usize, field: &Field) -> Vec<String> {
        let mut failed: BTreeMap<&str, &Entry> = BTreeMap::new();
        let mut wrong = Vec::new();
        let retries: Vec<f64> = field
            .diary
            .all()
            .iter()
            .filter(|done| done.kind == "person-retries" && done.node == Some(node))
            .map(|done| done.from)
            .collect();
        let mut entries: Vec<&Entry> = self.entries.values().collect();
        entries.sort_by(|a, b| a.started.total_cmp(&b.started).then(a.number.cmp(&b.number)));
        for entry in entries {
            if entry.is_ours()
                && let Some(before) = failed.get(entry.system.as_str())
                && !retries.iter().any(|at| *at > before.started - 1.0 && *at < entry.started + 1.0)
            {
                wrong.push(format!(
                    "{} tries {} again after {} {}",
                    entry.id,
                    entry.system,
                    before.id,
                    before.end()
                ));
            }
            if entry.is_final() {
                failed.insert(&entry.system, entry);
            } else if entry.outcome.as_deref() == Some("succeeded") {
                failed.remove(entry.system.as_str());
            }
        }
        wrong
    }

    /// Whatever was booted, or would have been, was proven: installed at first, by hand, or with contact and verdict.
    fn boots(
        &self,
        installed: &str,
        strays: &[String],
        sights: &[Sight],
        lost: impl Fn(&Entry) -> bool,
    ) -> Vec<String> {
        let proven = |system: &String| {
            system == installed
                || strays.contains(system)
                || self
                    .entries
                    .values()
                    .any(|entry| entry.system == *system && (entry.committing || lost(entry)))
        };
        let mut wrong = BTreeSet::new();
        for sight in sights {
            for (what, system) in [("booted", &sight.booted), ("would have booted", &sight.loader)] {
                if let Some(system) = system.as_ref().filter(|system| !proven(system)) {
                    wrong.insert(format!("{what} {system}, which nobody had proven"));
                }
            }
        }
        wrong.into_iter().collect()
    }
}
