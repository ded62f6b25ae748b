//! What the switch stands on: the journal and the lock. Machines that go down in the middle of a commit, users who would like
//! a say, and file systems that take nothing more.

use std::time::Duration;

use driftless::model::journal::{Cause, Outcome, Phase};
use driftless::model::node::Goal;
use driftless::model::observed::Stage;
use driftless::model::store_path::StorePath;
use driftless::node::{NodeError, Order, Refusal};
use driftless_lab::{Fault, Setup, Sudo, System, User};
use tokio::sync::watch;

use super::Bench;
use super::worst_case::{NEVER, built, ends_as, leave_at, leave_in_contact};

/// Deploys a system whose boot loader hangs, and takes the power away while it does: the profile is the new system, the boot
/// loader the first.
async fn cut_in_the_middle_of_a_commit(bench: &Bench) -> StorePath {
    let system = built(&System::new("half").fault(Fault::BootLoaderHangs));
    let node = bench.node(&system, |_| {});
    leave_at(bench, &node, &system, Phase::Committing).await;
    let hangs = "until grep -q loader /var/log/lab-switch.log; do sleep 0.1; done";
    bench.machine.enter(&format!("timeout 20 sh -c '{hangs}'")).unwrap().ok().unwrap();
    bench.machine.power_cut().unwrap();
    node.close().await;
    bench.machine.start().unwrap();
    assert_eq!(bench.machine.running().unwrap(), bench.first.as_str());
    assert_eq!(bench.machine.boot_default().unwrap(), system.as_str(), "what has to be mended");
    system
}

#[tokio::test]
async fn a_failing_switch_after_a_half_commit_does_not_go_back_to_the_half() {
    let bench = Bench::new("first");
    let half = cut_in_the_middle_of_a_commit(&bench).await;
    let (_, entry) = bench.deploy(&System::new("bad").fault(Fault::BootLoaderFails)).await;
    bench.assert_outcome(&entry, Outcome::CommitFailed, Some(Cause::Commit)).await;
    bench.assert_as_before();
    let mended = bench.journal().remove(0);
    assert!(mended.contains(&format!("{half}\t{}\tfinished\tinterrupted\tkilled", bench.first)), "{mended}");
    let detail = format!("the machine went down in phase committing; {} boots", bench.first);
    assert!(mended.ends_with(&detail), "{mended}");
}

#[tokio::test]
async fn after_a_half_commit_the_system_that_runs_can_be_asked_for_again() {
    let bench = Bench::new("first");
    cut_in_the_middle_of_a_commit(&bench).await;
    let node = bench.node(&bench.first, |_| {});
    let (show, _stage) = watch::channel(Stage::Preparing);
    let entry = node.deploy(&bench.nix(), &bench.order(&bench.first, Goal::Switch), &show).await.unwrap();
    bench.assert_outcome(&entry, Outcome::Succeeded, None).await;
    bench.assert_as_before();
    node.close().await;
}

/// Makes the last entry of the journal look as if the machine had gone down in the middle of its commit.
const REWRITE_AS_HALF: &str = r"cd /var/lib/driftless-node/switches && cd $(ls | tail -n 1) &&
    sed -i 's/\tfinished\tsucceeded\t/\tcommitting\t-\t/' summary && sed -i 's/^boot .*/boot of-before/' found &&
    rm -rf /run/driftless-node";

