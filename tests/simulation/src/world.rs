//! The world of one schedule: nodes, the repository, the controller's host, people, and what goes wrong. Events happen in the
//! order of their time; the controller's orders are carried out as the real one's tasks do it.

mod branch;
mod host;
mod nodes;
mod people;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use deciding::model::decision::{Action, Decision, Hold};
use deciding::model::hook::HookPolicy;
use deciding::model::intent::{Intent, PlanHash};
use deciding::model::journal::{Cause, PIN_FOR, Pin, PinEnd, SwitchId};
use deciding::model::name::NodeName;
use deciding::model::observed::Begun;
use deciding::model::release::{Progress, Release};
use deciding::model::store_path::StorePath;
use deciding::reconcile::lookout::Sight;
use deciding::reconcile::{Left, Reconciler, Settings};
use jiff::SignedDuration;
use std::time::Duration;

use crate::chance::Chance;
use crate::gate::Fleet;
use crate::judge::{Judge, Start};
use crate::machine::{Machine, Order, Power, ToBeBooted};
use crate::repository::{Quality, Repository, Step, first_commit, name_of, next_commit};
use crate::rest::Rest;
use crate::shell::{Act, News};
use crate::systems::{Fate, Systems};
use crate::time::{DAY, MINUTE, Ms, SECOND, moment, ms_of, time_of};
use crate::trace::Trace;

/// No schedule has more events; one that does never comes to rest.
const MOST_EVENTS: usize = 60_000;

/// Something that happens at its time.
#[derive(Debug)]
pub enum Event {
    Wake,
    /// A read reaches its node.
    Read {
        life: u32,
        node: usize,
        number: u64,
    },
    /// What it found comes back.
    Seen {
        life: u32,
        node: usize,
        number: u64,
        sight: Box<Sight>,
        sampled: Option<Ms>,
    },
    /// The next step of an action.
    Act {
        life: u32,
        node: usize,
        number: u64,
    },
    /// The next step of a switch on its node.
    Switch {
        node: usize,
        id: SwitchId,
        step: u64,
    },
    Boot {
        node: usize,
    },
    LinkUp {
        node: usize,
    },
    Fetch {
        life: u32,
    },
    Prepared {
        life: u32,
        number: u64,
        node: usize,
        step: Step,
    },
    PrepareAgain {
        life: u32,
        number: u64,
    },
    Up,
    Chaos,
    Calm,
}

/// A node, and the link to it.
#[derive(Debug)]
pub struct Site {
    pub name: NodeName,
    pub machine: Machine,
    pub link: Link,
    /// When what runs or boots there changed last.
    pub changed: Ms,
    /// When each switch of its journal began and ended, by the right clock.
    pub times: BTreeMap<SwitchId, (Ms, Option<Ms>)>,
    /// Since when it is not what was installed last because a person took it away.
    pub taken: Option<Ms>,
    pub pinned: Ms,
    pub booted: Ms,
    /// Since when each switch counts no more.
    pub forgiven: BTreeMap<SwitchId, Ms>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    Up,
    Down,
    /// For good.
    Cut,
}

impl Site {
    pub fn answers(&self) -> bool {
        self.link == Link::Up && self.machine.power == Power::On
    }
}

/// One life of the controller: all that a crash takes with it.
#[derive(Debug)]
pub struct Controller {
    pub life: u32,
    pub reconciler: Reconciler,
    pub release: Option<Release>,
    pub inbox: Vec<News>,
    pub reads: BTreeMap<usize, u64>,
    pub acts: BTreeMap<usize, Act>,
    preparing: u64,
    head: usize,
    left: usize,
    wake_at: Ms,
    rested: Ms,
    kept: Ms,
    /// When its plan could be another one without anything else happening.
    boundary: Option<Ms>,
    pub words: Vec<&'static str>,
    /// What waits for a person's approval.
    pub asked: BTreeMap<String, PlanHash>,
}

/// What a schedule is like.
#[derive(Debug, Clone, Copy)]
pub struct Manner {
    pub interval: Ms,
    pub loss: u64,
    pub trouble: Ms,
    pub calm_at: Ms,
    pub quality: Quality,
    pub jumps: bool,
    pub people: u64,
    pub crashes: u64,
}

#[derive(Debug)]
pub struct World {
    pub chance: Chance,
    pub now: Ms,
    /// By how much the wall clock of the controller's host is ahead.
    pub ahead: SignedDuration,
    pub jumped: bool,
    queue: BTreeMap<(Ms, u64), Event>,
    wakes: usize,
    number: u64,
    pub sites: Vec<Site>,
    pub repository: Repository,
    pub systems: Systems,
    pub controller: Option<Controller>,
    lives: u32,
    disk: Option<(Release, BTreeMap<NodeName, Begun>)>,
    pub intent: Intent,
    pub calm: bool,
    quiet_rounds: u32,
    /// When somebody approved something last.
    approved: Ms,
    pub manner: Manner,
    pub judge: Judge,
    pub trace: Trace,
    pub passes: u64,
    pub starts: u64,
}

