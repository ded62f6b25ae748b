//! The windows over real sockets: a running server, hand-made snapshots, raw HTTP, and Prometheus' own checker.

mod fleet;

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use driftless::model::journal::Outcome;
use driftless::model::node::Goal;
use driftless::model::snapshot::Snapshot;
use driftless::serve;
use driftless::serve::metrics::{
    BuildResult, DeploymentMeter, DeploymentResult, EvaluationResult, FetchResult, Metrics,
};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;

const DEADLINE: Duration = Duration::from_secs(30);

/// A running server and what a controller holds of it.
struct Windows {
    address: std::net::SocketAddr,
    folder: tempfile::TempDir,
    publish: watch::Sender<Arc<Snapshot>>,
    metrics: Arc<Metrics>,
    wake: Arc<Notify>,
    shutdown: CancellationToken,
    served: tokio::task::JoinHandle<()>,
    /// Nobody hears them.
    _wishes: mpsc::Receiver<serve::steer::Wish>,
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    fn error(&self) -> String {
        self.json()["error"].as_str().expect("an error in words").to_owned()
    }
}

impl Windows {
    async fn open(snapshot: Snapshot) -> Self {
        let tcp = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = tcp.local_addr().expect("an address");
        let folder = tempfile::tempdir().expect("a folder");
        let unix = serve::bind_socket(&folder.path().join("control.sock")).expect("a socket");
        let (publish, snapshot) = watch::channel(Arc::new(snapshot));
        let (metrics, wake) = (Arc::new(Metrics::new()), Arc::new(Notify::new()));
        let shutdown = CancellationToken::new();
        let (tell, wishes) = mpsc::channel(4);
        let (look, hatch) = (Arc::clone(&wake), serve::steer::Hatch::new(tell, Arc::new(Notify::new())));
        let controls = serve::Controls { look, hatch, token_file: None };
        let server = serve::run(tcp, Some(unix), snapshot, Arc::clone(&metrics), controls, shutdown.clone());
        let served = tokio::spawn(server);
        Self { address, folder, publish, metrics, wake, shutdown, served, _wishes: wishes }
    }

    fn publish(&self, snapshot: Snapshot) {
        self.publish.send_replace(Arc::new(snapshot));
    }

    async fn ask(&self, line: &str) -> Answer {
        self.ask_as(line, "localhost").await
    }

    async fn ask_as(&self, line: &str, host: &str) -> Answer {
        converse(TcpStream::connect(self.address).await.expect("a connection"), line, host).await
    }

    async fn ask_socket(&self, line: &str) -> Answer {
        let socket = UnixStream::connect(self.folder.path().join("control.sock")).await;
        converse(socket.expect("a connection"), line, "driftless").await
    }

    async fn metrics(&self) -> String {
        self.ask("GET /metrics").await.body
    }

    async fn close(self) {
        self.shutdown.cancel();
        within(self.served).await.expect("the server ends without a panic");
    }
}

async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, what).await.expect("no answer in time")
}

