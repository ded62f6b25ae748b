//! What goes wrong, and what people do meanwhile.

use std::collections::BTreeMap;

use deciding::model::intent::{Approval, Override, Suspension, SuspensionId};
use deciding::model::journal::PinEnd;
use deciding::model::name::NodeName;
use deciding::model::selector::Selector;
use jiff::{SignedDuration, Timestamp};

use crate::gate::{Approved, systems_of_wave};
use crate::systems::Fate;
use crate::time::{MINUTE, SECOND, moment};
use crate::world::{Event, Link, World};

/// One thing that goes wrong, or that somebody does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    Merge,
    LinkDown,
    LinkCut,
    PowerCut,
    Death,
    KilledWatcher,
    Crash,
    LostState,
    Jump,
    Rebuild,
    Deployment,
    Rollback,
    Unpin,
    Retry,
    Reload,
    Suspend,
    Resume,
    Approve,
    Override,
    FailedUnit,
}

impl World {
    /// How likely each is, beside the others.
    fn troubles(&self) -> [(Trouble, u64); 20] {
        let (people, crashes) = (self.manner.people, self.manner.crashes);
        [
            (Trouble::Merge, 12),
            (Trouble::LinkDown, 6),
            (Trouble::LinkCut, u64::from(self.sites.len() > 4 && crashes > 0)),
            (Trouble::PowerCut, 4),
            (Trouble::Death, u64::from(self.sites.len() > 5 && crashes > 1)),
            (Trouble::KilledWatcher, 2),
            (Trouble::Crash, 3 * crashes),
            (Trouble::LostState, crashes / 2),
            (Trouble::Jump, if self.manner.jumps { 4 } else { 0 }),
            (Trouble::Rebuild, 2 * people),
            (Trouble::Deployment, people),
            (Trouble::Rollback, people),
            (Trouble::Unpin, people),
            (Trouble::Retry, people),
            (Trouble::Reload, people),
            (Trouble::Suspend, people),
            (Trouble::Resume, people),
            (Trouble::Approve, 3),
            (Trouble::Override, u64::from(people > 1)),
            (Trouble::FailedUnit, 1),
        ]
    }

    /// Something goes wrong, or somebody does something.
    pub fn trouble(&mut self) {
        let troubles = self.troubles();
        let mut left = self.chance.within(0..troubles.iter().map(|(_, weight)| weight).sum());
        let mut which = Trouble::Merge;
        for (trouble, weight) in troubles {
            if left < weight {
                which = trouble;
                break;
            }
            left -= weight;
        }
        let node = self.chance.place(self.sites.len());
        match which {
            Trouble::Merge => self.merge(),
            Trouble::LinkDown | Trouble::LinkCut => self.link_down(node, which == Trouble::LinkCut),
            Trouble::PowerCut | Trouble::Death => self.power_cut(node, which == Trouble::Death),
            Trouble::KilledWatcher => self.kill_watcher(node),
            Trouble::Crash => {
                let down = self.chance.pick(&[SECOND, 5 * SECOND, 30 * SECOND, 200 * SECOND]);
                self.crash(down);
            }
            Trouble::LostState => {
                self.crash(10 * SECOND);
                self.lose_disk();
            }
            Trouble::Jump => {
                let by =
                    self.chance.pick(&[-60, 60, 3600, -3600, 86_400, -86_400, 300_000_000, -300_000_000]);
                self.jump(by);
            }
            Trouble::Rebuild | Trouble::Deployment | Trouble::Rollback | Trouble::Unpin => {
                self.by_hand(node, which);
            }
            Trouble::Retry => self.retry(),
            Trouble::Reload => self.try_now(),
            Trouble::Suspend => self.suspend(),
            Trouble::Resume => self.intent.suspensions.clear(),
            Trouble::Approve => drop(self.approve()),
            Trouble::Override => self.override_windows(),
            Trouble::FailedUnit => {
                let units = &mut self.sites[node].machine.failed_units;
                if units.pop().is_none() {
                    units.push("nginx.service".into());
                }
            }
        }
    }

