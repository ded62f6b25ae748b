//! What becomes of a commit: step by step it is found out what is in it, it comes into force or is refused, and its nodes get
//! their systems.

use std::collections::BTreeSet;
use std::time::Instant;

use jiff::Timestamp;

use super::{Desired, PREPARE_AGAIN};
use crate::controller::candidate::{Candidate, Verdict};
use crate::controller::prepare::{Again, Failure, Prepared};
use crate::controller::preparing::{Counts, Preparing};
use crate::controller::roots::{deployed_to, forget_roots, rooted};
use crate::error_chain::error_chain;
use crate::model::name::NodeName;
use crate::model::revision::Revision;
use crate::model::snapshot::{Blocked, BlockedReason};
use crate::reconcile::succession::{begin, built, evaluated, is_broken};
use crate::serve::metrics::Metrics;

impl Desired {
    /// Takes in one step of a preparation.
    pub fn prepared(&mut self, number: u64, step: Prepared, metrics: &Metrics) {
        let Some(preparing) = self.preparing.as_mut().filter(|_| number == self.number) else { return };
        preparing.count(&step, metrics, &mut self.view.publish_error);
        match step {
            Prepared::Named(names) => {
                let revision = preparing.revision.clone();
                self.judge(Candidate::new(names, self.at_stake(&revision)));
            }
            Prepared::Blocked(reason, failure) => self.blocked(Blocked { reason, message: failure.said }),
            Prepared::Evaluated(..) | Prepared::Built(..) => match preparing.candidate.take() {
                Some(mut candidate) => {
                    candidate.learn(step);
                    self.judge(candidate);
                }
                None => self.stream(step),
            },
            Prepared::Done => {
                if let Some(candidate) = preparing.candidate.take() {
                    self.enter(candidate);
                }
                self.done(metrics);
            }
        }
    }

    /// The nodes that a revision must not take away unasked. What is in force already, or was allowed, is not judged.
    fn at_stake(&self, revision: &Revision) -> BTreeSet<NodeName> {
        let in_force = self.release.as_ref().and_then(|release| release.revision.as_ref()) == Some(revision);
        let allowed = self.source.allows_removal(&revision.commit).unwrap_or_else(|error| {
            tracing::warn!(error = error_chain(&error), "cannot tell what a person allowed");
            false
        });
        if in_force || allowed { BTreeSet::new() } else { deployed_to(self.release.as_ref(), &self.roots) }
    }

    fn judge(&mut self, candidate: Candidate) {
        match candidate.judge() {
            Verdict::Enters(candidate) => self.enter(candidate),
            Verdict::Waits(candidate) => {
                if let Some(preparing) = &mut self.preparing {
                    preparing.candidate = Some(candidate);
                }
            }
            Verdict::Misdeclared(message) => {
                self.blocked(Blocked { reason: BlockedReason::Misdeclared, message });
            }
            Verdict::Refused(losses) => {
                let Some(preparing) = &self.preparing else { return };
                let message = losses.message(preparing.revision.commit.short());
                self.blocked(Blocked { reason: BlockedReason::MassRemoval, message });
            }
        }
    }

    /// Puts a commit in force, as far as it is known.
    fn enter(&mut self, candidate: Candidate) {
        let Some(preparing) = &mut self.preparing else { return };
        let revision = preparing.revision.clone();
        preparing.hearing = Some(candidate.hearing);
        self.interrupted = None;
        let before = self.release.take();
        self.release = Some(begin(before, revision, &candidate.names, |name| rooted(&self.roots, name)));
        for step in candidate.steps {
            self.sort(step);
        }
        self.conclude();
    }

    /// Takes in one more step of a commit that is in force already.
    fn stream(&mut self, step: Prepared) {
        if let Some(hearing) = self.preparing.as_mut().and_then(|preparing| preparing.hearing.as_mut()) {
            hearing.hear(&step);
        }
        self.sort(step);
        self.conclude();
    }

    /// A node that comes after others waits until it is certain that it can be meant; the others do not.
    fn sort(&mut self, step: Prepared) {
        match self.preparing.as_mut() {
            Some(Preparing { hearing: Some(hearing), postponed, .. }) if hearing.is_to_wait(&step) => {
                postponed.push(step);
            }
            Some(_) | None => self.learn(step),
        }
    }

