//! What must hold, by a book of its own: nothing here asks `plan` what it thinks.
//!
//! A controller can only be blamed for what it could know: of each node, what its newest read found.

use std::collections::BTreeMap;

use deciding::model::action::{Action, Purpose};
use deciding::model::journal::{Cause, Entry, Outcome, Phase, PinEnd};
use deciding::model::name::NodeName;
use deciding::model::node::{Goal, OnDrift};
use deciding::model::release::{NodeRelease, Progress, Release};
use deciding::model::store_path::StorePath;
use deciding::plan::CONTROLLER;

use crate::gate::{Approved, Fleet};
use crate::repository::name_of;
use crate::shell::News;
use crate::time::{HOUR, Ms, SECOND, time_of};
use crate::world::Site;

/// An action that is begun, and what it is judged by.
#[derive(Debug)]
pub struct Start<'a> {
    pub now: Ms,
    pub release: &'a Release,
    pub site: &'a Site,
    pub action: &'a Action,
    /// How many actions run, this one included.
    pub acting: usize,
    /// Whether one runs on this node already.
    pub already: bool,
    /// What was ever built for the node.
    pub built: &'a [StorePath],
    pub clocks_are_right: bool,
    /// The others.
    pub fleet: Fleet<'a>,
}

/// What this life of the controller knows of one node.
#[derive(Debug, Clone, Default)]
struct Book {
    /// The moment of the newest read that has come back.
    known: Option<Ms>,
    /// What was found to run and to boot there, and since when every read has found that.
    found: Option<(StorePath, Option<StorePath>, Ms)>,
    /// The failures in a row that no journal knows of.
    attempts: Option<(StorePath, u32, Ms)>,
}

impl Book {
    fn found_since(&self) -> Ms {
        self.found.as_ref().map_or(0, |(.., since)| *since)
    }
}

#[derive(Debug, Default)]
pub struct Judge {
    books: BTreeMap<usize, Book>,
    /// The system for which each node was told to reboot last.
    reboots: BTreeMap<NodeName, StorePath>,
    /// What people approved.
    pub approved: Vec<Approved>,
    pub violation: Option<String>,
}

impl Judge {
    pub fn blame(&mut self, said: String) {
        self.violation.get_or_insert(said);
    }

    pub fn new_life(&mut self) {
        self.books.clear();
    }

    pub fn forget_attempts(&mut self) {
        self.books.values_mut().for_each(|book| book.attempts = None);
    }

    /// What failed on the way to a node that is declared no more counts no more.
    pub fn follow(&mut self, release: &Release) {
        for (node, book) in &mut self.books {
            if book.attempts.is_some() && !release.nodes.contains_key(&name_of(*node)) {
                book.attempts = None;
            }
        }
    }

    /// The controller takes in news at `now`.
    pub fn heard(&mut self, now: Ms, news: &News) {
        let (News::Observed { node, sampled, .. } | News::Ended { node, sampled, .. }) = news;
        let book = self.books.entry(*node).or_default();
        book.known = book.known.max(*sampled);
        let sight = match news {
            News::Observed { sight, .. } => sight,
            News::Ended { ended, .. } => &ended.sight,
        };
        if let Ok(state) = &sight.outcome {
            let same = |(running, boots, _): &(StorePath, Option<StorePath>, Ms)| {
                *running == state.running && *boots == state.boot_default
            };
            if !book.found.as_ref().is_some_and(same) {
                book.found = Some((state.running.clone(), state.boot_default.clone(), now));
            }
        }
        if let News::Ended { ended, .. } = news {
            let before = book.attempts.take().filter(|(of, _, _)| *of == ended.toplevel);
            if ended.outcome.is_err() {
                let failures = before.map_or(0, |(_, failures, _)| failures) + 1;
                book.attempts = Some((ended.toplevel.clone(), failures, now));
            }
        }
    }

    /// A node has taken an order to reboot into a system.
    pub fn rebooted(&mut self, name: &NodeName, toplevel: &StorePath) {
        self.reboots.insert(name.clone(), toplevel.clone());
    }

    /// `driftless retry`: it may be rebooted again.
    pub fn forgive(&mut self, name: &NodeName) {
        self.reboots.remove(name);
    }

    fn reboot(&self, start: &Start<'_>, toplevel: &StorePath) -> Result<(), String> {
        room(start)?;
        let name = &start.site.name;
        // What the node was told it remembers; a read that came back before it was told cannot know.
        let told = start.site.machine.reboot.as_ref().is_some_and(|order| order.toplevel == *toplevel);
        if told && self.reboots.get(name) == Some(toplevel) {
            return Err("is rebooted for the same system again".into());
        }
        let spec = start.release.nodes.get(name).and_then(|node| node.spec.as_ref());
        if spec.is_some_and(|spec| start.fleet.is_suspended(name, spec)) {
            return Err("is suspended".into());
        }
        Ok(())
    }

