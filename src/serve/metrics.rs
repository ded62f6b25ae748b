//! What Prometheus reads: counters that the controller feeds by event, and gauges taken from the snapshot at scrape.
//!
//! Nothing about a node is remembered here: its series are made anew for every scrape and vanish with it. Counters and
//! histograms never carry a node, and every word of a closed enum exists at 0 from the start, so that `increase()` sees
//! the first event.

mod event;
mod fleet;
mod process;

pub use event::{
    BuildResult, DeploymentMeter, DeploymentResult, EvaluationResult, FetchResult, PublicationResult,
    RebootResult,
};

use std::time::Duration;

use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts, Registry,
    TextEncoder,
};

use crate::model::node::Goal;
use crate::model::snapshot::Snapshot;

/// Seconds: a pass of the loop.
const PASS: &[f64] = &[0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10.0, 60.0];
/// Seconds: a fetch; the default deadline is 300 s.
const FETCH: &[f64] = &[0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];
/// Seconds: evaluations and builds, from cached to a kernel.
const WORK: &[f64] = &[0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0, 7200.0];
/// Seconds: a phase of a deployment; switching settles for up to 90 s, copies take as long as the line does.
const PHASE: &[f64] = &[0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0];
/// Seconds: an HTTP answer.
const ANSWER: &[f64] = &[0.001, 0.005, 0.025, 0.1, 0.5, 2.5];

/// The controller's own figures.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    reconciles: IntCounter,
    reconcile_seconds: Histogram,
    fetches: IntCounterVec,
    fetch_seconds: Histogram,
    evaluations: IntCounterVec,
    evaluation_seconds: Histogram,
    builds: IntCounterVec,
    build_seconds: Histogram,
    publications: IntCounterVec,
    deployments: IntCounterVec,
    reboots: IntCounterVec,
    phase_seconds: HistogramVec,
    copied_bytes: IntCounter,
    requests: IntCounterVec,
    request_seconds: HistogramVec,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Figures that all stand at 0.
    pub fn new() -> Self {
        let registry = Registry::new();
        let make = Make(&registry);
        let metrics = Self {
            reconciles: make.counter("driftless_reconciles_total", "Passes of the control loop."),
            reconcile_seconds: make.histogram(
                "driftless_reconcile_duration_seconds",
                "Time that one pass of the control loop took.",
                PASS,
            ),
            fetches: make.counters("driftless_git_fetches_total", "Fetches from the source.", &["result"]),
            fetch_seconds: make.histogram(
                "driftless_git_fetch_duration_seconds",
                "Time that one fetch from the source took.",
                FETCH,
            ),
            evaluations: make.counters(
                "driftless_evaluations_total",
                "Evaluations of a revision's deployment.",
                &["result"],
            ),
            evaluation_seconds: make.histogram(
                "driftless_evaluation_duration_seconds",
                "Time that the evaluation of one revision took.",
                WORK,
            ),
            builds: make.counters("driftless_builds_total", "Builds of a node's system.", &["result"]),
            build_seconds: make.histogram(
                "driftless_build_duration_seconds",
                "Time that the build of one node's system took.",
                WORK,
            ),
            publications: make.counters(
                "driftless_publications_total",
                "Built systems that were to be signed or pushed to the binary cache.",
                &["result"],
            ),
            deployments: make.counters(
                "driftless_deployments_total",
                "Deployments to a node, by goal and by how they ended.",
                &["operation", "result"],
            ),
            reboots: make.counters(
                "driftless_reboots_total",
                "Reboots of a node, by what came of them.",
                &["result"],
            ),
            phase_seconds: make.histograms(
                "driftless_deployment_phase_duration_seconds",
                "Time that deployments spent in one phase. Without health checks, a commit of less than 5 s counts as contact.",
                &["phase"],
                PHASE,
            ),
            copied_bytes: make
                .counter("driftless_closure_copied_bytes_total", "Bytes of closures copied to nodes."),
            requests: make.counters(
                "driftless_http_requests_total",
                "HTTP requests answered, by route.",
                &["handler", "method", "code"],
            ),
            request_seconds: make.histograms(
                "driftless_http_request_duration_seconds",
                "Time that HTTP answers took, by route.",
                &["handler", "method"],
                ANSWER,
            ),
            registry: registry.clone(),
        };
        metrics.start_at_zero();
        let revision = option_env!("DRIFTLESS_REVISION").unwrap_or("unknown");
        let info =
            make.gauges("driftless_build_info", "The running program; always 1.", &["version", "revision"]);
        info.with_label_values(&[env!("CARGO_PKG_VERSION"), revision]).set(1.0);
        metrics
    }

    fn start_at_zero(&self) {
        for result in FetchResult::ALL {
            self.fetches.with_label_values(&[result.as_str()]);
        }
        for result in EvaluationResult::ALL {
            self.evaluations.with_label_values(&[result.as_str()]);
        }
        for result in BuildResult::ALL {
            self.builds.with_label_values(&[result.as_str()]);
        }
        for result in PublicationResult::ALL {
            self.publications.with_label_values(&[result.as_str()]);
        }
        for goal in [Goal::Switch, Goal::Boot, Goal::Test] {
            for result in DeploymentResult::all() {
                self.deployments.with_label_values(&[goal.as_str(), result.as_str()]);
            }
        }
        for result in RebootResult::ALL {
            self.reboots.with_label_values(&[result.as_str()]);
        }
        for phase in event::PHASES {
            self.phase_seconds.with_label_values(&[phase]);
        }
    }

    /// A pass of the loop is over.
    pub fn reconciled(&self, took: Duration) {
        self.reconciles.inc();
        self.reconcile_seconds.observe(took.as_secs_f64());
    }

    /// A fetch is over.
    pub fn fetched(&self, result: FetchResult, took: Duration) {
        self.fetches.with_label_values(&[result.as_str()]).inc();
        self.fetch_seconds.observe(took.as_secs_f64());
    }

    /// The evaluation of one revision is over, or was given up.
    pub fn evaluated(&self, result: EvaluationResult, took: Duration) {
        self.evaluations.with_label_values(&[result.as_str()]).inc();
        self.evaluation_seconds.observe(took.as_secs_f64());
    }

    /// The build of one node's system is over, or was given up.
    pub fn built(&self, result: BuildResult, took: Duration) {
        self.builds.with_label_values(&[result.as_str()]).inc();
        self.build_seconds.observe(took.as_secs_f64());
    }

    /// A built system was published, or could not be.
    pub fn published(&self, result: PublicationResult) {
        self.publications.with_label_values(&[result.as_str()]).inc();
    }

    /// A deployment is over; [`DeploymentMeter`] calls it.
    pub fn deployed(&self, goal: Goal, result: DeploymentResult) {
        self.deployments.with_label_values(&[goal.as_str(), result.as_str()]).inc();
    }

    /// A node was to be rebooted.
    pub fn rebooted(&self, result: RebootResult) {
        self.reboots.with_label_values(&[result.as_str()]).inc();
    }

    /// An HTTP request was answered.
    pub fn answered(&self, handler: &str, method: &str, code: u16, took: Duration) {
        self.requests.with_label_values(&[handler, method, &code.to_string()]).inc();
        self.request_seconds.with_label_values(&[handler, method]).observe(took.as_secs_f64());
    }

    /// Everything, in Prometheus' text format.
    pub fn render(&self, snapshot: &Snapshot) -> Result<String, prometheus::Error> {
        let now = Registry::new();
        fleet::export(&Make(&now), snapshot);
        process::export(&Make(&now));
        let mut families = self.registry.gather();
        families.extend(now.gather());
        TextEncoder::new().encode_to_string(&families)
    }
}

