//! The journals that nodes keep of their switches, read as anybody can. Knows the format from the outside, as the README and
//! `switch.sh` show it, not from the controller's code: a second witness.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};
use driftless_lab::Node;

/// One switch.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    pub(crate) id: String,
    /// The node's own order.
    pub(crate) number: u64,
    pub(crate) system: String,
    pub(crate) previous: String,
    pub(crate) phase: String,
    /// `None` while it is unfinished.
    pub(crate) outcome: Option<String>,
    pub(crate) cause: Option<String>,
    /// Seconds since 1970.
    pub(crate) started: f64,
    pub(crate) finished: Option<f64>,
    pub(crate) asker: String,
    pub(crate) boot: String,
    pub(crate) detail: String,
    /// It got as far as changing profile and boot loader: contact and verdict were there.
    pub(crate) committing: bool,
    /// What `start` was told, by key.
    pub(crate) order: BTreeMap<String, String>,
    /// Units that had failed before.
    pub(crate) failed_before: String,
}

impl Entry {
    /// `rolled-back (contact)`.
    pub(crate) fn end(&self) -> String {
        let outcome = self.outcome.as_deref().unwrap_or("interrupted");
        match &self.cause {
            Some(cause) => format!("{outcome} ({cause})"),
            None => outcome.to_owned(),
        }
    }

    /// Whether the same system would end the same way, so that it must not be tried again unasked.
    pub(crate) fn is_final(&self) -> bool {
        match self.outcome.as_deref() {
            Some("rolled-back") => {
                !matches!(self.cause.as_deref(), Some("silence" | "busy" | "killed" | "foreign"))
            }
            Some("rollback-failed" | "commit-failed") => true,
            Some(_) | None => false,
        }
    }

    /// What the system does wrong, by the lab's words.
    pub(crate) fn faults(&self) -> BTreeMap<String, String> {
        faults_of(&self.system)
    }

    pub(crate) fn is_ours(&self) -> bool {
        self.asker.starts_with("controller")
    }
}

/// What a system of this machine's store does wrong, by the lab's words.
pub(crate) fn faults_of(system: &str) -> BTreeMap<String, String> {
    let files = fs::read_dir(Path::new(system).join("lab/faults")).into_iter().flatten().flatten();
    let read = |file: fs::DirEntry| {
        Some((file.file_name().into_string().ok()?, fs::read_to_string(file.path()).ok()?))
    };
    files.filter_map(read).collect()
}

/// The whole journal of a node, oldest first. A line that cannot be read is an error.
pub(crate) fn read(node: &Node) -> Result<Vec<Entry>> {
    let journal = node.path("/var/lib/driftless-node/switches");
    let mut ids: Vec<_> =
        fs::read_dir(&journal).into_iter().flatten().flatten().map(|entry| entry.file_name()).collect();
    ids.sort();
    let mut entries = Vec::new();
    for id in ids {
        let (entry, live) = (journal.join(&id), node.path("/run/driftless-node").join(&id));
        let summary =
            fs::read_to_string(live.join("summary")).or_else(|_| fs::read_to_string(entry.join("summary")));
        // Begun, and refused or cut off before the first phase.
        let Ok(summary) = summary else { continue };
        // While it runs, each phase adds a line; one that was cut short has no end.
        let Some(last) = summary.split_inclusive('\n').rfind(|line| line.ends_with('\n')) else {
            continue;
        };
        entries.push(parse(node.name(), last.trim_end_matches('\n'), &entry)?);
    }
    Ok(entries)
}

fn parse(node: &str, line: &str, place: &Path) -> Result<Entry> {
    let fields: Vec<&str> = line.split('\t').collect();
    ensure!(fields.len() == 12, "{node}: a line of the journal has {} fields: {line:?}", fields.len());
    let some = |field: &str| Some(field.to_owned()).filter(|field| field != "-");
    let file = |name: &str| fs::read_to_string(place.join(name)).unwrap_or_default();
    let order = file("order") + &file("found");
    let pairs = order.lines().filter_map(|line| line.split_once(' '));
    Ok(Entry {
        id: fields[0].to_owned(),
        number: file("number").trim().parse().unwrap_or_default(),
        system: fields[1].to_owned(),
        previous: fields[2].to_owned(),
        phase: fields[3].to_owned(),
        outcome: some(fields[4]),
        cause: some(fields[5]),
        started: fields[6].parse()?,
        finished: some(fields[7]).map(|text| text.parse()).transpose()?,
        asker: fields[9].to_owned(),
        boot: fields[10].to_owned(),
        detail: fields[11].to_owned(),
        committing: fields[3] == "committing"
            || fields[4] == "succeeded"
            || file("log").contains("driftless: phase committing")
            // The log of before a reboot ends where it was last kept.
            || fields[11].contains("went down in phase committing"),
        order: pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
        failed_before: file("failed-before"),
    })
}