    fn link_down(&mut self, node: usize, for_good: bool) {
        if self.sites[node].link != Link::Up {
            return;
        }
        self.sites[node].link = if for_good { Link::Cut } else { Link::Down };
        self.tell(node, || if for_good { "its link is cut".into() } else { "its link is down".into() });
        let after = self.chance.pick(&[3 * SECOND, 20 * SECOND, 2 * MINUTE, 8 * MINUTE]);
        self.soon(after, Event::LinkUp { node });
    }

    fn wall(&self) -> Timestamp {
        moment(self.now, self.ahead).wall
    }

    fn whom(&mut self) -> Selector {
        self.chance.pick(&["n0", "n1", "n2", "@canary", "@db", "*"]).parse().unwrap()
    }

    fn suspend(&mut self) {
        let (on, since) = (self.whom(), self.wall());
        let until = self.chance.happens(600).then(|| since + SignedDuration::from_secs(240));
        let number = u32::try_from(self.chance.number() >> 32).unwrap_or_default();
        self.trace.tell(self.now, None, || format!("alice suspends {on} until {until:?}"));
        let suspension = Suspension { on, by: "alice".into(), reason: "disk swap".into(), since, until };
        self.intent.suspensions.insert(SuspensionId::new(since, number), suspension);
        self.wake_by(self.now);
    }

    fn override_windows(&mut self) {
        let (on, since) = (self.whom(), self.wall());
        self.trace.tell(self.now, None, || format!("alice overrides windows on {on}"));
        let until = since + SignedDuration::from_secs(300);
        self.intent.overrides.push(Override {
            on,
            by: "alice".into(),
            reason: "on fire".into(),
            since,
            until,
        });
        self.wake_by(self.now);
    }

    /// A person approves everything that waits for it. Whether anything did.
    pub fn approve(&mut self) -> bool {
        let at = self.wall();
        let until = at + SignedDuration::from_secs(self.chance.pick(&[120, 3600, 86_400]));
        let Some(controller) = &self.controller else { return false };
        let Some(release) = &controller.release else { return false };
        let asked = controller.asked.clone();
        for (what, hash) in &asked {
            let systems = match what.split_once(' ') {
                Some(("wave", number)) => systems_of_wave(release, number.parse::<usize>().unwrap_or(1) - 1),
                Some((_, name)) => {
                    let name: NodeName = name.parse().unwrap();
                    let spec = release.nodes.get(&name).and_then(|node| node.spec.as_ref());
                    spec.map(|spec| (name, spec.toplevel.clone())).into_iter().collect()
                }
                None => BTreeMap::new(),
            };
            self.judge.approved.push(Approved { what: what.clone(), systems, until });
            let (hash, what, by) = (hash.clone(), what.clone(), "alice".into());
            self.trace.tell(self.now, None, || format!("alice approves {what}"));
            self.intent.approvals.push(Approval { hash, what, by, at, until });
        }
        if !asked.is_empty() {
            self.wake_by(self.now);
        }
        !asked.is_empty()
    }

    fn by_hand(&mut self, node: usize, which: Trouble) {
        let older: Vec<_> =
            self.sites[node].machine.entries.iter().map(|entry| entry.previous.clone()).collect();
        let system = if older.is_empty() || self.chance.happens(500) {
            self.systems.add(node, Fate::Works, 0)
        } else {
            older[self.chance.place(older.len())].clone()
        };
        match which {
            Trouble::Rebuild if self.sites[node].answers() => {
                let persists = self.chance.happens(700);
                let (now, site) = (self.now, &mut self.sites[node]);
                if site.machine.running != system {
                    site.machine.rebuild(&system, persists);
                    (site.changed, site.taken) = (now, Some(now));
                    self.tell(node, || format!("nixos-rebuild by hand: {}", system.name()));
                }
            }
            Trouble::Deployment => self.alice_deploys(node, system, None),
            Trouble::Rollback => {
                let running = self.sites[node].machine.running.clone();
                self.alice_deploys(node, system, Some(PinEnd::NextRelease(running)));
            }
            Trouble::Unpin if self.sites[node].answers() => {
                self.sites[node].machine.pin = None;
                self.tell(node, || "unpinned".into());
            }
            _ => {}
        }
    }
}
