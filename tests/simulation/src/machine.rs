//! One node: what runs on it, its journal, and its own switch, as `src/node/switch.sh` does it. It decides its own survival
//! here as there: without contact or verdict it goes back by itself.

use deciding::model::journal::{Cause, Entry, Forgiven, Outcome, Phase, Pin, SwitchId};
use deciding::model::node::Goal;
use deciding::model::observed::{BootId, KernelPair, NodeState, RebootOrder};
use deciding::model::store_path::StorePath;
use jiff::{SignedDuration, Timestamp};

use crate::chance::Chance;
use crate::systems::{Fate, Systems};
use crate::time::{MINUTE, Ms, SECOND, time_of};

/// The newest switches are kept.
const KEEP: usize = 20;
/// The deadlines of every switch.
pub const CONTACT: Ms = MINUTE;
pub const HEALTH: Ms = MINUTE;

/// Whether a machine runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Power {
    On,
    Booting,
    /// For good.
    Dead,
}

/// A system that the boot loader starts once.
#[derive(Debug, Clone)]
struct Staged {
    id: SwitchId,
    system: StorePath,
    boot: u64,
    booted: bool,
}

/// The switch that runs.
#[derive(Debug, Clone)]
pub struct Live {
    pub id: SwitchId,
    goal: Goal,
    fate: Fate,
    proving: bool,
    default_before: Option<StorePath>,
    contact: bool,
    verdict: Option<bool>,
    /// What it ends with, once it goes back.
    ending: Option<(Outcome, Cause)>,
    /// Numbers its steps, so that a deadline that was met is told from one that was not.
    pub step: u64,
    /// A mishap in the middle of its activation.
    pub mishap: Option<Cause>,
    to_be_booted: ToBeBooted,
}

/// What a switch is started with.
#[derive(Debug, Clone)]
pub struct Order {
    pub id: SwitchId,
    pub system: StorePath,
    pub expected: StorePath,
    pub goal: Goal,
    pub asker: String,
    pub revision: String,
    pub fate: Fate,
    pub mishap: Option<Cause>,
    /// Only a boot brings its kernel, and whoever asks may reboot the node.
    pub to_be_booted: ToBeBooted,
}

/// Whether a system that only a boot can start is booted once instead of being refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ToBeBooted {
    /// Nobody would reboot the node.
    No,
    /// Where its fate says that a reboot is needed.
    WhereNeeded,
    /// It brings another kernel.
    Yes,
}

#[derive(Debug)]
pub struct Machine {
    number: usize,
    pub power: Power,
    boots: u64,
    pub running: StorePath,
    pub boot_default: Option<StorePath>,
    pub booted: StorePath,
    staged: Option<Staged>,
    pub entries: Vec<Entry>,
    pub live: Option<Live>,
    /// Its clock, beside the right one.
    pub ahead: SignedDuration,
    pub pin: Option<Pin>,
    pub failed_units: Vec<String>,
    /// Those that had failed before its newest switch.
    baseline: Vec<String>,
    /// The last order to reboot.
    pub reboot: Option<RebootOrder>,
}

/// Why a node refuses to start a switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    Busy,
    Changed,
}

impl Machine {
    pub fn new(number: usize, running: StorePath, ahead: SignedDuration) -> Self {
        Self {
            number,
            power: Power::On,
            boots: 1,
            boot_default: Some(running.clone()),
            booted: running.clone(),
            running,
            staged: None,
            entries: Vec::new(),
            live: None,
            ahead,
            pin: None,
            failed_units: Vec::new(),
            baseline: Vec::new(),
            reboot: None,
        }
    }

    fn clock(&self, now: Ms) -> Timestamp {
        time_of(now).saturating_add(self.ahead).unwrap_or(time_of(now))
    }

    /// The journal as a read finds it.
    pub fn journal(&self) -> Vec<Entry> {
        let mut entries = self.entries.clone();
        if let Some(staged) =
            self.staged.as_ref().filter(|staged| !staged.booted && staged.boot != self.boots)
            && self.booted != staged.system
        {
            settle(&mut entries, &staged.id, Cause::DidNotBoot);
        }
        entries
    }

