//! What must be true when every fault is long over and nothing happens any more: each node is what it should be, or is held for
//! a reason that the book agrees with.

use std::collections::BTreeSet;

use deciding::model::decision::{Decision, Hold, Plan};
use deciding::model::intent::Intent;
use deciding::model::journal::{Outcome, PinEnd};
use deciding::model::name::NodeName;
use deciding::model::node::{Goal, OnDrift};
use deciding::model::release::{Progress, Release};

use crate::gate::{means, wave_of};
use crate::judge::{is_final, is_installed, wanted};
use crate::machine::Power;
use crate::repository::Commit;
use crate::world::{Link, Site};

/// The world at rest.
#[derive(Debug)]
pub struct Rest<'a> {
    pub sites: &'a [Site],
    pub release: &'a Release,
    pub head: &'a Commit,
    pub intent: &'a Intent,
    pub plan: &'a Plan,
    pub jumped: bool,
    /// Since the last fault.
    pub days: u64,
}

fn expect(holds: bool, why: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(why.to_owned()) }
}

impl Rest<'_> {
    pub fn judge(&self) -> Result<(), String> {
        if self.release.revision.as_ref() != Some(&self.head.revision) {
            return Err(format!("{:?} is in force, and not the newest commit", self.release.revision));
        }
        for (name, decision) in &self.plan.decisions {
            let Some(site) = self.sites.iter().find(|site| site.name == *name) else { continue };
            self.rests(site, decision)
                .map_err(|why| format!("at rest, {name} is {decision:?}, and {why}"))?;
        }
        Ok(())
    }

    fn rests(&self, site: &Site, decision: &Decision) -> Result<(), String> {
        let Some(node) = self.release.nodes.get(&site.name) else { return Ok(()) };
        let spec = node.spec.as_deref();
        let wanted = wanted(self.release, node);
        let goal = spec.map_or(Goal::Switch, |spec| spec.goal);
        let installed = wanted.is_some_and(|wanted| is_installed(site, wanted, goal));
        let built = node.progress == Progress::Built;
        let journal = site.machine.journal();
        let last = journal.iter().rev().find(|entry| entry.outcome == Some(Outcome::Succeeded));
        // An earlier release is healed to, and not rolled out.
        let waits =
            wanted.is_some_and(|wanted| last.is_some_and(|last| last.system == *wanted) && !installed);
        let hold = match decision {
            Decision::InSync => return expect(installed && built, "it is not what it should be"),
            Decision::InFlight | Decision::Act { .. } => return Err("that is no rest".into()),
            Decision::Hold { hold } => hold,
        };
        let gone = site.link == Link::Cut || site.machine.power == Power::Dead;
        match hold {
            Hold::NoHost => expect(spec.is_some_and(|spec| spec.host.is_none()), "it has a host"),
            Hold::NotObserved | Hold::Unreachable { .. } | Hold::RebootOverdue { .. } => {
                expect(gone, "it answers")
            }
            Hold::Suspended { .. } => {
                let by_people = spec.is_some_and(|spec| {
                    spec.suspended.is_some()
                        || self
                            .intent
                            .suspensions
                            .values()
                            .any(|kept| means(&kept.on, &site.name, &spec.tags))
                });
                expect(by_people, "nobody suspended it")
            }
            Hold::Pinned { until: PinEnd::NextRelease(_), .. } => {
                expect(site.machine.pin.is_some(), "it is not pinned")
            }
            // By which of two clocks that say different times it ends, is not for us to say.
            Hold::Pinned { until: PinEnd::At(_), .. } => {
                expect(self.jumped || !site.machine.ahead.is_zero(), "that ends by itself")
            }
            Hold::NotEvaluated { .. } | Hold::NotBuilt { .. } => {
                let broken =
                    matches!(node.progress, Progress::NotEvaluated { .. } | Progress::NotBuilt { .. });
                // Without a declaration nobody knows where it is.
                let idle = !waits || spec.is_none();
                expect(broken && idle, "its last good system waits")
            }
            Hold::ReleaseIncomplete { .. } => {
                expect(self.release.rollout.require_all && !waits, "nothing keeps it")
            }
            Hold::GivenUp { id, .. } => {
                let failed = site.machine.journal().into_iter().find(|entry| entry.id == *id);
                expect(failed.is_some_and(|entry| is_final(&entry)), "it has not failed for good")
            }
            Hold::ReportOnly => {
                let report = spec.is_some_and(|spec| spec.on_drift == OnDrift::Report);
                expect(report && !installed, "it has not drifted")
            }
            Hold::AwaitingReboot => expect(site.machine.waits_for().is_some(), "no reboot is due"),
            // One that was rebooted for its system already, and is another one since, is for people.
            Hold::RebootRequired => {
                expect(installed || site.machine.reboot.is_some(), "it is not what it should be")
            }
            Hold::RebootFailed { .. } => expect(site.machine.reboot.is_some(), "it was not told to reboot"),
            Hold::Degraded { .. } => {
                expect(installed && !site.machine.failed_units.is_empty(), "no unit has failed")
            }
            Hold::Wave { .. } | Hold::After { .. } | Hold::Unavailable { .. } => {
                self.is_kept_waiting(&site.name, hold)
            }
            Hold::Halted { node, .. } => self.has_failed(node),
            // An approval that expires before a window opens is asked for once more.
            Hold::Window { .. } | Hold::Approval { .. } => expect(self.days >= 15, "that ends by itself"),
            Hold::Backoff { .. }
            | Hold::HealDelay { .. }
            | Hold::Evaluating
            | Hold::Building
            | Hold::Busy { .. }
            | Hold::Soak { .. }
            | Hold::WaveLimit { .. }
            | Hold::Rebooting { .. }
            | Hold::Unseen { .. }
            | Hold::RebootTurn { .. }
            | Hold::InFlightLimit { .. } => Err("that ends by itself".into()),
            Hold::WrongMachine { .. }
            | Hold::HooksRefused { .. }
            | Hold::Elsewhere { .. }
            | Hold::HookFailed { .. } => Err("there is no such thing here".into()),
        }
    }

    /// The node because of which a release goes nowhere.
    fn has_failed(&self, node: &NodeName) -> Result<(), String> {
        let Some(site) = self.sites.iter().find(|site| site.name == *node) else {
            return Err("of whom?".into());
        };
        let toplevel =
            self.release.nodes.get(node).and_then(|node| node.spec.as_ref()).map(|spec| &spec.toplevel);
        let gone = site.link == Link::Cut || site.machine.power == Power::Dead;
        let journal = site.machine.journal();
        let newest =
            journal.iter().rev().find(|entry| Some(&entry.system) == toplevel && entry.outcome.is_some());
        let failed = newest.is_some_and(is_final);
        expect(failed || gone || site.machine.reboot.is_some(), "the release has not failed there")
    }

    /// Whoever is waited for is held in turn, and at the end of the row somebody has a reason of his own. Where `after` names a
    /// node of a later wave, both wait for ever: the deployment says so.
    fn is_kept_waiting(&self, name: &NodeName, hold: &Hold) -> Result<(), String> {
        let (mut hold, mut met, mut declared) = (hold, BTreeSet::from([name.clone()]), false);
        loop {
            let next = match hold {
                Hold::Wave { node, .. } => node,
                Hold::After { node } => {
                    declared = true;
                    node
                }
                Hold::Unavailable { wave, .. } => return self.somebody_is_down(wave - 1),
                _ => return Ok(()),
            };
            if !met.insert(next.clone()) {
                return expect(declared, "all of them wait for each other");
            }
            hold = match self.plan.decisions.get(next) {
                Some(Decision::Hold { hold }) => hold,
                Some(Decision::InSync | Decision::InFlight | Decision::Act { .. }) | None => {
                    return Err(format!("{next}, for which it waits, is well"));
                }
            };
        }
    }

    fn somebody_is_down(&self, wave: usize) -> Result<(), String> {
        let down = |site: &&Site| {
            let gone = site.link == Link::Cut || site.machine.power == Power::Dead;
            wave_of(self.release, &site.name) == Some(wave) && (gone || !site.machine.failed_units.is_empty())
        };
        expect(self.sites.iter().any(|site| down(&site)), "all of its wave are up")
    }
}
