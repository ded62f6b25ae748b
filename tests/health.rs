//! Health checks on real nodes: at the verdict, before a switch, and from then on. What they ask is real, too: a server that
//! says what a test wants, sshd, the node's own curl and bash, Prometheus.

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use driftless_lab::Fleet;
use serde_json::{Value, json};

use crate::beginning::{commit, fleet};

const SOON: Duration = Duration::from_secs(60);

/// A server of HTTP that says the same to everybody.
pub struct Server {
    pub port: u16,
    says: Arc<Mutex<(String, String)>>,
    asked: Arc<Mutex<usize>>,
}

impl Server {
    /// Says this status and body until it is told otherwise.
    pub fn start(status: &str, body: &str) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let says = Arc::new(Mutex::new((status.to_owned(), body.to_owned())));
        let asked = Arc::new(Mutex::new(0));
        let (words, count) = (Arc::clone(&says), Arc::clone(&asked));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { continue };
                let mut request = [0; 4096];
                let _ = stream.read(&mut request);
                *count.lock().unwrap() += 1;
                let (status, body) = words.lock().unwrap().clone();
                let head = format!(
                    "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                    body.len()
                );
                let _ = stream.write_all((head + &body).as_bytes());
            }
        });
        Self { port, says, asked }
    }

    pub fn says(&self, status: &str, body: &str) {
        *self.says.lock().unwrap() = (status.to_owned(), body.to_owned());
    }

    fn asked(&self) -> usize {
        *self.asked.lock().unwrap()
    }
}

fn text(text: &str) -> String {
    format!("configuration.lab.text = \"{text}\";")
}

fn hold<'a>(seen: &'a Value, name: &str) -> &'a Value {
    &seen["nodes"][name]["decision"]["hold"]
}

fn switches(fleet: &Fleet, name: &str) -> usize {
    let list = fleet.nodes[name].enter("ls /var/lib/driftless-node/switches 2>/dev/null | wc -l").unwrap();
    list.stdout.trim().parse().unwrap()
}

fn has_metric(fleet: &Fleet, line: &str) {
    let metrics = fleet.get("/metrics").unwrap();
    assert!(metrics.lines().any(|found| found == line), "{line} is not in {metrics}");
}

/// The host, as nodes of the lab reach it.
pub fn gateway(fleet: &Fleet) -> Ipv4Addr {
    match fleet.nodes["n1"].address() {
        IpAddr::V4(address) => {
            let [a, b, c, _] = address.octets();
            Ipv4Addr::new(a, b, c, 1)
        }
        IpAddr::V6(_) => panic!("a lab node has an address of IPv4"),
    }
}

#[test]
fn a_page_must_stay_well_to_be_accepted_and_one_that_says_something_else_rolls_back() {
    let server = Server::start("503 Service Unavailable", "starting");
    let mut fleet = fleet(&["n1"]);
    let check = |text: &str| {
        format!(
            "configuration.lab.text = \"{text}\"; healthChecks.http.web = {{ url = \"http://127.0.0.1:{}/{{node}}\"; \
             successes = 3; body = \"open (all|half) day\"; }};",
            server.port
        )
    };
    let first = commit(&fleet, "first", |_| check("one"));
    fleet.start().unwrap();
    let detail =
        |seen: &Value| seen["nodes"]["n1"]["inFlight"]["stage"]["detail"].as_str().map(str::to_owned);
    fleet
        .wait("the page is waited for", SOON, |seen| detail(seen).as_deref() == Some("http web: 0 of 3"))
        .unwrap();
    server.says("200 OK", "open all day");
    fleet.wait("it is well", SOON, |seen| detail(seen).as_deref() == Some("http web: 2 of 3")).unwrap();
    fleet.wait_in_sync(&first, SOON).unwrap();
    assert!(server.asked() >= 4, "{} requests", server.asked());

    server.says("200 OK", "closed");
    commit(&fleet, "second", |_| check("two"));
    let given_up = |seen: &Value| hold(seen, "n1")["kind"] == "given-up";
    let seen = fleet.wait("it is rolled back", SOON, given_up).unwrap();
    let words = "http web: the body does not match \"open (all|half) day\"; it says: closed";
    assert!(hold(&seen, "n1")["detail"].as_str().unwrap().contains(words), "{seen:#}");
    assert!(seen["nodes"]["n1"]["why"].as_str().unwrap().contains("http web: the body"), "{seen:#}");
    let journal = fleet.nodes["n1"].enter("cat /var/lib/driftless-node/switches/*/summary").unwrap().stdout;
    assert!(journal.contains(words), "{journal}");
}

