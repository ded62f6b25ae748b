//! The world of one schedule: nodes, the repository, the controller's host, people, and what goes wrong. Events happen in the
//! order of their time; the controller's orders are carried out as the real one's tasks do it.

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

    // --- the controller's host ---------------------------------------------------------------------------------------

    fn up(&mut self) {
        if self.controller.is_some() {
            return;
        }
        self.lives += 1;
        let life = self.lives;
        let settings =
            Settings { interval: Duration::from_millis(self.manner.interval), hooks: HookPolicy::Refuse };
        let now = moment(self.now, self.ahead);
        let seed = self.chance.number();
        let (mut release, begun) = self.disk.clone().unzip();
        let kept = Left { ways: BTreeMap::new(), begun: begun.unwrap_or_default() };
        for node in release.iter_mut().flat_map(|release| release.nodes.values_mut()) {
            // What was built is still there.
            if node.spec.is_none() && matches!(node.progress, Progress::Built) {
                node.progress = Progress::Evaluating;
            }
        }
        self.trace.tell(self.now, None, || {
            format!(
                "controller {life} begins {}",
                if release.is_some() { "with its memory" } else { "with nothing" }
            )
        });
        self.judge.new_life();
        self.controller = Some(Controller {
            life,
            reconciler: Reconciler::new(settings, kept, now, seed),
            release,
            inbox: Vec::new(),
            reads: BTreeMap::new(),
            acts: BTreeMap::new(),
            preparing: 0,
            head: 0,
            left: 0,
            wake_at: Ms::MAX,
            rested: 0,
            kept: 0,
            boundary: None,
            words: Vec::new(),
            asked: BTreeMap::new(),
        });
        let fetched = self.chance.within(1..5) * SECOND;
        self.soon(fetched, Event::Fetch { life });
        self.wake_by(self.now);
    }

    pub fn is_alive(&self, life: u32) -> bool {
        self.controller.as_ref().is_some_and(|controller| controller.life == life)
    }

    /// The loop is woken; it rests a little after each pass.
    pub fn wake_by(&mut self, time: Ms) {
        let Some(controller) = &mut self.controller else { return };
        let time = time.max(controller.rested).max(self.now + 1);
        if time < controller.wake_at {
            controller.wake_at = time;
            self.at(time, Event::Wake);
        }
    }

    pub fn hand_in(&mut self, news: News) {
        if let Some(controller) = &mut self.controller {
            controller.inbox.push(news);
            self.wake_by(self.now);
        }
    }

    fn wake(&mut self) {
        let Some(mut controller) = self.controller.take_if(|controller| controller.wake_at == self.now)
        else {
            return;
        };
        controller.wake_at = Ms::MAX;
        self.pass(&mut controller);
        self.controller = Some(controller);
        self.sleep();
    }

    fn pass(&mut self, controller: &mut Controller) {
        self.passes += 1;
        let now = moment(self.now, self.ahead);
        controller.reconciler.tick(now);
        for (node, act) in &controller.acts {
            controller.reconciler.reached(&self.sites[*node].name, act.stage());
        }
        for news in std::mem::take(&mut controller.inbox) {
            self.judge.heard(self.now, &news);
            news.take_in(controller);
        }
        controller.rested = self.now + self.chance.within(if self.calm { 500..4000 } else { 1..1000 });
        let Some(release) = controller.release.take() else {
            controller.wake_at = Ms::MAX;
            return;
        };
        let orders = {
            controller.reconciler.wanted(Arc::new(self.intent.clone()));
            controller.reconciler.pass(&release)
        };
        self.judge.follow(&release);
        if self.trace.is_on() || self.passes % 64 == 0 {
            controller.reconciler.show(&release, &orders.plan);
            self.trace.show(self.now, controller.reconciler.views());
        }
        controller.words = orders.plan.decisions.values().map(Decision::as_str).collect();
        let asked = |decision: &Decision| match decision {
            Decision::Hold { hold: Hold::Approval { what, hash } } => Some((what.clone(), hash.clone())),
            Decision::Hold { .. } | Decision::InSync | Decision::InFlight | Decision::Act { .. } => None,
        };
        controller.asked = orders.plan.decisions.values().filter_map(asked).collect();
        for name in &orders.look {
            let node = self.node(name);
            let number = self.next_number();
            controller.reads.insert(node, number);
            let way = self.chance.within(10..400);
            self.soon(way, Event::Read { life: controller.life, node, number });
        }
        for (name, action) in orders.start {
            let node = self.node(&name);
            self.starts += 1;
            self.quiet_rounds = 0;
            self.judge_start(controller, &release, node, &action);
            self.begin(controller, &release, node, action);
        }
        let now = moment(self.now, self.ahead);
        controller.boundary = orders.plan.look_again_at.map(|at| {
            let wait = at.duration_since(now.wall).as_millis();
            self.now + Ms::try_from(wait).unwrap_or(1) + 1
        });
        controller.wake_at = Ms::MAX;
        let next = ms_of(orders.next);
        if next < self.now {
            self.judge.blame("the loop is to wake in the past".into());
        }
        controller.rested = controller.rested.max(self.now + 1);
        self.keep(controller, &release);
        controller.release = Some(release);
        if !self.calm {
            let at = next.max(controller.rested);
            controller.wake_at = at;
            self.at(at, Event::Wake);
        }
    }

    /// After the last fault, time that brings nothing is left out: the loop wakes when something happens, when its plan could
    /// change, and now and then to look at all nodes.
    fn sleep(&mut self) {
        if !self.calm {
            return;
        }
        let busy = self.queue.len() > self.wakes;
        let Some(controller) = &self.controller else { return };
        let round = self.now + 400 * SECOND;
        let (boundary, quiet) = (controller.boundary, !busy && controller.inbox.is_empty());
        if quiet && self.approve() {
            (self.quiet_rounds, self.approved) = (0, self.now);
            return;
        }
        self.quiet_rounds += u32::from(quiet && boundary.is_none());
        self.wake_by(if busy { boundary.unwrap_or(round).min(round) } else { boundary.unwrap_or(round) });
    }

    fn keep(&mut self, controller: &mut Controller, release: &Release) {
        let begun = controller.reconciler.begun();
        let same = self.disk.as_ref().is_some_and(|(kept, known)| kept == release && known == begun);
        if self.now >= controller.kept + SECOND && !same {
            controller.kept = self.now;
            self.disk = Some((release.clone(), begun.clone()));
        }
    }

    pub fn node(&self, name: &NodeName) -> usize {
        name.as_str()[1..].parse().unwrap_or_default()
    }

    fn judge_start(&mut self, controller: &Controller, release: &Release, node: usize, action: &Action) {
        let (mut acting, mut rebooting, mut behind) = (BTreeSet::new(), BTreeSet::new(), BTreeMap::new());
        for (other, act) in controller.acts.iter().filter(|(other, _)| **other != node) {
            acting.insert(self.sites[*other].name.clone());
            if act.is_reboot() {
                rebooting.insert(self.sites[*other].name.clone());
            }
        }
        for site in &self.sites {
            behind.insert(site.name.clone(), self.ahead - site.machine.ahead);
        }
        let before = controller.acts.iter().filter(|(_, act)| act.began < self.now);
        let before = before.map(|(other, _)| self.sites[*other].name.clone()).collect();
        let observed = controller.reconciler.observed();
        let approved = std::mem::take(&mut self.judge.approved);
        let start = Start {
            now: self.now,
            release,
            site: &self.sites[node],
            action,
            acting: acting.len() + 1,
            already: controller.acts.contains_key(&node),
            built: self.repository.built.get(&self.sites[node].name).map_or(&[], Vec::as_slice),
            clocks_are_right: !self.jumped,
            fleet: Fleet {
                wall: moment(self.now, self.ahead).wall,
                release,
                observed: &observed,
                intent: &self.intent,
                approved: &approved,
                acting,
                before,
                rebooting,
                behind,
            },
        };
        self.judge.start(&start, node);
        self.judge.approved = approved;
        self.tell(node, || format!("ORDER {action:?}"));
    }

    // --- the repository ------------------------------------------------------------------------------------------------

    pub fn merge(&mut self) {
        let nodes = self.sites.len();
        let commit = next_commit(
            &mut self.chance,
            (&self.repository.commits, nodes),
            self.manner.quality,
            &mut self.systems,
        );
        self.repository.commits.push(commit);
        let head = self.repository.commits.len() - 1;
        self.trace.tell(self.now, None, || format!("MERGE of commit {head}"));
        if let Some(life) = self.controller.as_ref().map(|controller| controller.life) {
            let after = self.chance.within(1..40) * SECOND;
            self.soon(after, Event::Fetch { life });
        }
    }

    fn fetch(&mut self, life: u32) {
        let head = self.repository.commits.len() - 1;
        let Some(controller) = self.controller.as_ref().filter(|controller| controller.life == life) else {
            return;
        };
        if controller.preparing > 0 && controller.head == head {
            return;
        }
        self.prepare(head);
    }

    fn prepare(&mut self, head: usize) {
        let number = self.next_number();
        let Some(controller) = &mut self.controller else { return };
        let life = controller.life;
        let release = self.repository.begin(controller.release.take());
        self.trace.tell(self.now, None, || format!("commit {head} is being prepared"));
        (controller.preparing, controller.head) = (number, head);
        controller.left = release.nodes.len();
        let names: Vec<NodeName> = release.nodes.keys().cloned().collect();
        controller.release = Some(release);
        for name in names {
            let node = self.node(&name);
            let after = self.chance.within(100..8 * SECOND);
            self.soon(after, Event::Prepared { life, number, node, step: Step::Evaluated });
        }
        self.wake_by(self.now);
    }

    fn prepared(&mut self, life: u32, number: u64, node: usize, step: Step) {
        let name = self.sites[node].name.clone();
        let Some(controller) = self.controller.as_mut().filter(|controller| controller.life == life) else {
            return;
        };
        if controller.preparing != number {
            return;
        }
        let head = controller.head;
        let Some(release) = &mut controller.release else { return };
        self.quiet_rounds = 0;
        self.repository.prepared(release, head, (&name, step), self.calm);
        match step {
            Step::Evaluated => {
                let after = self.repository.build_time(head, &name);
                self.soon(after, Event::Prepared { life, number, node, step: Step::Built });
            }
            Step::Built => {
                controller.left -= 1;
                if controller.left == 0 && self.repository.may_change(head, release) {
                    self.soon(15 * MINUTE, Event::PrepareAgain { life, number });
                }
            }
        }
        self.trace.tell(self.now, Some(&name), || format!("{step:?}"));
        self.wake_by(self.now);
    }

    fn prepare_again(&mut self, life: u32, number: u64) {
        let again = self
            .controller
            .as_ref()
            .filter(|controller| controller.life == life && controller.preparing == number);
        if let Some(head) = again.map(|controller| controller.head) {
            self.prepare(head);
        }
    }

    // --- the nodes ----------------------------------------------------------------------------------------------------

    /// Starts a switch on a node, whoever asks. Whether the node takes it.
    pub fn start_switch(&mut self, node: usize, order: Order) -> bool {
        let id = order.id.clone();
        let site = &mut self.sites[node];
        match site.machine.start(order, self.now) {
            Ok(after) => {
                site.taken = None;
                site.times.insert(id.clone(), (self.now, None));
                self.soon(after, Event::Switch { node, id: id.clone(), step: 0 });
                self.tell(node, || format!("switch {id} begins"));
                true
            }
            Err(refusal) => {
                self.tell(node, || format!("refuses a switch: {refusal:?}"));
                false
            }
        }
    }

    fn switch(&mut self, node: usize, id: &SwitchId, step: u64) {
        let (now, chance) = (self.now, &mut self.chance);
        let site = &mut self.sites[node];
        if !site.machine.live.as_ref().is_some_and(|live| live.id == *id && live.step == step) {
            return;
        }
        let before = Self::what_runs(&site.machine);
        let next = site.machine.step(now, chance);
        self.after_step(node, id, before, next);
    }

    fn what_runs(machine: &Machine) -> (StorePath, Option<StorePath>, Option<StorePath>) {
        (machine.running.clone(), machine.boot_default.clone(), machine.waits_for().cloned())
    }

    fn after_step(
        &mut self,
        node: usize,
        id: &SwitchId,
        before: (StorePath, Option<StorePath>, Option<StorePath>),
        next: Option<Ms>,
    ) {
        self.quiet_rounds = 0;
        let site = &mut self.sites[node];
        if Self::what_runs(&site.machine) != before {
            site.changed = self.now;
        }
        let ended = site.machine.entry(id).is_none_or(|entry| entry.outcome.is_some());
        if ended && let Some(times) = site.times.get_mut(id) {
            times.1 = times.1.or(Some(self.now));
        }
        let entry = site.machine.entry(id).cloned();
        if let (Some(after), Some(live)) = (next, &site.machine.live) {
            let step = live.step;
            self.soon(after, Event::Switch { node, id: id.clone(), step });
        }
        if self.sites[node].machine.power == Power::Booting {
            let after = self.chance.within(10..60) * SECOND;
            self.soon(after, Event::Boot { node });
        }
        let Some(entry) = entry else { return };
        self.tell(node, || {
            format!("switch {id} {} {:?} {:?}", entry.phase.as_str(), entry.outcome, entry.cause)
        });
        if !entry.asker.starts_with(deciding::plan::CONTROLLER) {
            self.alice_judges(node, id);
        }
    }

    /// A person's own `driftless` follows her switch, and nothing keeps it from the node.
    fn alice_judges(&mut self, node: usize, id: &SwitchId) {
        let fate = self.fate_of_switch(node, id);
        if fate.lets_in() {
            self.contact(node, id);
        }
        self.verdict(node, id, fate.is_healthy());
    }

    pub fn fate_of_switch(&self, node: usize, id: &SwitchId) -> Fate {
        let entry = self.sites[node].machine.entry(id);
        entry.map_or(Fate::Works, |entry| self.systems.fate(&entry.system))
    }

    pub fn contact(&mut self, node: usize, id: &SwitchId) {
        if self.sites[node].machine.contact(id) {
            self.step_soon(node, id);
        }
    }

    pub fn verdict(&mut self, node: usize, id: &SwitchId, well: bool) {
        if self.sites[node].machine.verdict(id, well) {
            self.step_soon(node, id);
        }
    }

    fn step_soon(&mut self, node: usize, id: &SwitchId) {
        if let Some(step) = self.sites[node].machine.live.as_ref().map(|live| live.step) {
            self.soon(200, Event::Switch { node, id: id.clone(), step });
        }
    }

    pub fn kill_watcher(&mut self, node: usize) {
        let (now, chance) = (self.now, &mut self.chance);
        let site = &mut self.sites[node];
        let Some(id) = site.machine.live.as_ref().map(|live| live.id.clone()) else { return };
        let before = Self::what_runs(&site.machine);
        let next = site.machine.kill_watcher(now, chance);
        self.after_step(node, &id, before, next);
    }

    /// The machine goes down and comes up again; or never.
    pub fn power_cut(&mut self, node: usize, for_good: bool) {
        let site = &mut self.sites[node];
        if site.machine.power != Power::On {
            return;
        }
        if let Some(live) = &site.machine.live
            && let Some(times) = site.times.get_mut(&live.id)
        {
            times.1 = Some(self.now);
        }
        site.machine.reboot();
        if for_good {
            site.machine.power = Power::Dead;
        } else {
            let after = self.chance.within(10..90) * SECOND;
            self.soon(after, Event::Boot { node });
        }
        self.tell(node, || if for_good { "dies".into() } else { "goes down".into() });
    }

    fn boot(&mut self, node: usize) {
        let site = &mut self.sites[node];
        if site.machine.power != Power::Booting {
            return;
        }
        let before = site.machine.running.clone();
        site.machine.boot(&mut self.chance);
        site.booted = self.now;
        if site.machine.running != before {
            site.changed = self.now;
            // What a person had activated, and not made the boot default, is gone by this.
            site.taken = None;
        }
        let running = site.machine.running.clone();
        self.tell(node, || format!("has booted {}", running.name()));
    }

    // --- people -------------------------------------------------------------------------------------------------------

    pub fn switch_id(&mut self) -> SwitchId {
        let random = u32::try_from(self.chance.number() >> 32).unwrap_or_default();
        SwitchId::new(time_of(self.now), random)
    }

    pub fn alice_deploys(&mut self, node: usize, system: StorePath, until: Option<PinEnd>) {
        if !self.sites[node].answers() {
            return;
        }
        let id = self.switch_id();
        let fate = self.systems.fate(&system);
        let expected = self.sites[node].machine.running.clone();
        let order = Order {
            id,
            system,
            expected,
            goal: deciding::model::node::Goal::Switch,
            asker: "alice@laptop".into(),
            revision: "-".into(),
            fate,
            mishap: None,
            to_be_booted: ToBeBooted::No,
        };
        if self.start_switch(node, order) {
            let at_end = PinEnd::At(time_of(self.now) + PIN_FOR);
            let until = until.unwrap_or(at_end);
            self.sites[node].machine.pin = Some(Pin { by: "alice".into(), reason: "on fire".into(), until });
            self.sites[node].pinned = self.now;
            self.tell(node, || "alice deploys by hand, and pins it".into());
        }
    }

    pub fn retry(&mut self) {
        for node in 0..self.sites.len() {
            if self.sites[node].answers() && self.chance.happens(700) {
                self.sites[node].machine.forgive();
                self.judge.forgive(&self.sites[node].name);
                let site = &mut self.sites[node];
                for entry in &site.machine.entries {
                    site.forgiven.entry(entry.id.clone()).or_insert(self.now);
                }
                self.tell(node, || "alice says retry".into());
            }
        }
        self.try_now();
    }

    /// SIGHUP.
    pub fn try_now(&mut self) {
        self.trace.tell(self.now, None, || "SIGHUP".into());
        if let Some(controller) = &mut self.controller {
            controller.reconciler.try_now();
            self.judge.forget_attempts();
            self.wake_by(self.now);
        }
    }

    pub fn crash(&mut self, down: Ms) {
        if self.controller.take().is_some() {
            self.trace.tell(self.now, None, || "CRASH of the controller".into());
            self.soon(down, Event::Up);
        }
    }

    pub fn lose_disk(&mut self) {
        self.disk = None;
        self.intent = Intent::default();
        if self.chance.happens(500) {
            self.repository.roots.clear();
        }
        self.trace.tell(self.now, None, || "the state directory is lost".into());
    }

    pub fn jump(&mut self, by: i64) {
        self.ahead += SignedDuration::from_secs(by);
        self.jumped = true;
        self.trace.tell(self.now, None, || format!("the wall clock is stepped by {by} s"));
    }

    pub fn mishap(&mut self) -> Option<Cause> {
        Some(self.chance.pick(&[Cause::Busy, Cause::Killed]))
    }

    fn calm(&mut self) {
        self.calm = true;
        self.trace.tell(self.now, None, || "CALM: no fault from here on".into());
        for node in 0..self.sites.len() {
            if self.sites[node].link == Link::Down {
                self.sites[node].link = Link::Up;
            }
        }
        if self.controller.is_none() {
            self.up();
        }
        if let Some(life) = self.controller.as_ref().map(|controller| controller.life) {
            self.soon(SECOND, Event::Fetch { life });
        }
        self.soon(2 * SECOND, Event::LinkUp { node: 0 });
        self.wake_by(self.now);
    }

    fn at_rest(&mut self) -> Result<(), String> {
        let Some(controller) = &self.controller else { return Err("no controller".into()) };
        let Some(release) = &controller.release else { return Err("no release in force".into()) };
        let plan = deciding::plan::plan(
            release,
            &controller.reconciler.observed(),
            &self.intent,
            controller.reconciler.now(),
        );
        Rest {
            sites: &self.sites,
            release,
            head: self.repository.head(),
            intent: &self.intent,
            plan: &plan,
            jumped: self.jumped,
            days: (self.now - self.manner.calm_at) / DAY,
        }
        .judge()
    }
}
