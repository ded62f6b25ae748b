//! The hands of the controller: reads of nodes and actions on them, as `src/controller` and `src/node` carry them out. They
//! run over links that break, and end with the controller.

use deciding::model::action::{Action, Purpose};
use deciding::model::journal::{Phase, SwitchId};
use deciding::model::node::Goal;
use deciding::model::observed::{AttemptKind, BootId, Stage};
use deciding::model::release::Release;
use deciding::model::store_path::StorePath;
use deciding::plan::CONTROLLER;
use deciding::reconcile::actions::{Ended, Failed};
use deciding::reconcile::lookout::Sight;

use crate::machine::{Order, ToBeBooted};
use crate::time::{Ms, SECOND};
use crate::world::{Controller, Event, World};

/// How often a switch is asked how far it is.
const POLL: Ms = 2 * SECOND;
/// How long a node is looked for that may have started a switch.
const START: Ms = 90 * SECOND;
/// How long a silent node is knocked at in the middle of its switch.
const PATIENCE: Ms = 100 * SECOND;

/// How long a node may take to boot, `reboot.timeout`.
const REBOOT: Ms = 600 * SECOND;

fn asker(purpose: Purpose) -> String {
    match purpose {
        Purpose::Proof | Purpose::Heal | Purpose::Release => CONTROLLER.to_owned(),
        Purpose::TakeBack => format!("{CONTROLLER} (taking the release back)"),
    }
}

/// What a task hands in.
#[derive(Debug)]
pub enum News {
    Observed { node: usize, sight: Box<Sight>, sampled: Option<Ms> },
    Ended { node: usize, ended: Box<Ended>, sampled: Option<Ms> },
}

impl News {
    pub fn take_in(self, controller: &mut Controller) {
        match self {
            Self::Observed { node, sight, .. } => {
                controller.reconciler.looked(&crate::repository::name_of(node), *sight);
            }
            Self::Ended { node, ended, .. } => {
                controller.acts.remove(&node);
                controller.reads.remove(&node);
                controller.reconciler.ended(&crate::repository::name_of(node), *ended);
            }
        }
    }
}

/// How far an action is.
#[derive(Debug, Clone)]
pub enum Doing {
    Preparing,
    Copying,
    /// The order was sent, and its answer was lost.
    Asking {
        id: SwitchId,
        since: Ms,
    },
    Following {
        id: SwitchId,
        touched: Ms,
        phase: Phase,
    },
    /// Told so, or about to be.
    Rebooting {
        boot: BootId,
        told: Option<Ms>,
    },
    Looking {
        outcome: Result<(), Failed>,
    },
}

/// One action.
#[derive(Debug, Clone)]
pub struct Act {
    number: u64,
    pub began: Ms,
    toplevel: StorePath,
    expected: Option<StorePath>,
    goal: Goal,
    asker: String,
    revision: String,
    /// What was shown last before it looks.
    last: Stage,
    doing: Doing,
}

impl Act {
    pub fn is_reboot(&self) -> bool {
        self.last == Stage::Rebooting
    }

    pub fn stage(&self) -> Stage {
        match &self.doing {
            Doing::Preparing => Stage::Preparing,
            Doing::Copying => Stage::Copying { bytes: 0, total: 1 },
            Doing::Asking { .. } => Stage::Switching { phase: Phase::Checking, detail: String::new() },
            Doing::Following { phase, .. } => Stage::Switching { phase: *phase, detail: String::new() },
            Doing::Rebooting { .. } => Stage::Rebooting,
            // What went before it was the last that was shown.
            Doing::Looking { .. } => self.last.clone(),
        }
    }
}

impl World {
    // --- reads --------------------------------------------------------------------------------------------------------

    fn is_lost(&mut self) -> bool {
        !self.calm && self.chance.happens(self.manner.loss)
    }

    /// What a read finds now, and whether it finds anything.
    fn sight(&mut self, node: usize) -> (Sight, Option<Ms>) {
        let lost = self.is_lost();
        let way = self.way_to(node);
        let site = &self.sites[node];
        if site.answers() && !lost {
            let state = site.machine.state(self.now, &self.systems);
            return (Sight { way, outcome: Ok(state), aside: None }, Some(self.now));
        }
        (Sight { way, outcome: Err("no route to host".into()), aside: None }, None)
    }

    fn way_to(&self, node: usize) -> deciding::model::way::Way {
        let name = &self.sites[node].name;
        let release = self.controller.as_ref().and_then(|controller| controller.release.as_ref());
        let spec = release.and_then(|release| release.nodes.get(name)?.spec.clone());
        let declared = self.repository.commits.iter().rev().find_map(|commit| commit.nodes.get(name));
        spec.or_else(|| declared.map(|declared| declared.spec.clone())).map_or_else(
            || self.repository.commits[0].nodes.values().next().map(|any| any.spec.way()).expect("a node"),
            |spec| spec.way(),
        )
    }