#[tokio::test]
async fn a_half_commit_of_the_system_that_runs_is_finished_unless_somebody_chose_another() {
    let bench = Bench::new("first");
    let (second, entry) = bench.deploy(&System::new("second")).await;
    bench.assert_outcome(&entry, Outcome::Succeeded, None).await;
    let fails = System::new("bad").fault(Fault::ActivationFails);
    let bad = built(&fails);
    let node = bench.node(&bad, |_| {});
    let (show, _stage) = watch::channel(Stage::Preparing);
    let order = Order { expected: second.clone(), ..bench.order(&bad, Goal::Switch) };
    let profile = "nix-env -p /nix/var/nix/profiles/system --set";
    bench.machine.enter(&format!("{REWRITE_AS_HALF} && {profile} {}", bench.first)).unwrap().ok().unwrap();
    let entry = node.deploy(&bench.nix(), &order, &show).await.unwrap();
    bench.assert_outcome(&entry, Outcome::RolledBack, Some(Cause::Activation)).await;
    assert_eq!(bench.machine.boot_default().unwrap(), second.as_str());
    assert_eq!(bench.machine.loader_default().unwrap(), second.as_str());
    // Once mended it is history: what people do afterwards stands.
    let foreign = built(&System::new("foreign"));
    bench.machine.receive(foreign.as_str()).unwrap();
    let rewrite = REWRITE_AS_HALF.replace("finished\\tsucceeded", "finished\\trolled-back");
    bench.machine.enter(&format!("{rewrite} && {profile} {foreign}")).unwrap().ok().unwrap();
    let entry = node.deploy(&bench.nix(), &order, &show).await.unwrap();
    bench.assert_outcome(&entry, Outcome::RolledBack, Some(Cause::Activation)).await;
    assert_eq!(bench.machine.boot_default().unwrap(), foreign.as_str());
    node.close().await;
}

#[tokio::test]
async fn a_user_of_the_node_can_watch_and_do_nothing_else() {
    let setup = Setup { users: vec![User { name: "mallory".into(), sudo: Sudo::Never }], ..Setup::default() };
    let bench = Bench::on(&System::new("first"), &setup);
    // A version of before made the lock like this.
    let old = "mkdir -p /run/driftless-node && touch /run/driftless-node/lock && chmod 644 /run/driftless-node/lock";
    bench.machine.enter(old).unwrap().ok().unwrap();
    let (second, entry) = bench.deploy(&System::new("second")).await;
    bench.assert_outcome(&entry, Outcome::Succeeded, None).await;
    let as_mallory = |script: &str| bench.machine.ssh_as("mallory", [script]).unwrap();
    let held = as_mallory("flock --nonblock /run/driftless-node/lock echo held");
    assert_eq!(held.stdout, "", "{held:?}");
    let third = built(&System::new("third"));
    let node = bench.node(&third, NEVER);
    let (nix, order) = (bench.nix(), Order { expected: second.clone(), ..bench.order(&third, Goal::Switch) });
    let (show, stage) = watch::channel(Stage::Preparing);
    tokio::select! {
        ended = node.deploy(&nix, &order, &show) => panic!("ended too early: {ended:?}"),
        () = super::worst_case::reaches(stage, Phase::Health) => {}
    }
    let ours = "/run/driftless-node /var/lib/driftless-node /nix/var/nix/gcroots/driftless";
    let found = as_mallory(&format!("find {ours} ! -type l -writable; find {ours} ! -user root"));
    assert_eq!((found.stdout.trim(), found.stderr.trim()), ("", ""), "what others may write");
    let secrets = "( -name order -o -name log -o -name switch.sh -o -name lock )".replace(['(', ')'], "");
    let found = as_mallory(&format!("find {ours} \\({secrets}\\) -readable"));
    assert_eq!(found.stdout.trim(), "", "what others may read, the nonce among it");
    // Both see that it lives, and that it does not any more.
    let watcher = bench.node(&third, |spec| {
        spec.host = spec.host.take().map(|host| host.replace("root@", "mallory@"));
    });
    for seer in [&node, &watcher] {
        let state = seer.observe(Duration::from_secs(20)).await.unwrap();
        assert!(state.live_switch().is_some(), "{:?}", state.journal);
    }
    // Where users do not see each other's processes, what cannot be told is not told to be dead.
    bench.machine.enter("mount -o remount,hidepid=invisible /proc").unwrap().ok().unwrap();
    assert!(!as_mallory("test -e /proc/1/stat").success());
    let state = watcher.observe(Duration::from_secs(20)).await.unwrap();
    assert!(state.live_switch().is_some(), "{:?}", state.journal);
    bench.machine.power_cut().unwrap();
    bench.machine.start().unwrap();
    for node in [&node, &watcher] {
        node.close().await;
        let state = node.observe(Duration::from_secs(20)).await.unwrap();
        assert!(state.live_switch().is_none(), "{:?}", state.journal);
        node.close().await;
    }
}