    /// When the last node has evaluated, it is known whether what nodes come after can be meant.
    fn conclude(&mut self) {
        let Some(preparing) = &mut self.preparing else { return };
        let Some(hearing) = preparing.hearing.take_if(|hearing| hearing.is_complete()) else { return };
        let postponed = std::mem::take(&mut preparing.postponed);
        let misdeclared = hearing.check().err();
        preparing.misdeclared.clone_from(&misdeclared);
        for step in postponed {
            match (step, &misdeclared) {
                (step, None) => self.learn(step),
                (Prepared::Evaluated(name, _), Some(said)) => {
                    let failure = Failure { said: said.clone(), again: Again::Same };
                    self.learn(Prepared::Evaluated(name, Err(failure)));
                }
                // Its system is not wanted yet.
                (
                    Prepared::Named(_) | Prepared::Blocked(..) | Prepared::Built(..) | Prepared::Done,
                    Some(_),
                ) => {}
            }
        }
    }

    /// Takes in what was found out about a node of the release in force.
    fn learn(&mut self, step: Prepared) {
        let Some(release) = &mut self.release else { return };
        let said = |failure: Failure| failure.said;
        match step {
            Prepared::Evaluated(name, outcome) => evaluated(release, &name, outcome.map_err(said)),
            Prepared::Built(name, outcome) => built(release, &name, outcome.map(drop).map_err(said)),
            Prepared::Named(_) | Prepared::Blocked(..) | Prepared::Done => {}
        }
    }

    /// The newest commit comes to nothing for now. One before it that it interrupted is finished instead.
    fn blocked(&mut self, blocked: Blocked) {
        let Some(preparing) = self.preparing.take() else { return };
        let revision = preparing.revision.commit.short();
        tracing::warn!(revision, reason = blocked.reason.as_str(), message = blocked.message, "head blocked");
        let head = self.view.head.as_ref() == Some(&preparing.revision);
        if head {
            self.view.blocked = Some(blocked);
            self.waiting = self.interrupted_by(&preparing.revision);
        }
        self.try_again_later(preparing.again);
    }

    /// What this host failed at is tried soon, and then less and less often.
    fn try_again_later(&mut self, again: Again) {
        let pause = match again {
            Again::Same => PREPARE_AGAIN,
            Again::Perhaps => {
                self.tries = self.tries.saturating_add(1);
                crate::plan::backoff::delay(self.tries).min(PREPARE_AGAIN)
            }
        };
        self.prepare_again = Some(Instant::now() + pause);
    }

    fn done(&mut self, metrics: &Metrics) {
        let Some(preparing) = self.preparing.take() else { return };
        let Counts { good, bad } = preparing.evaluated;
        metrics.evaluated(preparing.result(), preparing.began.elapsed());
        self.view.evaluated_at = Some(Timestamp::now());
        let head = self.view.head.as_ref() == Some(&preparing.revision);
        if let Some(message) = preparing.misdeclared {
            tracing::warn!(revision = preparing.revision.commit.short(), message, "head blocked");
            if head {
                self.view.blocked = Some(Blocked { reason: BlockedReason::Misdeclared, message });
            }
        } else if good == 0 && bad > 0 && head {
            let message = "no node of this commit evaluates; the first error is with each node".into();
            self.view.blocked = Some(Blocked { reason: BlockedReason::EvalFailed, message });
        } else if good > 0 || bad == 0 {
            self.view.last_good = Some(preparing.revision.clone());
            if head {
                self.view.blocked = None;
            }
        }
        let broken = self.release.as_ref().is_some_and(|release| release.nodes.values().any(is_broken));
        if broken || self.view.blocked.is_some() || self.view.publish_error.is_some() {
            self.try_again_later(preparing.again);
        } else {
            (self.prepare_again, self.tries) = (None, 0);
        }
        if let Some(release) = &self.release {
            forget_roots(&self.roots, release);
        }
        tracing::info!(revision = preparing.revision.commit.short(), good, bad, "prepared");
    }
}