/// Makes and registers a metric. Names are literals, each used once; the tests make them all.
struct Make<'a>(&'a Registry);

const VALID: &str = "metric and label names are literals of the right form";
const ONCE: &str = "every metric is registered once";

impl Make<'_> {
    fn gauge(&self, name: &str, help: &str) -> Gauge {
        let made = Gauge::new(name, help).expect(VALID);
        self.0.register(Box::new(made.clone())).expect(ONCE);
        made
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> GaugeVec {
        let made = GaugeVec::new(Opts::new(name, help), labels).expect(VALID);
        self.0.register(Box::new(made.clone())).expect(ONCE);
        made
    }

    fn counter(&self, name: &str, help: &str) -> IntCounter {
        let made = IntCounter::new(name, help).expect(VALID);
        self.0.register(Box::new(made.clone())).expect(ONCE);
        made
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        let made = IntCounterVec::new(Opts::new(name, help), labels).expect(VALID);
        self.0.register(Box::new(made.clone())).expect(ONCE);
        made
    }

    fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Histogram {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        let made = Histogram::with_opts(options).expect(VALID);
        self.0.register(Box::new(made.clone())).expect(ONCE);
        made
    }

    fn histograms(&self, name: &str, help: &str, labels: &[&str], buckets: &[f64]) -> HistogramVec {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        let made = HistogramVec::new(options, labels).expect(VALID);
        self.0.register(Box::new(made.clone())).expect(ONCE);
        made
    }
}
