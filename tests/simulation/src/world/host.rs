//! The controller's host: its life, its passes, and its sleep between them.

use super::*;

impl World {
    pub fn up(&mut self) {
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

    pub fn wake(&mut self) {
        let Some(mut controller) = self.controller.take_if(|controller| controller.wake_at == self.now)
        else {
            return;
        };
        controller.wake_at = Ms::MAX;
        self.pass(&mut controller);
        self.controller = Some(controller);
        self.sleep();
    }

    pub fn pass(&mut self, controller: &mut Controller) {
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
        if self.trace.is_on() || self.passes.is_multiple_of(64) {
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
    pub fn sleep(&mut self) {
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
        match boundary {
            Some(_) => self.quiet_rounds = 0,
            None => self.quiet_rounds += u32::from(quiet),
        }
        self.wake_by(if busy { boundary.unwrap_or(round).min(round) } else { boundary.unwrap_or(round) });
    }

    pub fn keep(&mut self, controller: &mut Controller, release: &Release) {
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

    pub fn judge_start(&mut self, controller: &Controller, release: &Release, node: usize, action: &Action) {
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
}