    /// An action is begun.
    pub fn start(&mut self, start: &Start<'_>, node: usize) {
        let book = self.books.entry(node).or_default().clone();
        let judged = match (start.already, book.known) {
            (true, _) => Err("is begun on while something runs there already".to_owned()),
            (false, None) => Err("is acted on, and was never seen".to_owned()),
            (false, Some(known)) => match start.action {
                Action::Attach { id, .. } => attach(start, known, id),
                Action::Deploy { toplevel, goal, purpose, .. } => {
                    deploy(start, &book, known, (toplevel, *purpose))
                        .and_then(|()| {
                            on_node(start, (known, book.found_since()), (toplevel, *goal, *purpose))
                        })
                        .and_then(|()| start.fleet.judge(&start.site.name, start.action))
                }
                Action::Reboot { toplevel, .. } => self
                    .reboot(start, toplevel)
                    .and_then(|()| start.fleet.judge(&start.site.name, start.action)),
            },
        };
        if let Err(said) = judged {
            self.blame(format!("{} {said}: {:?}", start.site.name, start.action));
        }
    }
}

/// The entries of a node's journal that a read at `known` has found, newest first.
fn known_entries(site: &Site, known: Ms) -> impl Iterator<Item = (Entry, Ms, Option<Ms>)> {
    site.machine.journal().into_iter().rev().filter_map(move |mut entry| {
        let (began, ended) = site.times.get(&entry.id).copied()?;
        // What waited for a reboot came to nothing by that reboot, or by the next switch.
        let settled = match entry.cause {
            Some(Cause::DidNotBoot) => site.booted,
            Some(Cause::Superseded) => site.changed,
            Some(_) | None => 0,
        };
        if settled > known {
            (entry.outcome, entry.cause) = (Some(Outcome::Staged), None);
        }
        (began <= known).then_some((entry, began, ended.filter(|ended| *ended <= known)))
    })
}

fn attach(start: &Start<'_>, known: Ms, id: &deciding::model::journal::SwitchId) -> Result<(), String> {
    let Some((entry, _, ended)) = known_entries(start.site, known).find(|(entry, ..)| entry.id == *id) else {
        return Err("is attached to for a switch that it does not know".into());
    };
    if !entry.asker.starts_with(CONTROLLER) {
        return Err(format!("has a switch of {}, which is none of ours to judge", entry.asker));
    }
    match ended {
        Some(_) => Err("is attached to for a switch that is known to have ended".into()),
        None => Ok(()),
    }
}

fn room(start: &Start<'_>) -> Result<(), String> {
    let limit = usize::try_from(start.release.rollout.max_in_flight).unwrap_or(usize::MAX);
    if start.acting > limit { Err(format!("is one too many: {} of {limit}", start.acting)) } else { Ok(()) }
}

/// Limits, builds, suspension, and what has been tried.
fn deploy(
    start: &Start<'_>,
    book: &Book,
    known: Ms,
    (toplevel, purpose): (&StorePath, Purpose),
) -> Result<(), String> {
    let release = start.release;
    room(start)?;
    let Some(node) = release.nodes.get(&start.site.name) else { return Err("is not in the release".into()) };
    let last = known_entries(start.site, known).find(|(entry, ..)| entry.outcome == Some(Outcome::Succeeded));
    if purpose == Purpose::TakeBack {
        if last.is_none_or(|(entry, ..)| entry.previous != *toplevel || !entry.asker.starts_with(CONTROLLER))
        {
            return Err("is taken back to what it did not run before".into());
        }
    } else {
        let wanted = wanted(release, node);
        if wanted != Some(toplevel) {
            return Err(format!("should run {wanted:?}"));
        }
        if !start.built.contains(toplevel) {
            return Err("gets a system that was never built".into());
        }
        if purpose == Purpose::Heal && last.is_none_or(|(entry, ..)| entry.system != *toplevel) {
            return Err("is not healed, but gets something new".into());
        }
    }
    if node.spec.as_ref().is_some_and(|spec| start.fleet.is_suspended(&start.site.name, spec)) {
        return Err("is suspended".into());
    }
    let row: Vec<_> = known_entries(start.site, known)
        .filter(|(entry, _, ended)| entry.system == *toplevel && ended.is_some())
        .take_while(|(entry, ..)| {
            let over = matches!(entry.outcome, Some(Outcome::Succeeded | Outcome::Staged));
            let forgiven = start.site.forgiven.get(&entry.id).is_some_and(|at| *at <= known);
            !over && !forgiven
        })
        .collect();
    if let Some((entry, ..)) = row.first()
        && is_final(entry)
    {
        return Err(format!("failed with this system for good: {:?} {:?}", entry.outcome, entry.cause));
    }
    backoff(start, book, toplevel, &row)
}

