//! What deciding costs: one pass over 10 000 nodes with full journals, by criterion. Touches no node and no disk.

#![allow(missing_docs, reason = "criterion's macros make public functions")]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use driftless::model::intent::Intent;
use driftless::model::journal::{Cause, Entry, Forgiven, Outcome, Phase, SwitchId};
use driftless::model::name::NodeName;
use driftless::model::observed::{Contact, KernelPair, NodeState, Observation, Observed};
use driftless::model::release::{NodeRelease, Progress, Release};
use driftless::model::rollout::{RolloutSpec, Wave};
use driftless::model::store_path::StorePath;
use driftless::plan::plan;
use driftless::plan::view::{Pass, node_views};
use jiff::{SignedDuration, Timestamp};

/// As many as the target names.
const NODES: u32 = 10_000;
/// As many entries as a node keeps (`KEEP` of `src/node/switch/1-base.sh`).
const JOURNAL: i64 = 20;

fn system(node: u32, number: i64) -> StorePath {
    format!("/nix/store/{}-nixos-system-n{node}-{number}", "a".repeat(32)).parse().expect("a store path")
}

fn now() -> Timestamp {
    "2026-11-22T12:00:00Z".parse().expect("a time")
}

/// Every tenth switch was rolled back; the newest, to `running`, succeeded.
fn entry(node: u32, number: i64) -> Entry {
    let at = now() - SignedDuration::from_hours(JOURNAL - number);
    let failed = number % 10 == 5;
    Entry {
        id: SwitchId::new(at, node),
        system: system(node, number),
        previous: system(node, number - 1),
        phase: Phase::Finished,
        outcome: Some(if failed { Outcome::RolledBack } else { Outcome::Succeeded }),
        cause: failed.then_some(Cause::Units),
        started: at,
        finished: Some(at),
        revision: "b81d0aa000000000000000000000000000000000".into(),
        asker: "controller".into(),
        forgiven: Forgiven::No,
        detail: if failed { "nginx.service".into() } else { String::new() },
    }
}

fn state(node: u32) -> NodeState {
    let running = system(node, JOURNAL - 1);
    NodeState {
        boot_id: "1f2e3d4c-0000-4000-8000-000000000000".parse().expect("a boot id"),
        machine_id: None,
        clock: Some(now()),
        uptime: 86_400,
        staged: None,
        boot_default: Some(running.clone()),
        booted: Some(running.clone()),
        running,
        generation: Some(7),
        kernel: KernelPair::default(),
        failed_units: Vec::new(),
        baseline: Vec::new(),
        nix_version: Some("2.26.3".into()),
        free_nix: Some(1 << 33),
        free_boot: Some(1 << 28),
        journal: (0..JOURNAL).map(|number| entry(node, number)).collect::<Vec<_>>().into(),
        pin: None,
        reboot: None,
        suspended: Vec::new(),
    }
}

/// A tenth of the nodes wants another system than it runs, the rest is in sync.
fn fleet() -> (Release, Observed) {
    let (mut nodes, mut observed) = (BTreeMap::new(), Observed::default());
    for number in 0..NODES {
        let name: NodeName = format!("n{number}").parse().expect("a node name");
        let wanted = system(number, if number % 10 == 0 { JOURNAL } else { JOURNAL - 1 });
        let spec = serde_json::json!({
            "drv": format!("/nix/store/{}-x.drv", "b".repeat(32)),
            "toplevel": wanted.as_str(), "system": "x86_64-linux", "host": name.as_str(),
        });
        let spec = Arc::new(serde_json::from_value(spec).expect("a declaration"));
        nodes.insert(
            name.clone(),
            NodeRelease { spec: Some(spec), progress: Progress::Built, last_good: None },
        );
        let contact = Contact::Reachable { at: now() };
        let seen = Observation {
            contact,
            state: Some(state(number)),
            state_since: Some(now()),
            elsewhere: None,
            health: Vec::new(),
        };
        observed.nodes.insert(name, Arc::new(seen));
    }
    (Release { revision: None, nodes, rollout: RolloutSpec::default() }, observed)
}

/// Three waves with everything that is counted for one.
fn in_waves() -> RolloutSpec {
    let wave = |on: &str| Wave {
        on: on.parse().expect("a selector"),
        soak: Duration::from_secs(3600),
        max_in_flight: Some(5),
        max_unavailable: Some("10%".parse().expect("an amount")),
        ..Wave::default()
    };
    RolloutSpec { waves: vec![wave("n1*"), wave("n2*, n3*"), wave("*")], ..RolloutSpec::default() }
}

fn decide(criterion: &mut Criterion) {
    let (release, observed) = fleet();
    let mut group = criterion.benchmark_group("10000 nodes");
    group.sample_size(20).measurement_time(Duration::from_secs(5)).warm_up_time(Duration::from_secs(1));
    let intent = Intent::default();
    group.bench_function("plan", |bencher| {
        bencher.iter(|| plan(black_box(&release), &observed, &intent, now()))
    });
    let in_waves = Release { rollout: in_waves(), ..release.clone() };
    group.bench_function("plan in waves", |bencher| {
        bencher.iter(|| plan(black_box(&in_waves), &observed, &intent, now()))
    });
    let plan = plan(&release, &observed, &intent, now());
    let pass = Pass { release: &release, observed: &observed, plan: &plan, intent: &intent, now: now() };
    let before = node_views(pass, &BTreeMap::new());
    group.bench_function("views", |bencher| bencher.iter(|| node_views(black_box(pass), &before)));
    group.bench_function("publish", |bencher| bencher.iter(|| black_box(&before).clone()));
    group.finish();
}

criterion_group!(benches, decide);
criterion_main!(benches);
