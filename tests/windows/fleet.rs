//! Hand-made snapshots: a fleet in which each state, drift and contact occurs once, and an empty one.

use std::collections::BTreeMap;

use driftless::model::snapshot::{NodeView, Snapshot};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

const HEAD: &str = "3f9c2e1a00000000000000000000000000000000";
const OLD: &str = "b81d0aa";

/// Seconds before now.
fn ago(seconds: i64) -> Timestamp {
    Timestamp::now() - SignedDuration::from_secs(seconds)
}

/// A toplevel; `build` is one base-32 digit that tells builds of a node apart.
fn toplevel(node: &str, build: char) -> String {
    format!("/nix/store/{}-nixos-system-{node}-24.11", build.to_string().repeat(32))
}

fn commit(id: &str, subject: &str, committed: i64) -> Value {
    json!({
        "commit": id, "tree": id, "subject": subject, "author": "Alice <alice@example.org>",
        "committedAt": ago(committed),
    })
}

/// A controller that has not looked yet.
pub fn starting() -> Snapshot {
    let document = json!({
        "version": 1, "at": Timestamp::now(), "passes": 0, "ready": "starting", "nodes": {},
        "source": {
            "url": "https://git.example.org/infra.git", "branch": "main", "head": null, "lastGood": null,
            "blocked": null, "fetchedAt": null, "fetchError": null, "evaluatedAt": null,
        },
    });
    serde_json::from_value(document).expect("a snapshot")
}

/// One node, with what every node of [`whole`] has; `change` says what is special.
fn node(name: &str, state: &str, since: i64, why: &str, change: impl FnOnce(&mut Value)) -> Value {
    let (new, old) = (toplevel(name, 'n'), toplevel(name, 'a'));
    let mut view = json!({
        "decision": { "decision": "in-sync" }, "state": state, "since": ago(since), "why": why,
        "spec": {
            "drv": format!("{new}.drv"), "toplevel": new, "system": "x86_64-linux", "host": name,
            "tags": if name.starts_with("web") { json!(["web"]) } else { json!([]) },
        },
        "progress": { "state": "built" },
        "desired": new, "desiredRevision": &HEAD[..7], "runningRevision": OLD, "drift": [], "inFlight": null,
        "observation": {
            "contact": { "contact": "reachable", "at": ago(4) }, "stateSince": ago(since),
            "state": {
                "bootId": "11111111-2222-3333-4444-555555555555", "machineId": null, "clock": ago(4),
                "uptime": 86_400, "running": old, "bootDefault": old, "booted": old, "generation": 7,
                "kernel": { "booted": [], "running": [] }, "failedUnits": [], "nixVersion": "2.24.11",
                "freeNix": 12_000_000_000_u64, "freeBoot": 300_000_000_u64, "pin": null,
                "journal": [entry(&old, "succeeded", 90_000)],
            },
        },
    });
    change(&mut view);
    view
}

fn entry(system: &str, outcome: &str, finished: i64) -> Value {
    json!({
        "id": "20261122T170102Z-1f2e3d4c", "system": system, "previous": system, "phase": "finished",
        "outcome": outcome, "cause": if outcome == "succeeded" { Value::Null } else { json!("contact") },
        "started": ago(finished + 30), "finished": ago(finished), "revision": HEAD, "asker": "controller",
        "forgiven": "no", "detail": "",
    })
}

fn hold(view: &mut Value, kind: &str, more: Value) {
    view["decision"] = json!({ "decision": "hold", "hold": { "kind": kind } });
    for (key, value) in more.as_object().into_iter().flatten() {
        view["decision"]["hold"][key] = value.clone();
    }
}

fn current(name: &str, view: &mut Value) {
    view["runningRevision"] = json!(&HEAD[..7]);
    view["observation"]["state"]["running"] = json!(toplevel(name, 'n'));
    view["observation"]["state"]["bootDefault"] = json!(toplevel(name, 'n'));
}

