//! The controller: one loop that owns all state. It wakes, re-reads the world, plans, starts actions, and publishes one
//! immutable snapshot.
//!
//! A wake-up carries no data: timer, commit, finished task and SIGHUP are all "look again". Fetching, evaluating,
//! building, observing and switching run as tasks beside the loop, so that a slow one never delays the rest; what they
//! found waits in a queue until the next pass reads it. Nothing is decided here: that is `plan`'s.

mod affected;
mod beginning;
mod candidate;
mod commit_times;
mod compare;
mod connections;
mod counted;
mod desired;
mod desk;
mod error;
mod execute;
mod head;
mod health;
mod marks;
mod memory;
mod prepare;
mod preparing;
mod roots;
mod secrets;
mod state_lock;
mod steering;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::model::decision::Action;
use crate::model::journal::Outcome;
use crate::model::name::NodeName;
use crate::model::release::Release;
use crate::model::snapshot::{NodeView, Ready, Snapshot};
use crate::nix::Nix;
use crate::reconcile::clock::Moment;
use crate::reconcile::{HEARTBEAT, Reconciler, Settings};
use crate::serve;
use crate::serve::metrics::Metrics;
use crate::source::{self, Source};

use compare::Comparisons;
use connections::Connections;
use desired::Desired;
use desk::{Desk, News};
pub use error::ControllerError;
use execute::{Ended, Running};
use health::Rounds;
use secrets::Refreshes;
pub use state_lock::StateError;
use steering::Steering;
pub use steering::{AtRestError, edit_at_rest};

/// After a pass, so many times its own length belongs to everything else: however often it is woken, the loop takes at
/// most a fifth of one processor, and what arrives meanwhile is read in one go.
const REST: u32 = 4;
/// No rest is longer.
const LONGEST_REST: Duration = Duration::from_secs(1);
/// How long a shutdown waits for switches that are running on nodes. A successor re-attaches to what is left. With what
/// comes after it, less than the `TimeoutStopSec` of `deploy/driftless.service`.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(40);

/// What a controller is started with.
#[derive(Debug, Clone)]
pub struct Options {
    /// The configuration.
    pub config: Config,
    /// Clone, checkouts, GC roots, cache.
    pub state_dir: PathBuf,
    /// Sockets of kept connections; its path must be short (unix(7): 108 bytes).
    pub runtime_dir: PathBuf,
}

/// Everything the loop owns.
struct Controller {
    options: Options,
    desk: Desk,
    inbox: mpsc::UnboundedReceiver<News>,
    metrics: Arc<Metrics>,
    nix: Nix,
    desired: Desired,
    reconciler: Reconciler,
    connections: Connections,
    running: Running,
    comparisons: Comparisons,
    refreshes: Refreshes,
    rounds: Rounds,
    steering: Steering,
    passes: u64,
    ready: Ready,
    snapshot: watch::Sender<Arc<Snapshot>>,
}

/// Runs until `shutdown`; `reload` is a person who asks (SIGHUP, `driftless retry`): everything is tried now.
pub async fn run(
    options: Options,
    reload: Arc<Notify>,
    shutdown: CancellationToken,
) -> Result<(), ControllerError> {
    let _lock = state_lock::take_over(&options.state_dir).await?;
    let config = &options.config;
    let source = Source::open(&config.source, &options.state_dir).map_err(ControllerError::Source)?;
    let nix = Nix::new(&config.nix, &options.state_dir).map_err(ControllerError::Nix)?;
    let nix = nix.evaluating(&config.eval);
    nix.check_signing_key().map_err(ControllerError::SigningKey)?;
    serve::check_token_file(config.serve.token_file.as_deref()).map_err(ControllerError::Serve)?;
    let address = config.serve.listen;
    let tcp =
        TcpListener::bind(address).await.map_err(|source| ControllerError::Listen { address, source })?;
    let place = config.serve.socket.clone();
    let socket = serve::bind_socket(&place).map_err(ControllerError::Serve)?;

    let wake = Arc::new(Notify::new());
    let commits = Arc::new(Notify::new());
    // A watch that cannot be set up leaves the poll: later, not never.
    let _watch = source::watch(&config.source.url, commits.clone()).inspect_err(|error| {
        tracing::warn!(error = error as &dyn std::error::Error, "not watching the repository")
    });
    let (news, inbox) = mpsc::unbounded_channel();
    let (snapshot, look) = watch::channel(Arc::new(Snapshot::starting(config, Timestamp::now())));
    let metrics = Arc::new(Metrics::new());
    let (tell, wishes) = mpsc::channel(steering::WISHES);
    let hatch = serve::steer::Hatch::new(tell, wake.clone());
    let controls =
        serve::Controls { look: reload.clone(), hatch, token_file: config.serve.token_file.clone() };
    let windows = serve::run(tcp, Some(socket), look, metrics.clone(), controls, shutdown.clone());
    let windows = tokio::spawn(windows);

    let (desired, left) = Desired::new(source, &options);
    let settings = Settings { interval: options.config.observe.interval, hooks: options.config.source.hooks };
    let controller = Controller {
        desk: Desk { news, wake: wake.clone() },
        inbox,
        metrics,
        reconciler: Reconciler::new(settings, left, now(), rand::random()),
        connections: Connections::new(&options),
        desired,
        nix,
        running: Running::default(),
        comparisons: Comparisons::default(),
        refreshes: Refreshes::new(options.config.secrets.refresh),
        rounds: Rounds::default(),
        steering: Steering::new(&options.state_dir, wishes),
        passes: 0,
        ready: Ready::Starting,
        snapshot,
        options,
    };
    controller.run(&wake, &commits, &reload, shutdown).await;
    // A panic in it was reported where it happened.
    let _ = windows.await;
    // Still under the lock of the state directory: no successor can have made it anew.
    serve::remove_socket(&place);
    Ok(())
}

