//! What was done and when, by the lab's own clock: a line for people each, and the record against which journals are held.

use std::io::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Seconds since 1970 by the clock that the nodes share.
pub(crate) fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// A lock whose data stay whole when a thread panicked: they are only ever added to.
pub(crate) fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Something that was done to the fleet, or its effect.
#[derive(Debug, Clone)]
pub(crate) struct Done {
    /// Its word.
    pub(crate) kind: &'static str,
    /// The node it concerns; `None`: all of them.
    pub(crate) node: Option<usize>,
    /// Seconds since 1970.
    pub(crate) from: f64,
    /// The end of its effect; infinite until somebody repairs it.
    pub(crate) until: f64,
}

/// The log of a campaign and what it says, to look up.
pub(crate) struct Diary {
    out: Mutex<Box<dyn Write + Send>>,
    began: Instant,
    done: Mutex<Vec<Done>>,
    said: Mutex<Vec<String>>,
}

impl Diary {
    pub(crate) fn new(out: Box<dyn Write + Send>) -> Self {
        Self { out: Mutex::new(out), began: Instant::now(), done: Mutex::default(), said: Mutex::default() }
    }

    /// One line for people.
    pub(crate) fn say(&self, line: &str) {
        let line = format!("{:9.3} {}", self.began.elapsed().as_secs_f64(), line.replace('\n', " | "));
        // Nobody reads it: then nobody misses it.
        let _ = writeln!(held(&self.out), "{line}");
        held(&self.said).push(line);
    }

    /// Keeps in mind what was done.
    pub(crate) fn note(&self, done: Done) {
        held(&self.done).push(done);
    }

    /// Somebody repaired everything of this kind there.
    pub(crate) fn repaired(&self, kinds: &[&str], node: usize) {
        for done in held(&self.done).iter_mut() {
            if kinds.contains(&done.kind) && done.node == Some(node) && done.until.is_infinite() {
                done.until = now();
            }
        }
    }

    /// What bears on a node between two times.
    pub(crate) fn between(&self, node: usize, from: f64, until: f64) -> Vec<Done> {
        let bears =
            |done: &&Done| done.node.is_none_or(|at| at == node) && done.from <= until && done.until >= from;
        held(&self.done).iter().filter(bears).cloned().collect()
    }

    /// Everything.
    pub(crate) fn all(&self) -> Vec<Done> {
        held(&self.done).clone()
    }

    /// How long the campaign has run.
    pub(crate) fn seconds(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }

    /// The last lines.
    pub(crate) fn tail(&self, lines: usize) -> String {
        let said = held(&self.said);
        said[said.len().saturating_sub(lines)..].join("\n")
    }
}
