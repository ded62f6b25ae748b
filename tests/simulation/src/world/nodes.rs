//! The nodes: their switches, their power, their boots.

use super::*;

impl World {
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

    pub fn switch(&mut self, node: usize, id: &SwitchId, step: u64) {
        let (now, chance) = (self.now, &mut self.chance);
        let site = &mut self.sites[node];
        if !site.machine.live.as_ref().is_some_and(|live| live.id == *id && live.step == step) {
            return;
        }
        let before = Self::what_runs(&site.machine);
        let next = site.machine.step(now, chance);
        self.after_step(node, id, before, next);
    }

    pub fn what_runs(machine: &Machine) -> (StorePath, Option<StorePath>, Option<StorePath>) {
        (machine.running.clone(), machine.boot_default.clone(), machine.waits_for().cloned())
    }

    pub fn after_step(
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
    pub fn alice_judges(&mut self, node: usize, id: &SwitchId) {
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

    pub fn step_soon(&mut self, node: usize, id: &SwitchId) {
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

    pub fn boot(&mut self, node: usize) {
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
}