    pub fn read(&mut self, life: u32, node: usize, number: u64) {
        if !self.is_alive(life) {
            return;
        }
        let (sight, sampled) = self.sight(node);
        let back = match (sampled, self.chance.happens(30)) {
            (None, _) => self.chance.within(3..20) * SECOND,
            (Some(_), true) => self.chance.within(1..18) * SECOND,
            (Some(_), false) => self.chance.within(10..600),
        };
        self.soon(back, Event::Seen { life, node, number, sight: Box::new(sight), sampled });
    }

    pub fn seen(&mut self, life: u32, node: usize, number: u64, sight: Sight, sampled: Option<Ms>) {
        let Some(controller) = self.controller.as_mut().filter(|controller| controller.life == life) else {
            return;
        };
        // One that was given up hands nothing in.
        if controller.reads.get(&node) != Some(&number) {
            return;
        }
        controller.reads.remove(&node);
        self.hand_in(News::Observed { node, sight: Box::new(sight), sampled });
    }

    // --- actions ------------------------------------------------------------------------------------------------------

    pub fn begin(&mut self, controller: &mut Controller, release: &Release, node: usize, action: Action) {
        let number = self.next_number();
        let name = &self.sites[node].name;
        let revision = release.revision_of(name);
        let (life, began) = (controller.life, self.now);
        let act = match action {
            Action::Deploy { toplevel, expected, goal, purpose } => Act {
                number,
                began,
                toplevel,
                expected: Some(expected),
                goal,
                asker: asker(purpose),
                revision,
                last: Stage::Preparing,
                doing: Doing::Preparing,
            },
            Action::Reboot { boot, toplevel } => {
                let (goal, asker) = (Goal::Boot, CONTROLLER.to_owned());
                let doing = Doing::Rebooting { boot, told: None };
                Act {
                    number,
                    began,
                    toplevel,
                    expected: None,
                    goal,
                    asker,
                    revision,
                    last: Stage::Rebooting,
                    doing,
                }
            }
            Action::Attach { id, toplevel } => {
                let doing = Doing::Following { id, touched: self.now, phase: Phase::Checking };
                let (goal, asker) = (Goal::Switch, CONTROLLER.to_owned());
                Act {
                    number,
                    began,
                    toplevel,
                    expected: None,
                    goal,
                    asker,
                    revision,
                    last: Stage::Preparing,
                    doing,
                }
            }
        };
        controller.acts.insert(node, act);
        let after = self.chance.within(200..3 * SECOND);
        self.soon(after, Event::Act { life, node, number });
    }

    /// The next step of an action.
    pub fn act(&mut self, life: u32, node: usize, number: u64) {
        let Some(controller) = self.controller.as_mut().filter(|controller| controller.life == life) else {
            return;
        };
        let Some(act) = controller.acts.get(&node).filter(|act| act.number == number).cloned() else {
            return;
        };
        let (doing, after) = match act.doing.clone() {
            Doing::Preparing => self.prepare_copy(node),
            Doing::Copying => self.send_order(node, &act),
            Doing::Asking { id, since } => self.ask(node, id, since),
            Doing::Following { id, touched, phase } => self.follow(node, id, touched, phase),
            Doing::Rebooting { boot, told } => self.reboot(node, &act.toplevel, boot, told),
            Doing::Looking { outcome } => return self.end(node, act, outcome),
        };
        let show = matches!(doing, Doing::Following { .. } | Doing::Looking { .. });
        if let Some(act) = self.controller.as_mut().and_then(|controller| controller.acts.get_mut(&node)) {
            if !matches!(act.doing, Doing::Looking { .. }) {
                act.last = act.stage();
            }
            act.doing = doing;
        }
        self.soon(after, Event::Act { life, node, number });
        if show {
            self.wake_by(self.now);
        }
    }

    fn failed(&mut self, said: &str, after: Ms) -> (Doing, Ms) {
        let failed = Failed { said: said.to_owned(), kind: AttemptKind::Way };
        (Doing::Looking { outcome: Err(failed) }, after)
    }

    fn prepare_copy(&mut self, node: usize) -> (Doing, Ms) {
        if !self.sites[node].answers() || self.is_lost() {
            return self.failed("cannot connect", 10 * SECOND);
        }
        (Doing::Copying, self.chance.within(500..40 * SECOND))
    }

