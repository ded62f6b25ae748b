//! What goes wrong, and what people do meanwhile.

use deciding::model::journal::PinEnd;

use crate::systems::Fate;
use crate::time::{MINUTE, SECOND};
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
    FailedUnit,
}

impl World {
    /// How likely each is, beside the others.
    fn troubles(&self) -> [(Trouble, u64); 16] {
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

    fn by_hand(&mut self, node: usize, which: Trouble) {
        let older: Vec<_> =
            self.sites[node].machine.entries.iter().map(|entry| entry.previous.clone()).collect();
        let system = if older.is_empty() || self.chance.happens(500) {
            self.systems.add(node, Fate::Works)
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