impl World {
    pub fn new(seed: u64, trace: Trace) -> Self {
        let mut chance = Chance::of(seed);
        let nodes = usize::try_from(chance.within(3..8)).unwrap_or(3);
        let quality = Quality::of(&mut chance);
        let manner = Manner {
            interval: chance.pick(&[60, 60, 120]) * SECOND,
            loss: chance.pick(&[0, 0, 20, 100]),
            trouble: chance.pick(&[3, 8, 20]) * SECOND,
            calm_at: chance.within(80..300) * SECOND,
            quality,
            jumps: chance.happens(150),
            people: chance.pick(&[0, 1, 3]),
            crashes: chance.pick(&[0, 1, 3]),
        };
        let mut systems = Systems::default();
        let first = first_commit(&mut chance, nodes, quality, &mut systems);
        let sites = (0..nodes)
            .map(|node| {
                let running = systems.add(node, Fate::Works, 0);
                let ahead = chance.pick(&[0, 0, 0, 0, 20, -20, 7200, -1_500_000_000]);
                let machine = Machine::new(node, running, SignedDuration::from_secs(ahead));
                let (name, link, times) = (name_of(node), Link::Up, BTreeMap::new());
                Site {
                    name,
                    machine,
                    link,
                    changed: 0,
                    times,
                    taken: None,
                    pinned: 0,
                    booted: 0,
                    forgiven: BTreeMap::new(),
                }
            })
            .collect();
        let mut world = Self {
            chance,
            now: 0,
            ahead: SignedDuration::ZERO,
            jumped: false,
            queue: BTreeMap::new(),
            wakes: 0,
            number: 0,
            sites,
            repository: Repository::new(first),
            systems,
            controller: None,
            lives: 0,
            disk: None,
            intent: Intent::default(),
            calm: false,
            quiet_rounds: 0,
            approved: 0,
            manner,
            judge: Judge::default(),
            trace,
            passes: 0,
            starts: 0,
        };
        world.at(0, Event::Up);
        world.at(manner.calm_at, Event::Calm);
        world.at(10 * SECOND, Event::Chaos);
        world
    }

    pub fn at(&mut self, time: Ms, event: Event) {
        self.number += 1;
        self.wakes += usize::from(matches!(event, Event::Wake));
        self.queue.insert((time, self.number), event);
    }

    pub fn soon(&mut self, after: Ms, event: Event) {
        self.at(self.now + after, event);
    }

    pub fn next_number(&mut self) -> u64 {
        self.number += 1;
        self.number
    }

    /// Runs to the end: every fault over and nothing left to do.
    pub fn run(&mut self) -> Result<(), String> {
        let mut events = 0;
        while let Some(((time, _), event)) = self.queue.pop_first() {
            events += 1;
            if events > MOST_EVENTS {
                let (words, next) = (self.words(), self.queue.iter().next());
                return Err(format!("no rest after {events} events, {words}; next is {next:?}"));
            }
            self.now = time;
            self.wakes -= usize::from(matches!(event, Event::Wake));
            self.happen(event);
            if let Some(violation) = self.judge.violation.take() {
                return Err(violation);
            }
            // Calendars go round for ever: what does not fit into one week fits into no other.
            if self.quiet_rounds >= 2 || self.now > self.manner.calm_at + 15 * DAY && self.is_idle() {
                return self.at_rest();
            }
        }
        Err("nothing happens any more, and the controller is not at rest".into())
    }

    /// Whether nothing is under way, and nothing but a calendar would change that.
    fn is_idle(&self) -> bool {
        let passing = [
            "act",
            "in-flight",
            "soak",
            "backoff",
            "heal-delay",
            "busy",
            "rebooting",
            "building",
            "evaluating",
        ];
        let nothing = |controller: &Controller| {
            let still = !controller.words.iter().any(|word| passing.contains(word));
            let calm =
                controller.acts.is_empty() && controller.reads.is_empty() && controller.inbox.is_empty();
            still && calm && controller.wake_at > self.now + SECOND && self.now > self.approved + MINUTE
        };
        let live = self.sites.iter().any(|site| site.machine.live.is_some());
        self.controller.as_ref().is_some_and(nothing) && !live
    }

    fn words(&self) -> String {
        self.controller.as_ref().map_or("no controller".into(), |controller| controller.words.join(" "))
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Wake => self.wake(),
            Event::Read { life, node, number } => self.read(life, node, number),
            Event::Seen { life, node, number, sight, sampled } => {
                self.seen(life, node, number, *sight, sampled)
            }
            Event::Act { life, node, number } => self.act(life, node, number),
            Event::Switch { node, id, step } => self.switch(node, &id, step),
            Event::Boot { node } => self.boot(node),
            Event::LinkUp { node } => {
                if self.sites[node].link == Link::Down {
                    self.sites[node].link = Link::Up;
                    self.tell(node, || "the link is up again".into());
                }
            }
            Event::Fetch { life } => self.fetch(life),
            Event::Prepared { life, number, node, step } => self.prepared(life, number, node, step),
            Event::PrepareAgain { life, number } => self.prepare_again(life, number),
            Event::Up => self.up(),
            Event::Chaos => {
                if !self.calm {
                    self.trouble();
                    let pause = self.chance.within(1..2 * self.manner.trouble);
                    self.soon(pause, Event::Chaos);
                }
            }
            Event::Calm => self.calm(),
        }
    }

    pub fn tell(&mut self, node: usize, said: impl FnOnce() -> String) {
        let (now, name) = (self.now, &self.sites[node].name);
        self.trace.tell(now, Some(name), said);
    }
}