/// Every state once, trouble of every kind.
pub fn whole() -> Snapshot {
    let mut snapshot = starting();
    snapshot.passes = 42;
    let source = json!({
        "url": "https://git.example.org/infra.git", "branch": "main",
        "head": commit("c0ffee1000000000000000000000000000000000", "mail: move to dovecot 2.4", 240),
        "lastGood": commit(HEAD, "nginx: enable http3", 3_000),
        "blocked": { "reason": "eval_failed", "message": "error: undefined variable 'dovcot'\n  at modules/mail.nix:12:18" },
        "fetchedAt": ago(12), "fetchError": null, "evaluatedAt": ago(200), "commitTimes": { OLD: ago(90_000) },
    });
    snapshot.source = serde_json::from_value(source).expect("a source");
    snapshot.ready = serde_json::from_value(json!("ready")).expect("a word");
    let nodes = troubled().into_iter().chain(fine());
    let parsed = nodes.map(|(name, view)| {
        let view: NodeView = serde_json::from_value(view).unwrap_or_else(|error| panic!("{name}: {error}"));
        (name.parse().expect("a node name"), view)
    });
    snapshot.nodes = parsed.map(|(name, view)| (name, std::sync::Arc::new(view))).collect::<BTreeMap<_, _>>();
    snapshot
}

fn troubled() -> Vec<(&'static str, Value)> {
    let lost = "lost contact after activation; retried on a new commit or `driftless retry vps3`";
    let diverged = "diverged: not deployed by driftless; +htop 3.3.0, openssh 9.7 → 9.8";
    let silent = "connect to 192.0.2.7:22 timed out after 10 s";
    vec![
        (
            "vps3",
            node("vps3", "rolled-back", 130, lost, |view| {
                let id = "20261122T170102Z-1f2e3d4c";
                let failed =
                    json!({ "id": id, "outcome": "rolled-back", "cause": "contact", "detail": "no login" });
                hold(view, "given-up", failed);
                view["drift"] = json!(["outdated"]);
                view["observation"]["state"]["journal"] =
                    json!([entry(&toplevel("vps3", 'n'), "rolled-back", 130)]);
            }),
        ),
        (
            "mail",
            node("mail", "drift", 4_000, diverged, |view| {
                hold(view, "report-only", json!({}));
                view["drift"] = json!(["diverged", "reboot-required", "unpersisted"]);
                view["runningRevision"] = Value::Null;
            }),
        ),
        (
            "old",
            node("old", "unreachable", 260_000, silent, |view| {
                hold(view, "unreachable", json!({ "since": ago(260_000), "error": silent }));
                view["observation"]["contact"] =
                    json!({ "contact": "unreachable", "since": ago(260_000), "error": silent });
                view["spec"]["availability"] = json!("intermittent");
            }),
        ),
        (
            "db2",
            node("db2", "failed", 900, "does not build: postgresql-17.2 failed with exit code 2", |view| {
                hold(view, "not-built", json!({ "error": "builder failed with exit code 2" }));
                view["progress"] =
                    json!({ "state": "not-built", "error": "builder failed with exit code 2" });
            }),
        ),
    ]
}

fn fine() -> Vec<(&'static str, Value)> {
    let copying = |bytes: u64| json!({ "stage": "copying", "bytes": bytes, "total": 400_000_000 });
    let frozen = "suspended by the deployment: disk is being replaced";
    vec![
        (
            "web2",
            node("web2", "switching", 4, "copying 61 of 381 MiB", |view| {
                view["decision"] = json!({ "decision": "in-flight" });
                view["drift"] = json!(["outdated"]);
                let until = ago(-3_600);
                view["suspended"] =
                    json!({ "by": "alice", "reason": "disk swap", "until": until, "id": null });
                view["inFlight"] = json!({ "toplevel": toplevel("web2", 'n'), "since": ago(4), "stage": copying(64_000_000) });
            }),
        ),
        (
            "db1",
            node("db1", "held", 130, frozen, |view| {
                let why =
                    json!({ "by": "the deployment", "reason": "disk is being replaced", "until": null });
                hold(view, "suspended", why.clone());
                view["suspended"] = why;
                view["spec"]["suspended"] = json!("disk is being replaced");
                view["observation"]["state"]["failedUnits"] = json!(["backup.service"]);
            }),
        ),
        ("web1", node("web1", "in-sync", 130, "runs <what> Git says", |view| current("web1", view))),
    ]
}