    /// What a read finds.
    pub fn state(&self, now: Ms, systems: &Systems) -> NodeState {
        let kernel = |system: &StorePath| vec![format!("linux-{}", systems.kernel(system))];
        NodeState {
            boot_id: boot_id(self.number, self.boots),
            machine_id: None,
            clock: Some(self.clock(now)),
            uptime: now / SECOND,
            running: self.running.clone(),
            boot_default: self.boot_default.clone(),
            staged: self.waits_for().cloned(),
            booted: Some(self.booted.clone()),
            generation: None,
            kernel: KernelPair { booted: kernel(&self.booted), running: kernel(&self.running) },
            failed_units: self.failed_units.clone(),
            baseline: self.baseline.clone(),
            nix_version: None,
            free_nix: None,
            free_boot: None,
            journal: self.journal().into(),
            pin: self.pin.clone(),
            reboot: self.reboot.clone(),
            suspended: Vec::new(),
        }
    }

    /// The system that the next boot starts once.
    pub fn waits_for(&self) -> Option<&StorePath> {
        self.staged.as_ref().filter(|staged| staged.boot == self.boots).map(|staged| &staged.system)
    }

    pub fn entry(&self, id: &SwitchId) -> Option<&Entry> {
        self.entries.iter().rev().find(|entry| entry.id == *id)
    }

    fn entry_mut(&mut self, id: &SwitchId) -> Option<&mut Entry> {
        self.entries.iter_mut().rev().find(|entry| entry.id == *id)
    }

    fn proves(&self, system: &StorePath) -> bool {
        self.staged.as_ref().is_some_and(|staged| staged.system == *system && staged.boot != self.boots)
            && self.running == *system
            && self.booted == *system
            && self.boot_default.as_ref().is_some_and(|default| default != system)
    }

    /// Starts a switch, compare and set. Returns when its next step is due.
    pub fn start(&mut self, order: Order, now: Ms) -> Result<Ms, Refusal> {
        if self.live.is_some() {
            return Err(Refusal::Busy);
        }
        self.end_former();
        if self.running != order.expected {
            return Err(Refusal::Changed);
        }
        let proving = self.proves(&order.system);
        self.settle_staged(proving);
        let previous = match &self.boot_default {
            Some(default) if proving => default.clone(),
            Some(_) | None => self.running.clone(),
        };
        let Order { id, system, goal, asker, revision, fate, mishap, to_be_booted, .. } = order;
        self.baseline.clone_from(&self.failed_units);
        self.entries.push(Entry {
            id: id.clone(),
            system,
            previous,
            phase: Phase::Checking,
            outcome: None,
            cause: None,
            started: self.clock(now),
            finished: None,
            revision,
            asker,
            forgiven: Forgiven::No,
            detail: String::new(),
        });
        let surplus = self.entries.len().saturating_sub(KEEP);
        self.entries.drain(..surplus);
        self.live = Some(Live {
            id,
            goal,
            fate,
            proving,
            default_before: self.boot_default.clone(),
            contact: false,
            verdict: None,
            ending: None,
            step: 0,
            mishap,
            to_be_booted,
        });
        Ok(SECOND)
    }

    /// A switch that went down with the machine in the middle of its commit is mended before another one begins.
    fn end_former(&mut self) {
        let Some(former) = self.entries.last() else { return };
        if former.outcome == Some(Outcome::Interrupted) && former.phase == Phase::Committing {
            let target = if self.running == former.system { &former.system } else { &former.previous };
            self.boot_default = Some(target.clone());
        }
        if let Some(former) = self.entries.last_mut() {
            former.phase = Phase::Finished;
        }
    }

    fn settle_staged(&mut self, proving: bool) {
        let Some(staged) = self.staged.clone() else { return };
        if staged.boot == self.boots {
            settle(&mut self.entries, &staged.id, Cause::Superseded);
        } else if !staged.booted && self.booted != staged.system {
            settle(&mut self.entries, &staged.id, Cause::DidNotBoot);
        }
        self.staged = if proving { Some(Staged { booted: true, ..staged }) } else { None };
    }

    /// The next step of the live switch is due. Returns when the one after it is.
    pub fn step(&mut self, now: Ms, chance: &mut Chance) -> Option<Ms> {
        let mut live = self.live.take()?;
        live.step += 1;
        let entry = self.entry(&live.id)?.clone();
        let next = self.advance(&mut live, &entry, now, chance);
        if next.is_some() {
            self.live = Some(live);
        }
        next
    }