impl Controller {
    async fn run(mut self, wake: &Notify, commits: &Notify, reload: &Notify, shutdown: CancellationToken) {
        tracing::info!(source = %self.options.config.source.display_url(), state = %self.options.state_dir.display(), "started");
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
        loop {
            let began = Instant::now();
            let next = self.pass();
            let _ = sd_notify::notify(&[sd_notify::NotifyState::Watchdog]);
            let rest = (began.elapsed() * REST).min(LONGEST_REST);
            tokio::select! {
                () = tokio::time::sleep(rest) => {}
                () = shutdown.cancelled() => break,
            }
            tokio::select! {
                () = wake.notified() => {}
                () = commits.notified() => self.desired.fetch_now(),
                () = reload.notified() => self.try_now(),
                () = tokio::time::sleep_until(next.into()) => {}
                () = shutdown.cancelled() => break,
            }
        }
        self.shut_down(wake).await;
    }

    /// A person asks (SIGHUP, `driftless retry`): fetch now, and what failed here or on the way to a node is tried now.
    fn try_now(&mut self) {
        self.desired.try_now();
        self.reconciler.try_now();
        self.refreshes.try_now();
        self.rounds.try_now();
        self.steering.marks.try_now();
    }

    /// One pass: read what tasks found, start what is due, plan, act, publish. Returns when to look again at the latest.
    fn pass(&mut self) -> Instant {
        let began = Instant::now();
        // Before anything is remembered by the stepped clock.
        self.tick();
        // Before the end of what has ended since: that it had begun must not be missed.
        self.read_stages();
        while let Ok(news) = self.inbox.try_recv() {
            self.take_in(news);
        }
        let mut next = (began + HEARTBEAT).min(self.desired.advance(&self.nix, &self.desk));
        let (views, now) = (self.reconciler.views(), self.reconciler.now());
        self.steering.hear(self.desired.release(), views, now, &self.desk);
        self.reconciler.wanted(Arc::clone(self.steering.intent()));
        for name in self.reconciler.give_up_suspended() {
            self.running.abort(&name);
        }
        if let Some(release) = self.desired.release().cloned() {
            self.rounds.tell(&mut self.reconciler);
            let orders = self.reconciler.pass(&release);
            self.connections.follow(&self.reconciler);
            orders.look.iter().for_each(|name| self.connections.read(name, &self.desk));
            orders.start.into_iter().for_each(|(name, action)| self.start(&release, &name, action));
            self.reconciler.show(&release, &orders.plan);
            let node = |name: &NodeName| self.connections.node(name).cloned();
            self.comparisons.show(&mut self.reconciler, node, &self.nix, &self.desk);
            let views = self.reconciler.views();
            self.refreshes.start(views, now, node, (&self.nix, &self.desk));
            next = self.rounds.start(views, node, &self.desk).map_or(next, |due| next.min(due));
            let marked = self.steering.mark(views, now, node, &self.desk);
            marked.iter().for_each(|name| self.reconciler.look_at(name));
            next = next.min(orders.next);
        }
        self.desired.remember(&self.reconciler);
        self.passes += 1;
        self.metrics.reconciled(began.elapsed());
        self.publish();
        self.steering.answer();
        next
    }

    fn tick(&mut self) {
        if let Some(by) = self.reconciler.tick(now()) {
            tracing::warn!(seconds = by.as_secs(), "the clock of this host was stepped");
            self.desired.clock_stepped(by);
            self.rounds.clock_stepped(by);
        }
    }