#[tokio::test]
async fn a_look_at_a_node_leaves_no_line_of_sudo_in_its_journal() {
    let user = User { name: "deployer".into(), sudo: Sudo::WithoutPassword };
    let bench = Bench::on(&System::new("first"), &Setup { users: vec![user], ..Setup::default() });
    let node = bench.node(&bench.first, |spec| {
        spec.host = spec.host.take().map(|host| host.replace("root@", "deployer@"));
        spec.privilege_escalation_command = vec!["sudo".into()];
    });
    let lines = || {
        bench
            .machine
            .enter("journalctl --sync; journalctl -q _COMM=sudo | wc -l")
            .unwrap()
            .stdout
            .trim()
            .to_owned()
    };
    for _ in 0..3 {
        node.observe(Duration::from_secs(20)).await.unwrap();
    }
    assert_eq!(lines(), "0");
    node.forgive().await.unwrap();
    assert_ne!(lines(), "0", "what needs root is seen there");
    node.close().await;
}

#[tokio::test]
async fn a_run_directory_that_is_deleted_in_the_middle_lets_nobody_else_in_and_the_switch_ends() {
    let bench = Bench::new("first");
    let system = built(&System::new("second").fault(Fault::Gate("test")));
    let node = bench.node(&system, |spec| spec.health_timeout = Duration::from_secs(30));
    leave_in_contact(&bench, &node, &system).await;
    bench.machine.enter("rm -rf /run/driftless-node").unwrap().ok().unwrap();
    let (show, _stage) = watch::channel(Stage::Preparing);
    let order = Order { expected: system.clone(), ..bench.order(&bench.first, Goal::Switch) };
    let refused = node.deploy(&bench.nix(), &order, &show).await.unwrap_err();
    assert!(
        matches!(
            refused,
            NodeError::Refused { refusal: Refusal::Unfinished { .. } | Refusal::Changed { .. }, .. }
        ),
        "{refused}"
    );
    // Nobody can make contact without it.
    ends_as(&bench, "rolled-back\tcontact", Duration::from_secs(60)).await;
    bench.assert_as_before();
    // And where its watcher dies as well.
    let node = bench.node(&system, |spec| {
        NEVER(spec);
        spec.health_timeout = Duration::from_secs(120);
    });
    leave_at(&bench, &node, &system, Phase::Health).await;
    let harm = "rm -rf /run/driftless-node; systemctl kill --signal=KILL 'driftless-*'";
    bench.machine.enter(harm).unwrap().ok().unwrap();
    ends_as(&bench, "rolled-back\tkilled", Duration::from_secs(30)).await;
    bench.assert_as_before();
    node.close().await;
}

#[tokio::test]
async fn what_cannot_be_written_down_is_not_begun_and_leaves_nothing() {
    let bench = Bench::new("first");
    let system = built(&System::new("second"));
    let node = bench.node(&system, |_| {});
    let (nix, order) = (bench.nix(), bench.order(&system, Goal::Switch));
    let (show, _stage) = watch::channel(Stage::Preparing);
    let refused = async |what: &str| {
        let error = node.deploy(&nix, &order, &show).await.unwrap_err();
        assert!(
            matches!(error, NodeError::Refused { refusal: Refusal::Unwritable { .. }, .. }),
            "{what}: {error}"
        );
        bench.assert_as_before();
        let left =
            "ls -A /var/lib/driftless-node/switches /run/driftless-node 2>/dev/null | grep '[0-9]T[0-9]'";
        assert_eq!(bench.machine.enter(left).unwrap().stdout, "", "{what}");
    };
    bench.machine.fill("/var").unwrap();
    refused("a full /var").await;
    bench.machine.empty("/var").unwrap();
    // From a /run that takes nothing to one that takes the script and not what the rollback would need.
    for free in [0, 64, 150] {
        let fill = format!(
            "rm -f /run/fill; free=$(df -k --output=avail /run | tail -n 1); fallocate -l $((free - {free}))K /run/fill"
        );
        bench.machine.enter(&fill).unwrap().ok().unwrap();
        refused(&format!("a /run with {free} KiB")).await;
    }
    bench.machine.enter("rm -f /run/fill").unwrap();
    let entry = node.deploy(&nix, &order, &show).await.unwrap();
    bench.assert_outcome(&entry, Outcome::Succeeded, None).await;
    bench.assert_sound(&system);
    node.close().await;
}
