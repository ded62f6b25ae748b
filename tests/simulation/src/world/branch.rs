//! The branch that is followed: merges, and how each commit comes into force.

use super::*;

impl World {
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

    pub fn fetch(&mut self, life: u32) {
        let head = self.repository.commits.len() - 1;
        let Some(controller) = self.controller.as_ref().filter(|controller| controller.life == life) else {
            return;
        };
        if controller.preparing > 0 && controller.head == head {
            return;
        }
        self.prepare(head);
    }

    pub fn prepare(&mut self, head: usize) {
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

    pub fn prepared(&mut self, life: u32, number: u64, node: usize, step: Step) {
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

    pub fn prepare_again(&mut self, life: u32, number: u64) {
        let again = self
            .controller
            .as_ref()
            .filter(|controller| controller.life == life && controller.preparing == number);
        if let Some(head) = again.map(|controller| controller.head) {
            self.prepare(head);
        }
    }
}