    fn advance(&mut self, live: &mut Live, entry: &Entry, now: Ms, chance: &mut Chance) -> Option<Ms> {
        match entry.phase {
            Phase::Checking => self.checked(live, entry, now, chance),
            Phase::Staging => {
                if live.fate.is(Cause::Commit) {
                    return self.finish(live, Outcome::CommitFailed, Some(Cause::Commit), now);
                }
                let (id, system) = (live.id.clone(), entry.system.clone());
                self.staged = Some(Staged { id, system, boot: self.boots, booted: false });
                self.finish(live, Outcome::Staged, None, now)
            }
            Phase::Testing => match live.mishap.or(live.fate.in_testing()) {
                Some(cause) => self.roll_back(live, entry, cause, now, chance),
                None => self.enter(live, Phase::Contact, CONTACT),
            },
            Phase::Contact if live.contact => self.enter(live, Phase::Health, HEALTH),
            Phase::Contact => self.roll_back(live, entry, Cause::Contact, now, chance),
            Phase::Health => match live.verdict {
                Some(true) if live.goal == Goal::Test => match self.runs(&entry.system) {
                    true => self.finish(live, Outcome::Succeeded, None, now),
                    false => self.finish(live, Outcome::Interfered, Some(Cause::Foreign), now),
                },
                Some(true) => self.commit(live, entry, now, chance),
                Some(false) => self.roll_back(live, entry, Cause::Rejected, now, chance),
                None => self.roll_back(live, entry, Cause::Silence, now, chance),
            },
            Phase::Committing if live.fate.is(Cause::Commit) => {
                self.boot_default.clone_from(&live.default_before);
                live.ending = Some((Outcome::CommitFailed, Cause::Commit));
                self.roll_back(live, entry, Cause::Commit, now, chance)
            }
            Phase::Committing => {
                self.boot_default = Some(entry.system.clone());
                self.staged = None;
                self.finish(live, Outcome::Succeeded, None, now)
            }
            Phase::RollingBack => {
                let (outcome, cause) = live.ending.unwrap_or((Outcome::RolledBack, Cause::Killed));
                if !self.runs(&entry.system) && !self.runs(&entry.previous) {
                    return self.finish(live, Outcome::Interfered, Some(Cause::Foreign), now);
                }
                self.running = entry.previous.clone();
                self.finish(live, outcome, Some(cause), now)
            }
            Phase::Finished => None,
        }
    }

    fn checked(&mut self, live: &mut Live, entry: &Entry, now: Ms, chance: &mut Chance) -> Option<Ms> {
        if live.goal == Goal::Boot && !live.proving {
            if self.boot_default.as_ref() == Some(&entry.system) {
                return self.enter(live, Phase::Committing, 2 * SECOND);
            }
            return self.enter(live, Phase::Staging, 4 * SECOND);
        }
        let needs_boot = match live.to_be_booted {
            ToBeBooted::No => false,
            ToBeBooted::WhereNeeded => live.fate.is(Cause::NeedsReboot),
            ToBeBooted::Yes => true,
        };
        if needs_boot && live.goal == Goal::Switch && !live.proving {
            live.goal = Goal::Boot;
            if self.boot_default.as_ref() == Some(&entry.system) {
                return self.enter(live, Phase::Committing, 2 * SECOND);
            }
            return self.enter(live, Phase::Staging, 4 * SECOND);
        }
        // What has booted needs no reboot.
        if let Some(cause) =
            live.fate.in_checking().filter(|cause| !(live.proving && *cause == Cause::NeedsReboot))
        {
            return self.finish(live, Outcome::RolledBack, Some(cause), now);
        }
        self.running = entry.system.clone();
        self.enter(live, Phase::Testing, chance.within(2..20) * SECOND)
    }

    fn commit(&mut self, live: &mut Live, entry: &Entry, now: Ms, chance: &mut Chance) -> Option<Ms> {
        if (live.goal == Goal::Switch || live.proving) && !self.runs(&entry.system) {
            return self.finish(live, Outcome::Interfered, Some(Cause::Foreign), now);
        }
        self.enter(live, Phase::Committing, chance.within(1..4) * SECOND)
    }

    fn runs(&self, system: &StorePath) -> bool {
        self.running == *system
    }

    fn enter(&mut self, live: &Live, phase: Phase, lasts: Ms) -> Option<Ms> {
        self.entry_mut(&live.id)?.phase = phase;
        Some(lasts)
    }

    fn roll_back(
        &mut self,
        live: &mut Live,
        entry: &Entry,
        cause: Cause,
        now: Ms,
        chance: &mut Chance,
    ) -> Option<Ms> {
        if !self.runs(&entry.system) && !self.runs(&entry.previous) {
            return self.finish(live, Outcome::Interfered, Some(Cause::Foreign), now);
        }
        live.ending = live.ending.or(Some((Outcome::RolledBack, cause)));
        if live.proving {
            // What was booted once is left by a reboot, or goes on running where nobody said a word.
            let (outcome, cause) = live.ending?;
            let gone = self.finish(live, outcome, Some(cause), now);
            if cause.is_deterministic() {
                self.reboot();
            }
            return gone;
        }
        self.enter(live, Phase::RollingBack, chance.within(2..8) * SECOND)
    }

