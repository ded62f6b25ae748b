//! People at the nodes and at the controller, crashes, and the end of all trouble.

use super::*;

impl World {
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

    pub fn calm(&mut self) {
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

    pub fn at_rest(&mut self) -> Result<(), String> {
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