/// In other words than the plan's: 30 s, 60 s, 120 s, ... 3600 s after the newest of the failures.
fn backoff(
    start: &Start<'_>,
    book: &Book,
    toplevel: &StorePath,
    row: &[(Entry, Ms, Option<Ms>)],
) -> Result<(), String> {
    // A switch that went down with its machine has no end in the journal.
    let of_switches = row
        .iter()
        .filter(|(entry, ..)| !is_final(entry))
        .map(|(entry, began, ended)| if entry.finished.is_some() { ended.unwrap_or(*began) } else { *began });
    let attempts = book.attempts.as_ref().filter(|(of, ..)| of == toplevel);
    let count = of_switches.clone().count() + attempts.map_or(0, |(_, failures, _)| *failures as usize);
    let Some(last) = of_switches.chain(attempts.map(|(.., last)| *last)).max() else { return Ok(()) };
    let wait = (1..count).fold(30 * SECOND, |wait, _| (2 * wait).min(HOUR));
    // A clock that is off by less than this is taken as right.
    let slack = if start.site.machine.ahead.as_secs().abs() <= 30 { 21 * SECOND } else { SECOND };
    if start.now + slack < last + wait {
        let waited = (start.now.saturating_sub(last)) / SECOND;
        return Err(format!("is tried after {waited} s, not {} s ({count} failures)", wait / SECOND));
    }
    Ok(())
}

/// What the node is, and what people want with it.
fn on_node(
    start: &Start<'_>,
    (known, found): (Ms, Ms),
    (toplevel, goal, purpose): (&StorePath, Goal, Purpose),
) -> Result<(), String> {
    let Start { site, now, release, .. } = start;
    if let Some((entry, ..)) = known_entries(site, known).find(|(.., ended)| ended.is_none())
        && site.machine.live.as_ref().is_some_and(|live| live.id == entry.id)
    {
        return Err(format!("is in the middle of {}", entry.id));
    }
    if site.changed <= known && is_installed(site, toplevel, goal) {
        return Err("is what it should be already".into());
    }
    if purpose == Purpose::Proof {
        let once = known_entries(site, known)
            .any(|(entry, ..)| entry.system == *toplevel && entry.outcome == Some(Outcome::Staged));
        return if once { Ok(()) } else { Err("is to prove what it was never booted into".into()) };
    }
    if let Some(pin) = site.machine.pin.as_ref().filter(|_| site.pinned <= known) {
        let held = match &pin.until {
            PinEnd::NextRelease(of) => of == toplevel,
            PinEnd::At(end) => start.clocks_are_right && site.machine.ahead.is_zero() && time_of(*now) < *end,
        };
        if held {
            return Err(format!("is pinned until {:?}", pin.until));
        }
    }
    let Some(taken) = site.taken.filter(|taken| *taken <= known) else { return Ok(()) };
    let mut succeeded =
        known_entries(site, known).filter(|(entry, ..)| entry.outcome == Some(Outcome::Succeeded));
    let healed = succeeded.next().is_some_and(|(entry, ..)| entry.system == *toplevel);
    let half =
        site.machine.entries.last().is_some_and(|entry| {
            entry.outcome == Some(Outcome::Interrupted) && entry.phase == Phase::Committing
        });
    let spec = release.nodes.get(&site.name).and_then(|node| node.spec.as_ref());
    if !healed || half || site.machine.waits_for().is_some() {
        return Ok(());
    }
    if spec.is_some_and(|spec| spec.on_drift == OnDrift::Report) {
        return Err("was changed by hand, and such drift is only reported".into());
    }
    let delay = Ms::try_from(release.rollout.heal_after.as_millis()).unwrap_or(0);
    if start.now < found.max(taken) + delay && found >= taken {
        return Err(format!("is healed {} s after it was changed by hand", (start.now - taken) / SECOND));
    }
    Ok(())
}

/// Whether a switch failed in a way that would repeat itself.
pub fn is_final(entry: &Entry) -> bool {
    match entry.outcome {
        Some(Outcome::RolledBack) => entry.cause.is_none_or(|cause| cause.is_deterministic()),
        Some(Outcome::RollbackFailed | Outcome::CommitFailed) => true,
        Some(Outcome::Succeeded | Outcome::Staged | Outcome::Interfered | Outcome::Interrupted) | None => {
            false
        }
    }
}

pub fn is_installed(site: &Site, toplevel: &StorePath, goal: Goal) -> bool {
    let machine = &site.machine;
    is_there(toplevel, goal, (&machine.running, machine.boot_default.as_ref(), machine.waits_for()))
}

/// Whether a node that runs, boots and once boots these is what its goal wants.
pub fn is_there(
    toplevel: &StorePath,
    goal: Goal,
    (running, boots, once): (&StorePath, Option<&StorePath>, Option<&StorePath>),
) -> bool {
    let runs = running == toplevel;
    let boots = boots == Some(toplevel) && once.is_none_or(|system| system == toplevel);
    match goal {
        Goal::Switch => runs && boots,
        Goal::Boot => boots,
        Goal::Test => runs,
    }
}

/// What a node should run by a release: its own system, as soon as that is built and nobody else's is waited for.
pub fn wanted<'a>(release: &'a Release, node: &'a NodeRelease) -> Option<&'a StorePath> {
    let whole = release.nodes.values().all(|node| node.progress == Progress::Built);
    if node.progress == Progress::Built && (whole || !release.rollout.require_all) {
        return node.spec.as_ref().map(|spec| &spec.toplevel);
    }
    node.last_good.as_ref()
}