    fn take_in(&mut self, news: News) {
        match news {
            News::Fetched { outcome, took } => self.desired.fetched(outcome, took, &self.metrics),
            News::Prepared { number, step } => self.desired.prepared(number, step, &self.metrics),
            News::Observed { node, sight } => self.reconciler.looked(&node, *sight),
            News::Ended(ended) => self.ended(*ended),
            News::Compared { pair, packages } => {
                let differ = |view: &&mut Arc<NodeView>| compare::Pair::of(view).as_ref() == Some(&pair);
                for view in self.reconciler.views_mut().values_mut().filter(differ) {
                    Arc::make_mut(view).packages.clone_from(&packages);
                }
                self.comparisons.take_in(pair, packages);
            }
            News::HealthChecked { node, round } => self.rounds.took(&node, round, Timestamp::now()),
            News::SecretsCompared { node, toplevel, well: true } => self.refreshes.brought(&node, &toplevel),
            News::SecretsCompared { node, toplevel, well: false } => self.refreshes.failed(&node, &toplevel),
        }
    }

    fn read_stages(&mut self) {
        for (name, stage) in self.running.stages() {
            self.reconciler.reached(name, stage);
        }
    }

    fn ended(&mut self, Ended { node, entry, ended }: Ended) {
        self.running.forget(&node);
        self.connections.forget_read(&node);
        let well = entry.is_some_and(|entry| entry.outcome == Some(Outcome::Succeeded));
        self.rounds.switched(&node, well);
        if well {
            self.refreshes.brought(&node, &ended.toplevel);
        }
        self.reconciler.ended(&node, ended);
    }

    fn start(&mut self, release: &Release, name: &NodeName, action: Action) {
        let node = match self.connections.reach(name) {
            Some(Ok(node)) => node,
            Some(Err(sight)) => return self.desk.hand_in(Ended::unbegun(name, &action, sight)),
            // Only what is watched is acted on.
            None => return,
        };
        let job = execute::Job {
            node,
            action,
            revision: release.revision_of(name),
            nix: self.nix.clone(),
            metrics: self.metrics.clone(),
            hooks: self.options.config.source.hooks,
        };
        self.running.start(job, &self.desk);
    }

    fn publish(&mut self) {
        let revisions = |view: &'_ Arc<NodeView>| {
            [view.desired_revision.clone(), view.running_revision.clone()].into_iter().flatten()
        };
        let shown: BTreeSet<String> = self.reconciler.views().values().flat_map(revisions).collect();
        self.look_ready();
        let snapshot = Snapshot {
            version: 1,
            at: self.reconciler.now(),
            passes: self.passes,
            ready: self.ready,
            source: self.desired.view(&shown),
            intent: Arc::clone(self.reconciler.intent()),
            nodes: self.reconciler.views().clone(),
            waves: self.reconciler.waves().to_vec(),
        };
        self.snapshot.send_replace(Arc::new(snapshot));
    }

    /// Ready once means ready for good: a node that is added later makes nobody wait for this controller.
    fn look_ready(&mut self) {
        let whole = self.desired.asked()
            && self.desired.release().is_some_and(|release| self.reconciler.looked_at_all(release));
        if whole {
            self.ready = Ready::Ready;
        }
    }

    /// Ends what can be ended, waits a while for what must not be, and leaves the rest to the nodes and the successor.
    async fn shut_down(&mut self, wake: &Notify) {
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
        tracing::info!("shutting down");
        self.desired.cancel();
        self.connections.cancel();
        self.comparisons.cancel();
        self.refreshes.cancel();
        self.rounds.cancel();
        self.steering.marks.cancel();
        self.read_stages();
        for name in self.reconciler.give_up_unstarted() {
            self.running.abort(&name);
        }
        let deadline = Instant::now() + SHUTDOWN_GRACE;
        while self.reconciler.acting() > 0 {
            tokio::select! {
                () = wake.notified() => {}
                () = tokio::time::sleep_until(deadline.into()) => {
                    tracing::warn!(switches = self.reconciler.acting(), "left to the nodes; a successor re-attaches");
                    break;
                }
            }
            while let Ok(news) = self.inbox.try_recv() {
                if let News::Ended(ended) = news {
                    self.ended(*ended);
                }
            }
        }
        self.running.let_go();
        self.desired.remember_all(&self.reconciler).await;
        self.connections.close().await;
    }
}

/// What both clocks of this host show.
fn now() -> Moment {
    Moment { wall: Timestamp::now(), steady: Instant::now() }
}