#[test]
fn a_check_that_begins_to_fail_makes_its_node_degraded_until_it_passes_again() {
    let server = Server::start("200 OK", "fine");
    let mut fleet = fleet(&["n1"]);
    fleet.nodes["n1"]
        .enter("systemd-run --quiet --unit=chronic false; sleep 0.5; systemctl --failed")
        .unwrap();
    let wide = format!(
        "rollout.healthChecks = {{ interval = 1; http.web.url = \"http://127.0.0.1:{}/\"; tcp.ssh.port = 22; }};",
        server.port
    );
    let deployment = fleet.deployment(&wide, |_| text("one"));
    let first = fleet.commit("first", &[("deployment.nix", &deployment)]).unwrap();
    fleet.start().unwrap();
    let seen = fleet.wait_in_sync(&first, SOON).unwrap();
    let state = &seen["nodes"]["n1"]["observation"]["state"];
    assert_eq!(state["baseline"], json!(["chronic.service"]), "what had failed before is not degraded");
    assert_eq!(state["failedUnits"], json!(["chronic.service"]));

    server.says("500 Internal Server Error", "out of order");
    let degraded = |seen: &Value| hold(seen, "n1")["kind"] == "degraded";
    let seen = fleet.wait("the node is degraded", SOON, degraded).unwrap();
    assert_eq!(*hold(&seen, "n1"), json!({ "kind": "degraded", "units": [], "checks": ["http web"] }));
    let why = seen["nodes"]["n1"]["why"].as_str().unwrap();
    let expected = "degraded: http web fails: status 500, expected 200 to 399; it says: out of order";
    assert_eq!(why, expected);
    let health = &seen["nodes"]["n1"]["observation"]["health"];
    assert_eq!((health[0]["name"].as_str(), health[0]["since"].is_string()), (Some("http web"), true));
    has_metric(&fleet, r#"driftless_node_failing_checks{node="n1"} 1"#);
    let said = fleet.driftless(&["status"]).unwrap();
    assert!(said.stdout.contains("http web fails: status 500"), "{said:?}");

    server.says("200 OK", "fine");
    fleet.wait_in_sync(&first, SOON).unwrap();
    has_metric(&fleet, r#"driftless_node_failing_checks{node="n1"} 0"#);
    fleet.nodes["n1"].enter("systemd-run --quiet --unit=fresh false").unwrap();
    let seen = fleet.wait("a unit has failed since", SOON, degraded).unwrap();
    assert_eq!(*hold(&seen, "n1"), json!({ "kind": "degraded", "units": ["fresh.service"], "checks": [] }));
    assert_eq!(switches(&fleet, "n1"), 1, "no check ever brings about a deployment");
}

#[test]
fn what_must_hold_before_a_switch_keeps_the_node_untouched_until_it_does() {
    let server = Server::start("503 Service Unavailable", "maintenance");
    let mut fleet = fleet(&["n1"]);
    let body = format!(
        "{} healthChecks.before = {{ http.gate.url = \"http://127.0.0.1:{}/\"; commands.ssh = \"test -e /etc/NIXOS\"; }};",
        text("one"),
        server.port
    );
    let first = commit(&fleet, "first", |_| body.clone());
    fleet.start().unwrap();
    let held = |seen: &Value| hold(seen, "n1")["kind"] == "backoff";
    let seen = fleet.wait("it is held", SOON, held).unwrap();
    let words = "its check http gate must pass first: status 503, expected 200 to 399; it says: maintenance";
    assert!(hold(&seen, "n1")["error"].as_str().unwrap().contains(words), "{seen:#}");
    assert_eq!(seen["nodes"]["n1"]["state"], "held");
    assert_eq!(switches(&fleet, "n1"), 0);
    assert!(!fleet.nodes["n1"].path("/nix/var/nix/gcroots/driftless").exists(), "nothing was brought");
    server.says("200 OK", "go on");
    fleet.hang_up().unwrap();
    fleet.wait_in_sync(&first, SOON).unwrap();
}

#[test]
fn a_node_asks_by_its_own_curl_and_bash() {
    let server = Server::start("200 OK", "it's \"fine\" $HOME");
    let mut fleet = fleet(&["n1"]);
    let gateway = gateway(&fleet);
    let check = |port: u16, text: &str| {
        format!(
            "configuration.lab.text = \"{text}\"; healthTimeout = 5; healthChecks = {{
               http.page = {{ url = \"http://{gateway}:{}/\"; from = \"node\"; body = \"^it's \\\"fine\\\" [$]HOME$\"; \
                              headers.X-Name = \"it's; $(id)\"; }};
               tcp.ssh = {{ port = {port}; from = \"node\"; }};
             }};",
            server.port
        )
    };
    let first = commit(&fleet, "first", |_| check(22, "one"));
    fleet.start().unwrap();
    fleet.wait_in_sync(&first, SOON).unwrap();
    commit(&fleet, "second", |_| check(23, "two"));
    let given_up = |seen: &Value| hold(seen, "n1")["kind"] == "given-up";
    let seen = fleet.wait("nobody listens there", SOON, given_up).unwrap();
    let detail = hold(&seen, "n1")["detail"].as_str().unwrap();
    assert!(detail.contains("tcp ssh: ") && detail.contains("Connection refused"), "{detail}");
    assert!(!detail.contains("http page"), "{detail}");
}

/// A Prometheus that reads itself and a target that is not there, and has alerts of driftless and of somebody else.
struct Prometheus {
    child: Child,
    port: u16,
    _dir: tempfile::TempDir,
}

impl Prometheus {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = format!(
            "global: {{ scrape_interval: 1s, evaluation_interval: 1s }}\nrule_files: [ rules.yml ]\nscrape_configs:\n  \
             - {{ job_name: self, static_configs: [ {{ targets: [ '127.0.0.1:{port}' ] }} ] }}\n  \
             - {{ job_name: gone, static_configs: [ {{ targets: [ '127.0.0.1:1' ] }} ] }}\n"
        );
        let rules =
            "groups: [ { name: g, rules: [ { alert: DriftlessNodeRolledBack, expr: vector(1) } ] } ]\n";
        fs::write(dir.path().join("prometheus.yml"), config).unwrap();
        fs::write(dir.path().join("rules.yml"), rules).unwrap();
        let child = Command::new("prometheus")
            .current_dir(dir.path())
            .arg("--config.file=prometheus.yml")
            .arg("--storage.tsdb.path=data")
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("prometheus (Debian: package prometheus)");
        Self { child, port, _dir: dir }
    }

    fn stop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Waits until it has found something.
    fn knows(&self, query: &str) {
        let began = Instant::now();
        let url = format!("http://127.0.0.1:{}/api/v1/query", self.port);
        while began.elapsed() < SOON {
            let said = Command::new("curl")
                .args(["-s", "--noproxy", "*", "--data-urlencode", &format!("query={query}"), &url])
                .output()
                .unwrap();
            if String::from_utf8_lossy(&said.stdout).contains("\"metric\"") {
                return;
            }
            thread::sleep(Duration::from_millis(100));
        }
        panic!("Prometheus never knew {query}");
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        self.stop();
    }
}

#[test]
fn prometheus_is_asked_and_its_silence_is_a_failure() {
    let mut prometheus = Prometheus::start();
    let mut fleet = fleet(&["n1"]);
    let check = |text: &str, query: &str, expect: &str| {
        format!(
            "configuration.lab.text = \"{text}\"; healthTimeout = 5; healthChecks = {{
               interval = 1;
               prometheus.asked = {{ url = \"http://127.0.0.1:{}\"; query = \"{query}\"; expect = \"{expect}\"; }};
               prometheus.alerts = {{ url = \"http://127.0.0.1:{}/\"; query = \"ALERTS{{alertstate=\\\"firing\\\"}}\"; \
                                      expect = \"empty\"; }};
             }};",
            prometheus.port, prometheus.port
        )
    };
    let commits = [check("one", "up{job=\\\"self\\\"} == 1", "non-empty"), check("two", "up == 0", "empty")];
    prometheus.knows("ALERTS{alertstate=\"firing\"}");
    prometheus.knows("up == 1");
    let first = commit(&fleet, "first", |_| commits[0].clone());
    fleet.start().unwrap();
    fleet.wait_in_sync(&first, SOON).unwrap();
    prometheus.knows("up == 0");
    commit(&fleet, "second", |_| commits[1].clone());
    let given_up = |seen: &Value| hold(seen, "n1")["kind"] == "given-up";
    let seen = fleet.wait("something is down", SOON, given_up).unwrap();
    let detail = hold(&seen, "n1")["detail"].as_str().unwrap();
    assert!(
        detail.contains("prometheus asked: expected nothing, found 1: ") && detail.contains("\"gone\""),
        "{detail}"
    );

    let first = commit(&fleet, "third", |_| commits[0].clone());
    fleet.wait_in_sync(&first, SOON).unwrap();
    prometheus.stop();
    let degraded = |seen: &Value| hold(seen, "n1")["kind"] == "degraded";
    let seen = fleet.wait("its silence is seen", SOON, degraded).unwrap();
    assert_eq!(hold(&seen, "n1")["checks"], json!(["prometheus alerts", "prometheus asked"]), "{seen:#}");
    let why = seen["nodes"]["n1"]["why"].as_str().unwrap();
    assert!(why.contains("cannot connect to 127.0.0.1 port"), "{why}");
}