    fn finish(&mut self, live: &Live, outcome: Outcome, cause: Option<Cause>, now: Ms) -> Option<Ms> {
        let clock = self.clock(now);
        let entry = self.entry_mut(&live.id)?;
        (entry.outcome, entry.cause, entry.finished) = (Some(outcome), cause, Some(clock));
        entry.phase = Phase::Finished;
        None
    }

    /// A new login with the nonce of the switch: whether it moved the switch on.
    pub fn contact(&mut self, id: &SwitchId) -> bool {
        let phase = self.entry(id).map(|entry| entry.phase);
        match &mut self.live {
            Some(live) if live.id == *id && phase == Some(Phase::Contact) && !live.contact => {
                live.contact = true;
                live.step += 1;
                true
            }
            Some(_) | None => false,
        }
    }

    /// The verdict: whether it was the first.
    pub fn verdict(&mut self, id: &SwitchId, well: bool) -> bool {
        let phase = self.entry(id).map(|entry| entry.phase);
        match &mut self.live {
            Some(live) if live.id == *id && phase == Some(Phase::Health) && live.verdict.is_none() => {
                live.verdict = Some(well);
                live.step += 1;
                true
            }
            Some(_) | None => false,
        }
    }

    /// The watcher of the live switch is killed; its guard ends what it had begun.
    pub fn kill_watcher(&mut self, now: Ms, chance: &mut Chance) -> Option<Ms> {
        let mut live = self.live.take()?;
        let entry = self.entry(&live.id)?.clone();
        live.step += 1;
        let next = match entry.phase {
            Phase::Checking | Phase::Staging => {
                self.finish(&live, Outcome::RolledBack, Some(Cause::Killed), now)
            }
            Phase::Testing | Phase::Contact | Phase::Health => {
                self.roll_back(&mut live, &entry, Cause::Killed, now, chance)
            }
            Phase::Committing | Phase::RollingBack => Some(SECOND),
            Phase::Finished => None,
        };
        if next.is_some() {
            self.live = Some(live);
        }
        next
    }

    /// The machine goes down; what it comes up with is what its boot loader says.
    pub fn reboot(&mut self) {
        if let Some(live) = self.live.take()
            && let Some(entry) = self.entry_mut(&live.id)
        {
            (entry.outcome, entry.cause) = (Some(Outcome::Interrupted), Some(Cause::Killed));
        }
        self.power = Power::Booting;
    }

    /// It is up again.
    pub fn boot(&mut self, chance: &mut Chance) {
        let staged = self.staged.as_ref().filter(|staged| staged.boot == self.boots);
        let once = staged.map(|staged| staged.system.clone()).filter(|_| chance.happens(900));
        self.boots += 1;
        self.running = once.or_else(|| self.boot_default.clone()).unwrap_or_else(|| self.running.clone());
        self.booted = self.running.clone();
        self.power = Power::On;
    }

    /// A person runs nixos-rebuild.
    pub fn rebuild(&mut self, system: &StorePath, persists: bool) {
        self.running = system.clone();
        if persists {
            self.boot_default = Some(system.clone());
        }
    }

    /// A controller says so: out of this boot, into this system. Whether the order was taken.
    pub fn order_reboot(&mut self, boot: &BootId, toplevel: &StorePath, now: Ms) -> bool {
        if *boot != boot_id(self.number, self.boots) || self.live.is_some() {
            return false;
        }
        let (boot, toplevel, at) = (boot.clone(), toplevel.clone(), self.clock(now));
        self.reboot = Some(RebootOrder { boot, toplevel, at });
        true
    }

    pub fn boot_id(&self) -> BootId {
        boot_id(self.number, self.boots)
    }

    /// `driftless retry`.
    pub fn forgive(&mut self) {
        self.reboot = None;
        self.entries.iter_mut().for_each(|entry| entry.forgiven = Forgiven::Yes);
    }
}

/// What waited for a reboot came to nothing.
fn settle(entries: &mut [Entry], id: &SwitchId, cause: Cause) {
    if let Some(entry) = entries.iter_mut().find(|entry| entry.id == *id)
        && entry.outcome == Some(Outcome::Staged)
    {
        (entry.outcome, entry.cause) = (Some(Outcome::RolledBack), Some(cause));
    }
}

fn boot_id(number: usize, boots: u64) -> BootId {
    format!("{number:08x}-0000-4000-8000-{boots:012x}").parse().unwrap()
}