async fn converse(mut stream: impl AsyncRead + AsyncWrite + Unpin, line: &str, host: &str) -> Answer {
    let request = format!("{line} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    let mut text = String::new();
    within(async {
        stream.write_all(request.as_bytes()).await.expect("sent");
        stream.read_to_string(&mut text).await.expect("received");
    })
    .await;
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("not HTTP: {text:?}"));
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
    Answer { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
}

/// Everything happens once, as in a controller's life.
fn live_a_little(metrics: &Arc<Metrics>) {
    let took = Duration::from_millis(700);
    metrics.reconciled(took);
    metrics.fetched(FetchResult::Success, took);
    metrics.evaluated(EvaluationResult::Partial, took);
    metrics.built(BuildResult::Success, took);
    DeploymentMeter::start(Arc::clone(metrics), Goal::Switch)
        .ended(DeploymentResult::Ended(Outcome::RolledBack));
}

#[tokio::test]
async fn the_server_is_ready_only_after_the_first_full_pass() {
    let windows = Windows::open(fleet::starting()).await;
    let early = windows.ask("GET /readyz").await;
    assert_eq!((early.status, early.error().contains("first pass")), (503, true));
    assert_eq!(windows.ask("GET /healthz").await.status, 200);
    windows.publish(fleet::whole());
    assert_eq!(windows.ask("GET /readyz").await.status, 200);
    windows.close().await;
}

#[tokio::test]
async fn a_loop_that_stands_still_is_not_healthy() {
    let windows = Windows::open(fleet::whole()).await;
    let mut stuck = fleet::whole();
    stuck.at -= jiff::SignedDuration::from_hours(1);
    windows.publish(stuck);
    let answer = windows.ask("GET /healthz").await;
    assert_eq!(answer.status, 503);
    assert!(answer.error().contains("36") && answer.error().contains("stuck"), "{}", answer.body);
    assert!(windows.ask("GET /").await.body.contains("This is old."));
    windows.close().await;
}

#[tokio::test]
async fn the_json_is_the_snapshot_itself() {
    let windows = Windows::open(fleet::whole()).await;
    let sent = windows.publish.borrow().clone();
    let fleet: Snapshot = serde_json::from_str(&windows.ask("GET /api/v1/fleet").await.body).expect("JSON");
    assert_eq!(fleet, *sent);
    let node = windows.ask("GET /api/v1/nodes/vps3").await.json();
    assert_eq!(node["decision"]["hold"]["kind"], "given-up");
    windows.close().await;
}

#[tokio::test]
async fn the_command_line_reads_the_same_snapshot_from_the_socket() {
    let windows = Windows::open(fleet::whole()).await;
    let socket = windows.folder.path().join("control.sock");
    let read = within(driftless::cli::ask::fleet(&socket)).await.expect("an answer");
    assert_eq!(read, **windows.publish.borrow());
    windows.close().await;
}

#[tokio::test]
async fn wrong_questions_are_answered_in_json() {
    let windows = Windows::open(fleet::whole()).await;
    let cases = [
        ("GET /api/v1/nodes/web9", 404, "no node \"web9\""),
        ("GET /api/v1/nodes/%22%3Cb%3E", 404, "no node"),
        ("GET /api/v1/nodes/%ff", 400, "UTF-8"),
        ("GET /nothing/here", 404, "there is nothing at /nothing/here"),
        ("DELETE /api/v1/fleet", 405, "DELETE does not apply to /api/v1/fleet"),
        ("POST /api/v1/wake", 404, "there is nothing at /api/v1/wake"),
    ];
    for (line, status, words) in cases {
        let answer = windows.ask(line).await;
        assert_eq!(answer.status, status, "{line}");
        assert!(answer.error().contains(words), "{line}: {}", answer.body);
    }
    windows.close().await;
}

#[tokio::test]
async fn only_the_socket_wakes_the_controller_and_only_owner_and_group_may_open_it() {
    let windows = Windows::open(fleet::whole()).await;
    let path = windows.folder.path().join("control.sock");
    let mode = std::fs::metadata(&path).expect("the socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    assert_eq!(windows.ask_socket("POST /api/v1/wake").await.status, 202);
    within(windows.wake.notified()).await;
    assert_eq!(windows.ask_socket("GET /api/v1/fleet").await.status, 200);
    assert_eq!(windows.ask_socket("GET /api/v1/wake").await.status, 405);

    let second = serve::bind_socket(&path).expect_err("somebody listens").to_string();
    assert_eq!(second, format!("another controller listens on {}", path.display()));
    windows.served.abort();
    let _ = windows.served.await;
    // A child that another test is starting has a copy of the listening socket until it executes its program.
    let replaced = async {
        while serve::bind_socket(&path).is_err() {
            tokio::task::yield_now().await
        }
    };
    within(replaced).await;
}

#[tokio::test]
async fn a_web_page_cannot_read_the_fleet_through_a_name_of_its_own() {
    let windows = Windows::open(fleet::whole()).await;
    let answer = windows.ask_as("GET /api/v1/fleet", "rebound.evil.example:9737").await;
    assert_eq!(answer.status, 421);
    assert!(answer.error().contains("Host: localhost"), "{}", answer.body);
    assert_eq!(windows.ask_as("GET /healthz", "127.0.0.1:9737").await.status, 200);
    let page = windows.ask("GET /").await;
    assert!(page.head.contains("content-security-policy: default-src 'none'"), "{}", page.head);
    windows.close().await;
}

#[tokio::test]
async fn shutdown_does_not_wait_for_a_silent_client() {
    let windows = Windows::open(fleet::whole()).await;
    let mut silent = TcpStream::connect(windows.address).await.expect("a connection");
    silent.write_all(b"GET / HTTP/1.1\r\nHost: local").await.expect("sent");
    // Answered on another connection: the silent one has been accepted by then.
    assert_eq!(windows.ask("GET /healthz").await.status, 200);
    windows.close().await;
    let mut rest = Vec::new();
    let _ = within(silent.read_to_end(&mut rest)).await;
}

#[tokio::test]
async fn the_page_shows_trouble_first_and_escapes_what_it_is_told() {
    let windows = Windows::open(fleet::whole()).await;
    let page = windows.ask("GET /").await;
    assert!(page.head.contains("content-type: text/html; charset=utf-8"), "{}", page.head);
    let places = ["db2", "vps3", "mail", "old", "web2", "db1", "web1"]
        .map(|node| page.body.find(&format!("/api/v1/nodes/{node}\"")).expect(node));
    assert!(places.is_sorted(), "{places:?}");
    for words in ["lost contact after activation", "runs &lt;what&gt; Git says", "not in force", "dovcot"] {
        assert!(page.body.contains(words), "{words}");
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("windows");
    std::fs::create_dir_all(&folder).expect("a folder for people to look into");
    std::fs::write(folder.join("fleet.html"), &page.body).expect("written");
    windows.publish(fleet::starting());
    let page = windows.ask("GET /").await;
    assert!(page.body.contains("The controller is starting") && page.body.contains("No nodes are known yet"));
    std::fs::write(folder.join("starting.html"), &page.body).expect("written");
    windows.close().await;
}

#[tokio::test]
async fn prometheus_finds_nothing_to_complain_about() {
    for snapshot in [fleet::starting(), fleet::whole()] {
        let windows = Windows::open(snapshot).await;
        live_a_little(&windows.metrics);
        let answer = windows.ask("GET /metrics").await;
        assert!(answer.head.contains("content-type: text/plain; version=0.0.4"), "{}", answer.head);
        let mut promtool = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("promtool (Debian: package prometheus)");
        let mut stdin = promtool.stdin.take().expect("a pipe");
        std::io::Write::write_all(&mut stdin, answer.body.as_bytes()).expect("sent");
        drop(stdin);
        let said = promtool.wait_with_output().expect("promtool ends");
        let said =
            [said.stdout, said.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
        assert_eq!(said, "");
        windows.close().await;
    }
}

#[tokio::test]
async fn the_gauges_say_what_the_snapshot_says() {
    let windows = Windows::open(fleet::whole()).await;
    let text = windows.metrics().await;
    let expected = [
        r#"driftless_node_in_sync{node="web1"} 1"#,
        r#"driftless_node_in_sync{node="vps3"} 0"#,
        r#"driftless_node_in_sync{node="old"} 0"#,
        r#"driftless_node_reachable{node="old"} 0"#,
        r#"driftless_node_state{node="mail",state="drift"} 1"#,
        r#"driftless_node_state{node="mail",state="in-sync"} 0"#,
        r#"driftless_node_drift{kind="diverged",node="mail"} 1"#,
        r#"driftless_node_reboot_required{node="mail"} 1"#,
        r#"driftless_node_hold{node="vps3",reason="given-up"} 1"#,
        r#"driftless_node_consecutive_failures{node="vps3"} 1"#,
        r#"driftless_node_last_deployment_success{node="vps3"} 0"#,
        r#"driftless_node_failed_units{node="db1"} 1"#,
        r#"driftless_node_suspended{node="db1"} 1"#,
        r#"driftless_node_deploying{node="web2"} 1"#,
        r#"driftless_git_head_blocked{reason="eval_failed"} 1"#,
        r#"driftless_git_head_blocked{reason="non_fast_forward"} 0"#,
        r#"driftless_git_head_blocked{reason="mass_removal"} 0"#,
        r#"driftless_deployments_total{operation="switch",result="rollback-failed"} 0"#,
        r#"driftless_publications_total{result="failed"} 0"#,
        "driftless_publication_failing 0",
        r#"driftless_http_requests_total{code="200",handler="/metrics",method="GET"} 1"#,
    ];
    // The scrape itself is counted when it is over: the second one sees it.
    let text = format!("{text}{}", windows.metrics().await);
    for line in expected {
        assert!(text.lines().any(|found| found == line), "missing: {line}");
    }
    // What is not known of a node is left out.
    assert!(!text.contains(r#"driftless_node_drift{kind="outdated",node="old"}"#));
    assert!(!text.contains(r#"driftless_node_running_commit_timestamp_seconds{node="mail"}"#));
    windows.close().await;
}

#[tokio::test]
async fn the_series_of_a_node_vanish_with_it() {
    let windows = Windows::open(fleet::whole()).await;
    assert!(windows.metrics().await.contains("node=\"vps3\""));
    let mut fewer = fleet::whole();
    fewer.nodes.retain(|name, _| name.as_str() != "vps3");
    windows.publish(fewer);
    let text = windows.metrics().await;
    assert!(!text.contains("vps3") && text.contains("node=\"web1\""));
    windows.close().await;
}

#[tokio::test]
async fn a_scrape_of_a_thousand_nodes_is_whole() {
    let mut many = fleet::whole();
    let view = many.nodes.values().next().expect("a node").clone();
    many.nodes = (0..1000).map(|n| (format!("node{n}").parse().expect("a name"), view.clone())).collect();
    let windows = Windows::open(many).await;
    let began = std::time::Instant::now();
    let text = windows.metrics().await;
    println!("{} bytes in {:?}", text.len(), began.elapsed());
    assert_eq!(text.lines().filter(|line| line.starts_with("driftless_node_in_sync{")).count(), 1000);
    assert!(windows.ask("GET /").await.body.ends_with("</html>"));
    windows.close().await;
}

#[tokio::test]
async fn an_invented_path_or_method_makes_no_series_of_its_own() {
    let windows = Windows::open(fleet::whole()).await;
    for line in ["GET /a", "GET /b", "BREW /", "BREWER /", "GET /api/v1/nodes/x", "GET /api/v1/nodes/y"] {
        windows.ask(line).await;
    }
    let text = windows.metrics().await;
    let counted: BTreeMap<&str, &str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("driftless_http_requests_total"))
        .filter_map(|line| line.split_once(' '))
        .collect();
    let expected = BTreeMap::from([
        (r#"{code="404",handler="none",method="GET"}"#, "2"),
        (r#"{code="405",handler="/",method="other"}"#, "2"),
        (r#"{code="404",handler="/api/v1/nodes/{name}",method="GET"}"#, "2"),
    ]);
    assert_eq!(counted, expected);
    windows.close().await;
}

#[test]
fn the_alert_rules_pass_their_own_tests() {
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy");
    let checks = [
        ["check", "config", "prometheus.scrape.yml"],
        ["check", "rules", "alerts.yml"],
        ["test", "rules", "alerts.test.yml"],
    ];
    for arguments in checks {
        let ran = Command::new("promtool").args(arguments).current_dir(&deploy).output();
        let ran = ran.expect("promtool (Debian: package prometheus)");
        assert!(ran.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&ran.stderr));
    }
}

#[test]
fn every_panel_asks_valid_promql() {
    fn questions(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                found.extend(fields.get("expr").and_then(Value::as_str).map(str::to_owned));
                fields.values().for_each(|value| questions(value, found));
            }
            Value::Array(values) => values.iter().for_each(|value| questions(value, found)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("grafana/dashboards/fleet.json");
    let text = std::fs::read_to_string(path).expect("the dashboard");
    let mut found = Vec::new();
    questions(&serde_json::from_str(&text).expect("JSON"), &mut found);
    assert!(found.len() > 20, "{found:?}");
    // promtool reads rules, so each question becomes one; Grafana puts its own variables in beforehand.
    let rules = found.iter().enumerate().map(|(number, expr)| {
        let expr = expr.replace("$instance", ".*").replace("$__rate_interval", "1m");
        serde_json::json!({ "record": format!("panel:{number}"), "expr": expr })
    });
    let rules = serde_json::json!({ "groups": [{ "name": "panels", "rules": rules.collect::<Vec<_>>() }] });
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("panels.yml");
    std::fs::write(&file, rules.to_string()).expect("written");
    let ran = Command::new("promtool").args(["check", "rules"]).arg(&file).output();
    let ran = ran.expect("promtool (Debian: package prometheus)");
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
}

/// The files that name metrics, with JSON's quoting undone.
fn named() -> BTreeMap<&'static str, String> {
    let files = [
        "deploy/alerts.yml",
        "deploy/alerts.test.yml",
        "deploy/prometheus.scrape.yml",
        "grafana/dashboards/fleet.json",
    ];
    let read = |file| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
        let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{file}: {error}"));
        (file, text.replace("\\\"", "\""))
    };
    files.map(read).into()
}

/// Words of `text` that are metric names of ours, histograms by their family's name.
fn metric_names(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let ours = words.filter(|word| word.starts_with("driftless_") || word.starts_with("process_"));
    ours.map(|word| {
        let family = ["_bucket", "_sum", "_count"].iter().find_map(|end| word.strip_suffix(end));
        family.unwrap_or(word).to_owned()
    })
    .collect()
}

#[tokio::test]
async fn every_metric_that_rules_and_dashboards_name_is_exported() {
    let windows = Windows::open(fleet::whole()).await;
    live_a_little(&windows.metrics);
    windows.metrics().await;
    let text = windows.metrics().await;
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    let exported: BTreeSet<String> = types.map(str::to_owned).collect();
    for (file, content) in named() {
        let names = metric_names(&content);
        let missing: Vec<_> = names.difference(&exported).collect();
        assert!(missing.is_empty(), "{file} names what is not exported: {missing:?}");
        assert!(file.ends_with("scrape.yml") || names.len() > 5, "{file} names hardly anything: {names:?}");
    }
    windows.close().await;
}

#[tokio::test]
async fn every_word_that_the_rules_compare_with_can_occur() {
    let windows = Windows::open(fleet::whole()).await;
    let text = windows.metrics().await;
    let reasons = driftless::model::decision::Hold::REASONS.map(|reason| format!("reason=\"{reason}\""));
    for (file, content) in named() {
        // `label="a|b"` and its kin; what tests and Prometheus itself give a series is none of ours.
        for pair in
            content.split(['{', ',', '}', ' ']).filter(|pair| pair.contains("=\"") || pair.contains("~\""))
        {
            let Some((label, value)) = pair.split_once('"') else { continue };
            let label = label.trim_end_matches(['=', '~', '!']);
            if !["state", "reason", "kind", "availability", "result", "filesystem", "phase"].contains(&label)
            {
                continue;
            }
            for word in value.trim_end_matches('"').split('|') {
                let matcher = format!("{label}=\"{word}\"");
                assert!(
                    text.contains(&matcher) || reasons.contains(&matcher),
                    "{file}: {matcher} never occurs"
                );
            }
        }
    }
    windows.close().await;
}
