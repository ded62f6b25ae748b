//! What Git wants: fetches the branch, prepares its newest commit, and keeps the release that is in force.
//!
//! Owns the way from the source to the release; whether a release is acted on is `plan`'s.

mod entering;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use rand::Rng;
use tokio_util::task::AbortOnDropHandle;

use super::commit_times::CommitTimes;
use super::head::{Fetched, fetch};
use super::memory::{Memory, MemoryFile, Now};
use super::prepare::{Preparation, prepare};
use super::preparing::Preparing;
use super::{Desk, News, Options, counted};
use crate::error_chain::error_chain;
use crate::model::release::Release;
use crate::model::revision::Revision;
use crate::model::snapshot::{Blocked, BlockedReason, SourceView};
use crate::nix::Nix;
use crate::reconcile::clock::moved;
use crate::reconcile::succession::unfinished;
use crate::reconcile::{Left, Reconciler};
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
    /// Starts with what is remembered: the release in force, and what nobody else knows of the nodes.
    pub fn new(source: Source, options: &Options) -> (Self, Left) {
        let config = options.config.source.clone();
        let memory = MemoryFile::of(&options.state_dir);
        let (release, last_good, left) = match memory.load() {
            Some(Memory { release, last_good, left }) => (Some(release), last_good, left),
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
        (desired, left)
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
}