    /// The copy has ended; the node is asked to switch.
    fn send_order(&mut self, node: usize, act: &Act) -> (Doing, Ms) {
        if !self.sites[node].answers() || self.is_lost() {
            return self.failed("the copy made no progress for 60 s", SECOND);
        }
        let id = self.switch_id();
        let fate = self.systems.fate(&act.toplevel);
        let flaky = fate == crate::systems::Fate::Flaky && !self.calm && self.chance.happens(600);
        let mishap = if flaky { self.mishap() } else { None };
        let order = Order {
            id: id.clone(),
            system: act.toplevel.clone(),
            expected: act.expected.clone().unwrap_or_else(|| act.toplevel.clone()),
            goal: act.goal,
            asker: act.asker.clone(),
            revision: act.revision.clone(),
            fate,
            mishap,
            to_be_booted: self.to_be_booted(node, &act.toplevel),
        };
        let taken = self.start_switch(node, order);
        if self.is_lost() {
            return (Doing::Asking { id, since: self.now }, 3 * SECOND);
        }
        if !taken {
            return self.failed("the node refused to start the switch", SECOND);
        }
        (Doing::Following { id, touched: self.now, phase: Phase::Checking }, SECOND)
    }

    /// Whether the switch asks for a boot, as far as the node's spec lets whoever asks reboot it.
    fn to_be_booted(&self, node: usize, toplevel: &StorePath) -> ToBeBooted {
        let site = &self.sites[node];
        let release = self.controller.as_ref().and_then(|controller| controller.release.as_ref());
        let spec = release.and_then(|release| release.nodes.get(&site.name)?.spec.as_ref());
        if !spec.is_some_and(|spec| deciding::plan::reboots::wanted(spec)) {
            return ToBeBooted::No;
        }
        let other = self.systems.kernel(toplevel) != self.systems.kernel(&site.machine.booted);
        if other { ToBeBooted::Yes } else { ToBeBooted::WhereNeeded }
    }

    /// Told once; then waited for, until it has booted or should have.
    fn reboot(&mut self, node: usize, toplevel: &StorePath, boot: BootId, told: Option<Ms>) -> (Doing, Ms) {
        let reached = self.sites[node].answers() && !self.is_lost();
        let Some(since) = told else {
            let now = self.now;
            if reached && !self.sites[node].machine.order_reboot(&boot, toplevel, now) {
                return self.failed("the node refused to reboot", SECOND);
            }
            if reached {
                self.tell(node, || "is told to reboot".into());
                self.judge.rebooted(&self.sites[node].name, toplevel);
                self.power_cut(node, false);
            }
            return (Doing::Rebooting { boot, told: Some(now) }, POLL);
        };
        let back = reached && self.sites[node].machine.boot_id() != boot;
        if back || self.now > since + REBOOT {
            return (Doing::Looking { outcome: Ok(()) }, SECOND);
        }
        (Doing::Rebooting { boot, told: Some(since) }, POLL)
    }

    fn ask(&mut self, node: usize, id: SwitchId, since: Ms) -> (Doing, Ms) {
        let answers = self.sites[node].answers() && !self.is_lost();
        if answers && self.sites[node].machine.entry(&id).is_some() {
            return (Doing::Following { id, touched: self.now, phase: Phase::Checking }, 500);
        }
        if answers || self.now > since + START {
            return self.failed("the connection broke while the switch was to start", SECOND);
        }
        (Doing::Asking { id, since }, POLL)
    }

    fn follow(&mut self, node: usize, id: SwitchId, touched: Ms, phase: Phase) -> (Doing, Ms) {
        if !self.sites[node].answers() || self.is_lost() {
            if self.now > touched + PATIENCE {
                return self.failed("lost touch with the switch", SECOND);
            }
            return (Doing::Following { id, touched, phase }, POLL);
        }
        let fate = self.fate_of_switch(node, &id);
        let Some(entry) = self.sites[node].machine.entry(&id).cloned() else {
            return self.failed("the node knows nothing of the switch", SECOND);
        };
        if entry.outcome.is_some() {
            return (Doing::Looking { outcome: Ok(()) }, self.chance.within(50..SECOND));
        }
        match entry.phase {
            Phase::Contact if fate.lets_in() => self.contact(node, &id),
            Phase::Health => self.verdict(node, &id, fate.is_healthy()),
            Phase::Contact
            | Phase::Checking
            | Phase::Staging
            | Phase::Testing
            | Phase::Committing
            | Phase::RollingBack
            | Phase::Finished => {}
        }
        (Doing::Following { id, touched: self.now, phase: entry.phase }, POLL)
    }

    fn end(&mut self, node: usize, act: Act, outcome: Result<(), Failed>) {
        let (sight, sampled) = self.sight(node);
        let ended = Ended { toplevel: act.toplevel, outcome, hooks: Ok(()), sight };
        self.hand_in(News::Ended { node, ended: Box::new(ended), sampled });
    }
}
