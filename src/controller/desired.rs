//! What Git wants: fetches the branch, prepares its newest commit, and keeps the release that is in force.
//!
//! Owns the way from the source to the release; whether a release is acted on is `plan`'s.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use rand::Rng;
use tokio_util::task::AbortOnDropHandle;

use super::candidate::{Candidate, Verdict};
use super::commit_times::CommitTimes;
use super::head::{Fetched, fetch};
use super::memory::{Memory, MemoryFile, Now};
use super::prepare::{Again, Failure, Preparation, Prepared, prepare};
use super::preparing::{Counts, Preparing};
use super::roots::{deployed_to, forget_roots, rooted};
use super::{Desk, News, Options, counted};
use crate::error_chain::error_chain;
use crate::model::name::NodeName;
use crate::model::release::Release;
use crate::model::revision::Revision;
use crate::model::snapshot::{Blocked, BlockedReason, SourceView};
use crate::nix::Nix;
use crate::reconcile::clock::moved;
use crate::reconcile::succession::{begin, built, evaluated, is_broken, unfinished};
use crate::reconcile::{Kept, Reconciler};
use crate::serve::metrics::{EvaluationResult, FetchResult, Metrics};
use crate::source::{Lineage, Source, SourceError};

/// A revision with nodes that do not evaluate or build is tried again after this at the latest.
const PREPARE_AGAIN: Duration = Duration::from_secs(15 * 60);

/// Everything that is known of the source and what it wants.
#[derive(Debug)]
pub struct Desired {
    source: Source,
    config: crate::config::SourceConfig,
    roots: PathBuf,
    fetch_due: Instant,
    fetching: Option<AbortOnDropHandle<()>>,
    view: SourceView,
    commit_times: CommitTimes,
    release: Option<Release>,
    memory: MemoryFile,
    /// The revision to be prepared next.
    waiting: Option<Revision>,
    preparing: Option<Preparing>,
    /// A commit that a newer one interrupted before it was in force.
    interrupted: Option<Revision>,
    /// Numbers the preparations, so that what a cancelled one still hands in is told apart.
    number: u64,
    prepare_again: Option<Instant>,
    /// How often in a row this host failed at one revision.
    tries: u32,
}

impl Desired {
    /// Starts with what is remembered: the release in force, the ways over which nodes answered, and what was begun on them.
    pub fn new(source: Source, options: &Options) -> (Self, Kept) {
        let config = options.config.source.clone();
        let memory = MemoryFile::of(&options.state_dir);
        let (release, last_good, ways, begun) = match memory.load() {
            Some(Memory { release, last_good, ways, begun }) => (Some(release), last_good, ways, begun),
            None => Default::default(),
        };
        let unasked = SourceView::unasked(config.display_url(), config.branch.clone());
        let view = SourceView { last_good, ..unasked };
        let desired = Self {
            source,
            config,
            roots: options.state_dir.join("gcroots"),
            memory,
            fetch_due: Instant::now(),
            fetching: None,
            view,
            commit_times: CommitTimes::default(),
            release,
            waiting: None,
            preparing: None,
            interrupted: None,
            number: 0,
            prepare_again: None,
            tries: 0,
        };
        (desired, Kept { ways, begun })
    }

    /// The release in force.
    pub fn release(&self) -> Option<&Release> {
        self.release.as_ref()
    }

    /// The source for the windows, with the times of the commits that nodes are shown with.
    pub fn view(&mut self, shown: &BTreeSet<String>) -> SourceView {
        self.view.commit_times = self.commit_times.of(shown, &self.source);
        self.view.clone()
    }

    /// This host's clock was stepped.
    pub fn clock_stepped(&mut self, by: SignedDuration) {
        for at in [&mut self.view.fetched_at, &mut self.view.evaluated_at].into_iter().flatten() {
            *at = moved(*at, by);
        }
    }

    /// Whether the source was asked at least once since the start, whatever it said.
    pub fn asked(&self) -> bool {
        self.view.fetched_at.is_some() || self.view.fetch_error.is_some()
    }

    /// Somebody says that there may be a new commit.
    pub fn fetch_now(&mut self) {
        self.fetch_due = Instant::now();
    }

    /// A person asks: fetches now, and what did not evaluate or build is tried now.
    pub fn try_now(&mut self) {
        self.fetch_now();
        self.prepare_again = self.prepare_again.map(|at| at.min(Instant::now()));
    }

    /// Ends fetch, evaluation and builds.
    pub fn cancel(&mut self) {
        (self.fetching, self.preparing, self.waiting) = (None, None, None);
    }

    /// Starts what is due. Returns when the next thing will be.
    pub fn advance(&mut self, nix: &Nix, desk: &Desk) -> Instant {
        let now = Instant::now();
        if self.fetching.is_none() && self.fetch_due <= now {
            self.start_fetch(desk);
        }
        if self.prepare_again.is_some_and(|at| at <= now)
            && self.preparing.is_none()
            && self.waiting.is_none()
        {
            self.prepare_again = None;
            self.waiting = self.worth_preparing();
        }
        if self.preparing.is_none()
            && let Some(revision) = self.waiting.take()
        {
            self.start_preparation(revision, nix, desk);
        }
        let fetch = if self.fetching.is_none() { self.fetch_due } else { now + self.config.timeout };
        self.prepare_again.map_or(fetch, |again| again.min(fetch))
    }

    /// What is tried again: the newest commit or, where that is refused, the one in force.
    fn worth_preparing(&self) -> Option<Revision> {
        let refused = self.view.blocked.as_ref().is_some_and(Blocked::is_rewrite);
        if refused { self.release.as_ref()?.revision.clone() } else { self.view.head.clone() }
    }

