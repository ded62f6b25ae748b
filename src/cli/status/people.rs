//! What people have said and what waits for them, under the table: each with the command that ends it.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use crate::cli::approve::waiting;
use crate::model::intent::{NodeSuspension, SuspensionId};
use crate::model::name::NodeName;
use crate::model::snapshot::Snapshot;
use crate::model::spoken::{age, clock};

/// One line each.
pub fn lines(snapshot: &Snapshot, now: Timestamp) -> Vec<String> {
    let intent = &snapshot.intent;
    let mut lines = Vec::new();
    if intent.is_unreadable() {
        let why = intent.suspensions.values().map(|own| own.reason.as_str()).collect::<String>();
        lines.push(format!("Only observing: {why}; `driftless resume` sets it aside and goes on"));
    }
    for (id, one) in intent.suspensions.iter().filter(|(id, _)| **id != SuspensionId::of_unreadable()) {
        let (on, by, reason) = (&one.on, &one.by, &one.reason);
        let (since, end) = (age(one.since, now), end(one.until));
        lines.push(format!(
            "Suspended: {on} by {by} {since} ago, {end}: {reason}; `driftless resume --id {id}`"
        ));
    }
    lines.extend(marked_only(snapshot));
    for open in &intent.overrides {
        let (on, by, reason, until) = (&open.on, &open.by, &open.reason, clock(open.until));
        lines.push(format!("Windows do not count: {on} until {until}, by {by}: {reason}"));
    }
    for approval in &intent.approvals {
        let (what, hash, by, until) = (&approval.what, &approval.hash, &approval.by, clock(approval.until));
        lines.push(format!("Approved: {what} ({hash}) by {by}, until {until}"));
    }
    for (hash, waits) in waiting(snapshot) {
        let names: BTreeSet<&NodeName> = waits.nodes.iter().map(|(name, _)| *name).collect();
        lines.push(format!(
            "Waits for approval: {} ({}); `driftless approve --hash {hash}`",
            waits.what,
            listed(&names)
        ));
    }
    lines
}

/// Suspensions of which nothing is left but their marks: the controller has lost its state.
fn marked_only(snapshot: &Snapshot) -> Vec<String> {
    let mut marked: BTreeMap<&SuspensionId, (&NodeSuspension, BTreeSet<&NodeName>)> = BTreeMap::new();
    for (name, view) in &snapshot.nodes {
        if let Some(suspension) = &view.suspended
            && let Some(id) =
                suspension.id.as_ref().filter(|id| !snapshot.intent.suspensions.contains_key(*id))
        {
            marked.entry(id).or_insert_with(|| (suspension, BTreeSet::new())).1.insert(name);
        }
    }
    let line = |(id, (one, names)): (&SuspensionId, (&NodeSuspension, BTreeSet<&NodeName>))| {
        let (names, by, end, reason) = (listed(&names), &one.by, end(one.until), &one.reason);
        format!(
            "Suspended: {names} by {by}, {end}: {reason} (known by the marks on them); `driftless resume --id {id}`"
        )
    };
    marked.into_iter().map(line).collect()
}

fn end(until: Option<Timestamp>) -> String {
    until.map_or_else(|| "without an end".into(), |until| format!("until {}", clock(until)))
}

fn listed(names: &BTreeSet<&NodeName>) -> String {
    let named: Vec<&str> = names.iter().map(|name| name.as_str()).take(10).collect();
    match names.len() {
        count if count > 10 => format!("{} and {} more", named.join(", "), count - 10),
        _ => named.join(", "),
    }
}
