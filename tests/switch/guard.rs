//! Who ends a switch when its watcher cannot: the guard, whatever was killed or stopped.

use std::time::Duration;

use driftless::model::journal::Phase;
use driftless_lab::{Fault, System};

use super::Bench;
use super::worst_case::{NEVER, built, ends_as, leave_at, leave_in_contact};

/// Each of these ends the watcher. systemd 257 kills whole units by cgroup.kill, and on Linux 6.18 that also kills what is
/// started in the cgroup afterwards, a unit's ExecStopPost among it.
const ENDS: [&str; 7] = [
    "systemctl kill --signal=KILL 'driftless-switch-*'",
    "systemctl stop 'driftless-switch-*'",
    "systemctl kill --signal=KILL 'driftless-*'",
    "systemctl stop 'driftless-*'",
    "systemctl kill --signal=KILL 'driftless-guard-*'; systemctl kill --signal=KILL 'driftless-switch-*'",
    "systemctl --no-block stop 'driftless-guard-*'; systemctl kill --signal=KILL 'driftless-switch-*'",
    "systemctl daemon-reexec; systemctl kill --signal=KILL 'driftless-switch-*'",
];

#[tokio::test]
async fn whatever_ends_the_watcher_the_switch_is_rolled_back() {
    let bench = Bench::new("first");
    let system = built(&System::new("second"));
    let node = bench.node(&system, |spec| {
        NEVER(spec);
        spec.health_timeout = Duration::from_secs(120);
    });
    for end in ENDS {
        leave_at(&bench, &node, &system, Phase::Health).await;
        let began = std::time::Instant::now();
        bench.machine.enter(end).unwrap();
        ends_as(&bench, "rolled-back\tkilled", Duration::from_secs(30)).await;
        bench.assert_as_before();
        println!("{:?} {end}", began.elapsed());
    }
    node.close().await;
}

/// The running system's programs do nothing any more; those of the system before are as they were.
const SPOIL: &str = r#"for program in cat mkdir touch chmod flock; do
    good=/run/booted-system/sw/bin/$program
    [ -e "$good" ] || ln -s "/usr/bin/$program" "$good"
    ln -sfn /bin/false "/run/current-system/sw/bin/$program"
done
systemctl kill --signal=KILL 'driftless-*'
before=$(readlink -f /run/booted-system)
export before
timeout 30 sh -c 'until [ "$(readlink -f /run/current-system)" = "$before" ]; do sleep 0.1; done'"#;

#[tokio::test]
async fn what_ends_a_switch_relies_on_no_program_of_the_new_system() {
    let bench = Bench::new("first");
    let system = built(&System::new("second").package("spoilt", "1"));
    let node = bench.node(&system, |spec| {
        NEVER(spec);
        spec.health_timeout = Duration::from_secs(120);
    });
    leave_at(&bench, &node, &system, Phase::Health).await;
    bench.machine.enter(SPOIL).unwrap().ok().unwrap();
    ends_as(&bench, "rolled-back\tkilled", Duration::from_secs(30)).await;
    bench.assert_as_before();
    node.close().await;
}

#[tokio::test]
async fn a_guard_that_is_killed_or_stopped_or_isolated_is_there_again_and_the_switch_goes_on() {
    let bench = Bench::new("first");
    let system = built(&System::new("second").fault(Fault::Gate("test")));
    let node = bench.node(&system, |spec| {
        // Long enough for all that is done to the guard on a busy machine.
        spec.success_timeout = Duration::from_secs(60);
        spec.health_timeout = Duration::from_secs(60);
    });
    leave_in_contact(&bench, &node, &system).await;
    for harm in [
        "systemctl kill --signal=KILL 'driftless-guard-*'",
        "systemctl isolate lab.target",
        "systemctl --no-block stop 'driftless-guard-*'",
    ] {
        bench.machine.enter(harm).unwrap().ok().unwrap();
    }
    let successor = bench.node(&system, |_| {});
    let state = successor.observe(Duration::from_secs(20)).await.unwrap();
    let live = state.live_switch().unwrap().id.clone();
    let (show, _stage) = tokio::sync::watch::channel(driftless::model::observed::Stage::Preparing);
    let entry = successor.attach(&live, &show).await.unwrap();
    bench.assert_outcome(&entry, driftless::model::journal::Outcome::Succeeded, None).await;
    bench.assert_sound(&system);
    // Its watcher could have died between its last word and its last phase: the word stands.
    let again = "cd /run/driftless-node/*T*/ && echo health >phase && \
                 sh /var/lib/driftless-node/switches/*/switch.sh - resume ${PWD##*/}";
    bench.machine.enter(again).unwrap().ok().unwrap();
    bench.assert_sound(&system);
    successor.close().await;
    node.close().await;
}