    fn start_fetch(&mut self, desk: &Desk) {
        let (source, desk) = (self.source.clone(), desk.clone());
        let in_force = self.view.last_good.as_ref().map(|revision| revision.commit.clone());
        // A tenth at random: a thousand controllers behind one forge do not ask at the same moment.
        self.fetch_due = Instant::now() + self.config.poll.mul_f64(1.0 + rand::rng().random_range(0.0..0.1));
        self.fetching = Some(AbortOnDropHandle::new(tokio::spawn(async move {
            let began = Instant::now();
            let outcome = fetch(source, in_force).await;
            desk.hand_in(News::Fetched { outcome, took: began.elapsed() });
        })));
    }

    fn start_preparation(&mut self, revision: Revision, nix: &Nix, desk: &Desk) {
        self.number += 1;
        let number = self.number;
        tracing::info!(revision = revision.commit.short(), subject = revision.subject, "preparing");
        let job = Preparation {
            source: self.source.clone(),
            nix: nix.clone(),
            revision: revision.clone(),
            config: self.config.clone(),
            roots: self.roots.clone(),
        };
        let desk = desk.clone();
        let task = tokio::spawn(async move {
            prepare(job, |step| desk.hand_in(News::Prepared { number, step })).await;
        });
        self.preparing = Some(Preparing::new(revision, task));
    }

    /// Takes in what a fetch found. A new head cancels whatever was being prepared.
    pub fn fetched(&mut self, outcome: Result<Fetched, SourceError>, took: Duration, metrics: &Metrics) {
        self.fetching = None;
        match outcome {
            Ok(Fetched { revision, lineage }) => {
                metrics.fetched(FetchResult::Success, took);
                self.view.fetched_at = Some(Timestamp::now());
                self.view.fetch_error = None;
                self.commit_times.fetched();
                let was_refused = self.view.blocked.as_ref().is_some_and(Blocked::is_rewrite);
                let known = self.view.head.as_ref().is_some_and(|head| head.commit == revision.commit);
                match lineage {
                    Lineage::Rewritten if !(known && was_refused) => self.refuse_head(revision, metrics),
                    Lineage::Rewritten => {}
                    Lineage::Continued if !known || was_refused => self.new_head(revision, metrics),
                    Lineage::Continued => {}
                }
            }
            Err(error) => {
                metrics.fetched(counted::fetch(&error), took);
                let said = error_chain(&error);
                if self.view.fetch_error.as_ref() != Some(&said) {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "fetch failed; the last good release stays in force"
                    );
                }
                self.view.fetch_error = Some(said);
            }
        }
    }

    fn new_head(&mut self, revision: Revision, metrics: &Metrics) {
        tracing::info!(revision = revision.commit.short(), subject = revision.subject, "new head");
        self.supersede(metrics);
        self.view.blocked = None;
        self.view.head = Some(revision.clone());
        self.waiting = Some(revision);
    }

    /// A rewritten branch is not followed until a person says so: it may be a mistake, or an old commit replayed.
    fn refuse_head(&mut self, revision: Revision, metrics: &Metrics) {
        let again = self.prepare_again;
        self.supersede(metrics);
        self.prepare_again = again;
        self.waiting = self.interrupted_by(&revision);
        let head = revision.commit.short();
        let message = format!(
            "the branch was rewritten: {head} does not descend from the revision in force; push on top of that, or run \
             `driftless accept-history {head}`"
        );
        tracing::warn!(revision = head, message, "head blocked");
        self.view.blocked = Some(Blocked { reason: BlockedReason::NonFastForward, message });
        self.view.head = Some(revision);
    }

    fn supersede(&mut self, metrics: &Metrics) {
        (self.prepare_again, self.tries, self.waiting) = (None, 0, None);
        let Some(superseded) = self.preparing.take() else { return };
        metrics.evaluated(EvaluationResult::Superseded, superseded.began.elapsed());
        let in_force = self.release.as_ref().and_then(|release| release.revision.as_ref());
        if in_force != Some(&superseded.revision) {
            self.interrupted = Some(superseded.revision);
        }
    }

    /// The commit that `head` interrupted, now that `head` comes to nothing.
    fn interrupted_by(&mut self, head: &Revision) -> Option<Revision> {
        let interrupted = self.interrupted.take().filter(|revision| revision != head);
        interrupted.or_else(|| unfinished(self.release.as_ref()?, head))
    }

    /// Keeps the release in force for a successor.
    pub fn remember(&mut self, reconciler: &Reconciler) {
        if let Some(release) = &self.release {
            self.memory.keep(Now::of(release, self.view.last_good.as_ref(), reconciler));
        }
    }

    /// The same, at the end: what the last pass changed is kept too.
    pub async fn remember_all(&mut self, reconciler: &Reconciler) {
        if let Some(release) = &self.release {
            self.memory.flush(Now::of(release, self.view.last_good.as_ref(), reconciler)).await;
        }
    }

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
                None => self.learn(step),
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
            Verdict::Refused(losses) => {
                let Some(preparing) = &self.preparing else { return };
                let message = losses.message(preparing.revision.commit.short());
                self.blocked(Blocked { reason: BlockedReason::MassRemoval, message });
            }
        }
    }

    /// Puts a commit in force, as far as it is known.
    fn enter(&mut self, candidate: Candidate) {
        let Some(preparing) = &self.preparing else { return };
        let revision = preparing.revision.clone();
        self.interrupted = None;
        let before = self.release.take();
        self.release = Some(begin(before, revision, &candidate.names, |name| rooted(&self.roots, name)));
        for step in candidate.steps {
            self.learn(step);
        }
    }

    /// Takes in what was found out about a node.
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
        if good == 0 && bad > 0 && head {
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
