//! The node's switch when more than one thing goes wrong: killed watchers, full disks, stalled links, odd logins.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use driftless::model::journal::{Cause, Outcome, Phase};
use driftless::model::node::Goal;
use driftless::model::observed::Stage;
use driftless::model::store_path::StorePath;
use driftless::node::{Node, NodeError};
use driftless_lab::{Fault, Setup, Sudo, System, User};
use tokio::sync::{Notify, watch};

use super::{Bench, Tune};

/// A health check that never passes keeps a switch in its health phase.
pub const NEVER: Tune = |spec| spec.health_checks.after.units = vec!["never.service".into()];

pub async fn reaches(mut stage: watch::Receiver<Stage>, wanted: Phase) {
    stage.wait_for(|now| matches!(now, Stage::Switching { phase, .. } if *phase == wanted)).await.unwrap();
}

/// Deploys, and does something to the machine when the switch is in that phase.
pub async fn deploy_and(
    bench: &Bench,
    node: &Node,
    system: &StorePath,
    phase: Phase,
    act: impl FnOnce(),
) -> Result<driftless::model::journal::Entry, NodeError> {
    let (nix, order) = (bench.nix(), bench.order(system, Goal::Switch));
    let (show, stage) = watch::channel(Stage::Preparing);
    let deploy = async move {
        let show = show;
        node.deploy(&nix, &order, &show).await
    };
    let disturb = async {
        reaches(stage, phase).await;
        act();
    };
    tokio::join!(deploy, disturb).0
}

/// Deploys until the switch is in that phase, then is gone: the node is alone with it.
pub async fn leave_at(bench: &Bench, node: &Node, system: &StorePath, phase: Phase) {
    let (nix, order) = (bench.nix(), bench.order(system, Goal::Switch));
    let (show, stage) = watch::channel(Stage::Preparing);
    tokio::select! {
        ended = node.deploy(&nix, &order, &show) => panic!("ended too early: {ended:?}"),
        () = reaches(stage, phase) => {}
    }
}

/// The same with a system that waits at its gate: the node waits for contact, and nobody is there to make it.
pub async fn leave_in_contact(bench: &Bench, node: &Node, system: &StorePath) {
    leave_at(bench, node, system, Phase::Testing).await;
    bench.machine.open_gate().unwrap();
    let waits = "until grep -qx contact /run/driftless-node/*T*/phase; do sleep 0.1; done";
    bench.machine.enter(&format!("timeout 30 sh -c '{waits}'")).unwrap().ok().unwrap();
}

pub fn built(system: &System) -> StorePath {
    system.build().unwrap().parse().unwrap()
}

pub async fn ends_as(bench: &Bench, words: &str, within: Duration) {
    let deadline = Instant::now() + within;
    while !bench.journal().last().unwrap().contains(words) {
        let log = || bench.machine.enter("cat /var/lib/driftless-node/switches/*/log").unwrap().stdout;
        assert!(Instant::now() < deadline, "{:?}\n{}", bench.journal(), log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn a_watcher_killed_while_the_new_system_activates_ends_that_activation_and_rolls_back() {
    let bench = Bench::new("first");
    let system = built(&System::new("slow").fault(Fault::HangStubbornly));
    let node = bench.node(&system, |spec| spec.switch_timeout = Duration::from_secs(60));
    let ended = deploy_and(&bench, &node, &system, Phase::Testing, || {
        // It hangs with its lock held.
        let hangs = "until grep -q stubbornly /var/log/lab-switch.log; do sleep 0.1; done";
        bench.machine.enter(&format!("timeout 20 sh -c '{hangs}'")).unwrap().ok().unwrap();
        bench.machine.enter("systemctl kill --signal=KILL --kill-whom=main 'driftless-switch-*'").unwrap();
    })
    .await;
    ends_as(&bench, "rolled-back\tkilled", Duration::from_secs(30)).await;
    bench.assert_outcome(&ended.unwrap(), Outcome::RolledBack, Some(Cause::Killed)).await;
    bench.assert_as_before();
    node.close().await;
}

#[tokio::test]
async fn a_watcher_killed_while_it_commits_is_followed_by_the_commit() {
    let bench = Bench::new("first");
    let system = built(&System::new("second").fault(Fault::Gate("boot")));
    let node = bench.node(&system, |_| {});
    let ended = deploy_and(&bench, &node, &system, Phase::Committing, || {
        bench.machine.enter("systemctl kill --signal=KILL --kill-whom=main 'driftless-switch-*'").unwrap();
        bench.machine.open_gate().unwrap();
    })
    .await;
    bench.assert_outcome(&ended.unwrap(), Outcome::Succeeded, None).await;
    bench.assert_sound(&system);
    node.close().await;
}

#[tokio::test]
async fn a_previous_system_that_never_activates_cleanly_still_opens_its_way_in_again() {
    let first = System::new("first").fault(Fault::ActivationFails);
    let bench = Bench::on(&first, &Setup::default());
    let bad = System::new("bad").fault(Fault::KillSsh);
    let (_, ended) = bench.deploy_with(&bad, |_| {}, Goal::Switch).await;
    let entry = ended.unwrap();
    bench.assert_outcome(&entry, Outcome::RollbackFailed, Some(Cause::Contact)).await;
    bench.machine.wait_ssh().unwrap();
    bench.assert_as_before();
}

#[tokio::test]
async fn a_rollback_that_fails_with_the_way_in_shut_ends_in_a_reboot_into_the_previous_system() {
    let bench = Bench::new("first");
    let slow = built(&System::new("bad").fault(Fault::Gate("test")).fault(Fault::KillSsh));
    let node = bench.node(&slow, |spec| {
        spec.switch_timeout = Duration::from_secs(8);
        spec.success_timeout = Duration::from_secs(3);
    });
    // sshd cannot be started again, and something else has the lock of switch-to-configuration from then on.
    let take = "lock=/run/nixos/switch-to-configuration.lock; \
                (until [ -e $lock ]; do sleep 0.1; done; exec 8>$lock; : >/run/lab-takes; flock 8; sleep 60) \
                  </dev/null >/dev/null 2>&1 & \
                mkdir -p /run/systemd/system.control; ln -sfn /dev/null /run/systemd/system.control/sshd.service; \
                systemctl daemon-reload; until [ -e /run/lab-takes ]; do sleep 0.1; done";
    let ended = deploy_and(&bench, &node, &slow, Phase::Testing, || {
        bench.machine.enter(take).unwrap();
        bench.machine.open_gate().unwrap();
    });
    let entry = tokio::time::timeout(Duration::from_secs(90), ended).await.unwrap().unwrap();
    assert_eq!(entry.outcome, Some(Outcome::RolledBack), "{entry:?}");
    assert!(entry.detail.contains("rebooting"), "{entry:?}");
    bench.machine.wait_for_boot(2).unwrap();
    bench.assert_as_before();
    node.close().await;
}

#[tokio::test]
async fn a_successor_learns_health_checks_of_any_length() {
    let bench = Bench::new("first");
    let system = built(&System::new("second"));
    let node = bench.node(&system, |spec| {
        let command = format!("test -e /run/healthy # {} \\n é", "long ".repeat(400));
        spec.health_checks.after.commands = BTreeMap::from([("file".to_owned(), command.into())]);
        spec.health_timeout = Duration::from_secs(20);
    });
    let (show, stage) = watch::channel(Stage::Preparing);
    {
        let (nix, order) = (bench.nix(), bench.order(&system, Goal::Switch));
        tokio::select! {
            ended = node.deploy(&nix, &order, &show) => panic!("ended too early: {ended:?}"),
            () = reaches(stage, Phase::Health) => {}
        }
    }
    node.close().await;
    let successor = bench.node(&system, |_| {});
    let state = successor.observe(Duration::from_secs(20)).await.unwrap();
    let id = state.live_switch().unwrap().id.clone();
    bench.machine.enter("touch /run/healthy").unwrap();
    let (show, _stage) = watch::channel(Stage::Preparing);
    let entry = successor.attach(&id, &show).await.unwrap();
    bench.assert_outcome(&entry, Outcome::Succeeded, None).await;
    successor.close().await;
}

#[tokio::test]
async fn a_login_with_sudo_noise_and_one_session_is_enough_for_a_whole_deploy() {
    let setup = Setup {
        users: vec![User { name: "deployer".into(), sudo: Sudo::WithoutPassword }],
        bashrc: Some("echo welcome; printf '\\033]0;a title without an end of line\\007'\n".into()),
        ssh_banner: Some("No trespassing.\n".into()),
        sshd_options: vec!["MaxSessions 1".into()],
        ..Setup::default()
    };
    let bench = Bench::on(&System::new("first"), &setup);
    let system = built(&System::new("second"));
    let node = bench.node(&system, |spec| {
        spec.host = spec.host.take().map(|host| host.replace("root@", "deployer@"));
        spec.privilege_escalation_command = vec!["sudo".into()];
        spec.health_checks.after.commands =
            BTreeMap::from([("root".to_owned(), "test $(id -u) = 0".to_owned().into())]);
    });
    let state = node.observe(Duration::from_secs(20)).await.unwrap();
    assert_eq!(state.running, bench.first);
    // Nix itself cannot copy through such a login; that is the preflight's to say, and here it is there already.
    bench.machine.receive(system.as_str()).unwrap();
    let (show, _stage) = watch::channel(Stage::Preparing);
    let entry = node.deploy(&bench.nix(), &bench.order(&system, Goal::Switch), &show).await.unwrap();
    bench.assert_outcome(&entry, Outcome::Succeeded, None).await;
    node.close().await;
}

#[tokio::test]
async fn only_a_new_login_that_knows_the_nonce_is_contact_and_only_the_nonce_gives_a_verdict() {
    let bench = Bench::new("first");
    let system = built(&System::new("second"));
    let node = bench.node(&system, |spec| spec.health_checks.after.units = vec!["never.service".into()]);
    let (nix, order) = (bench.nix(), bench.order(&system, Goal::Switch));
    let (show, mut stage) = watch::channel(Stage::Preparing);
    tokio::select! {
        ended = node.deploy(&nix, &order, &show) => panic!("ended too early: {ended:?}"),
        _ = stage.wait_for(|stage| matches!(stage, Stage::Switching { phase: Phase::Health, .. })) => {}
    }
    let say = |verb: &str, arguments: &str| {
        let script = format!(
            "cd /var/lib/driftless-node/switches/* && id=${{PWD##*/}} && \
             nonce=$(sed -n 's/^nonce //p' order) && from=$(sed -n 's/^ssh-from //p' order) && \
             sh ./switch.sh f {verb} \"$id\" {arguments}"
        );
        bench.machine.enter(&script).unwrap().stdout
    };
    for verb in ["contact", "vouch"] {
        assert!(say(verb, "wrong '192.0.2.1 1 192.0.2.2 22'").contains("refused nonce"));
        assert!(say(verb, "\"$nonce\" \"$from\"").contains("refused same-connection"));
        let late = say(verb, "\"$nonce\" '192.0.2.1 1 192.0.2.2 22'");
        assert!(late.contains("refused phase health") && !late.contains("verdict"), "{late}");
    }
    assert!(say("accept", "wrong").contains("refused nonce"));
    assert!(say("reject", "wrong 'no reason'").contains("refused nonce"));
    assert!(say("reject", "\"$nonce\" 'not today'").contains("verdict reject not today"));
    assert!(!say("accept", "\"$nonce\"").contains("verdict accept"), "the first verdict stands");
    node.close().await;
}

#[tokio::test]
async fn a_node_that_allows_one_session_is_asked_in_turn() {
    let setup = Setup { sshd_options: vec!["MaxSessions 1".into()], ..Setup::default() };
    let bench = Bench::on(&System::new("first"), &setup);
    let node = bench.node(&bench.first, |_| {});
    let look = || node.observe(Duration::from_secs(20));
    look().await.unwrap();
    let (one, two, three) = tokio::join!(look(), look(), look());
    for seen in [one, two, three] {
        assert_eq!(seen.unwrap().running, bench.first);
    }
    node.close().await;
}

#[tokio::test]
async fn a_sudo_that_wants_a_password_is_quoted() {
    let setup =
        Setup { users: vec![User { name: "deployer".into(), sudo: Sudo::WithPassword }], ..Setup::default() };
    let bench = Bench::on(&System::new("first"), &setup);
    let system = built(&System::new("second"));
    let node = bench.node(&system, |spec| {
        spec.host = spec.host.take().map(|host| host.replace("root@", "deployer@"));
        spec.privilege_escalation_command = vec!["sudo".into()];
    });
    let (show, _stage) = watch::channel(Stage::Preparing);
    let error = node.deploy(&bench.nix(), &bench.order(&system, Goal::Switch), &show).await.unwrap_err();
    assert!(error.to_string().contains("sudo: "), "{error}");
    node.close().await;
    let node = bench.node(&system, |spec| {
        spec.host = spec.host.take().map(|host| host.replace("root@", "deployer@"));
    });
    let error = node.deploy(&bench.nix(), &bench.order(&system, Goal::Switch), &show).await.unwrap_err();
    assert!(error.to_string().contains("needs root, and deployer is not"), "{error}");
    node.close().await;
}

#[tokio::test]
async fn a_link_that_stalls_while_the_new_system_activates_leaves_time_for_contact() {
    let bench = Bench::new("first");
    let system = built(&System::new("slow").fault(Fault::Slow(6)));
    let node = bench.node(&system, |spec| spec.switch_timeout = Duration::from_secs(30));
    // Cut for so long that TCP itself would try again only after the time for contact.
    let is_cut = Notify::new();
    let mend = async {
        is_cut.notified().await;
        tokio::time::sleep(Duration::from_secs(8)).await;
        bench.machine.link().restore().unwrap();
    };
    let deploy = deploy_and(&bench, &node, &system, Phase::Testing, || {
        bench.machine.link().cut().unwrap();
        is_cut.notify_one();
    });
    let ended = tokio::join!(deploy, mend).0;
    bench.assert_outcome(&ended.unwrap(), Outcome::Succeeded, None).await;
    node.close().await;
}

#[tokio::test]
async fn a_link_that_stalls_when_the_verdict_is_due_does_not_lose_it() {
    let bench = Bench::new("first");
    let system = built(&System::new("second"));
    let node = bench.node(&system, |spec| {
        spec.health_timeout = Duration::from_secs(25);
        spec.health_checks.after.commands =
            BTreeMap::from([("file".to_owned(), "test -e /run/healthy".to_owned().into())]);
    });
    let is_cut = Notify::new();
    let mend = async {
        is_cut.notified().await;
        tokio::time::sleep(Duration::from_secs(8)).await;
        bench.machine.enter("touch /run/healthy").unwrap();
        bench.machine.link().restore().unwrap();
    };
    let deploy = deploy_and(&bench, &node, &system, Phase::Health, || {
        bench.machine.link().cut().unwrap();
        is_cut.notify_one();
    });
    let ended = tokio::join!(deploy, mend).0;
    bench.assert_outcome(&ended.unwrap(), Outcome::Succeeded, None).await;
    node.close().await;
}

#[tokio::test]
async fn a_stopped_dbus_is_started_again_by_the_rollback() {
    let bench = Bench::new("first");
    let system = built(&System::new("bad").fault(Fault::StopDbus));
    let node = bench.node(&system, |spec| {
        NEVER(spec);
        spec.health_timeout = Duration::from_secs(6);
    });
    let (show, _stage) = watch::channel(Stage::Preparing);
    let entry = node.deploy(&bench.nix(), &bench.order(&system, Goal::Switch), &show).await.unwrap();
    bench.assert_outcome(&entry, Outcome::RolledBack, Some(Cause::Rejected)).await;
    bench.assert_as_before();
    bench.machine.enter("systemctl is-active dbus.socket").unwrap().ok().unwrap();
    node.close().await;
}

#[tokio::test]
async fn a_system_that_fills_run_is_rolled_back_where_it_is_not_well_and_the_journal_says_so() {
    let bench = Bench::new("first");
    let bad = System::new("bad").fault(Fault::FillDisk("/run".into()));
    let (_, ended) = bench.deploy_with(&bad, NEVER, Goal::Switch).await;
    assert_eq!(ended.unwrap().outcome, Some(Outcome::RolledBack));
    bench.assert_as_before();
    bench.machine.enter("rm /run/.lab-fill").unwrap();
    let (_, entry) = bench.deploy(&System::new("second")).await;
    bench.assert_outcome(&entry, Outcome::Succeeded, None).await;
}

#[tokio::test]
async fn a_journal_that_becomes_read_only_does_not_keep_the_node_from_rolling_back() {
    let bench = Bench::new("first");
    let system = built(&System::new("second"));
    let node = bench.node(&system, |spec| {
        NEVER(spec);
        spec.health_timeout = Duration::from_secs(6);
    });
    let ended = deploy_and(&bench, &node, &system, Phase::Health, || {
        let place = "/var/lib/driftless-node";
        let read_only = format!("mount --bind {place} {place} && mount -o remount,bind,ro {place}");
        bench.machine.enter(&read_only).unwrap().ok().unwrap();
    })
    .await;
    let entry = ended.unwrap();
    assert_eq!((entry.outcome, entry.cause), (Some(Outcome::RolledBack), Some(Cause::Rejected)), "{entry:?}");
    bench.assert_as_before();
    // And what cannot be written down is not begun.
    let (show, _stage) = watch::channel(Stage::Preparing);
    let refused = node.deploy(&bench.nix(), &bench.order(&system, Goal::Switch), &show).await.unwrap_err();
    assert!(refused.to_string().contains("/var/lib/driftless-node"), "{refused}");
    let left = bench.machine.enter("ls /run/driftless-node/ | grep start-").unwrap();
    assert_eq!(left.stdout, "", "a refused start leaves its script behind");
    node.close().await;
}

#[tokio::test]
async fn a_full_nix_fails_the_commit_and_nothing_else() {
    let bench = Bench::new("first");
    let (_, entry) = bench.deploy(&System::new("bad").fault(Fault::FillDisk("/nix".into()))).await;
    bench.machine.enter("rm -f /nix/.lab-fill").unwrap();
    // A symbolic link of tmpfs needs no page: a file system may let the commit through.
    match entry.outcome {
        Some(Outcome::Succeeded) => assert_eq!(bench.machine.boot_default().unwrap(), entry.system.as_str()),
        _ => {
            bench.assert_outcome(&entry, Outcome::CommitFailed, Some(Cause::Commit)).await;
            bench.assert_as_before();
        }
    }
}

#[tokio::test]
async fn every_unit_may_be_declared_unimportant() {
    let bench = Bench::new("first");
    let broken = System::new("second").fault(Fault::UnitFails);
    let all: Tune = |spec| spec.ignore_units = vec!["*".into()];
    let (_, ended) = bench.deploy_with(&broken, all, Goal::Switch).await;
    bench.assert_outcome(&ended.unwrap(), Outcome::Succeeded, None).await;
}

#[tokio::test]
async fn a_garbage_collection_in_the_middle_takes_neither_the_new_system_nor_the_way_back() {
    let bench = Bench::new("first");
    // The previous system is neither booted nor the boot default: only our root keeps it.
    let (tested, ended) = bench.deploy_with(&System::new("tested"), |_| {}, Goal::Test).await;
    bench.assert_outcome(&ended.unwrap(), Outcome::Succeeded, None).await;
    let system = built(&System::new("second").package_of_size("bulk", "1", 1 << 20));
    let node = bench.node(&system, |spec| {
        NEVER(spec);
        spec.health_timeout = Duration::from_secs(5);
    });
    let (show, stage) = watch::channel(Stage::Preparing);
    node.push(&bench.nix(), &system, &show).await.unwrap();
    bench.machine.enter("nix-collect-garbage 2>&1").unwrap().ok().unwrap();
    bench.machine.enter(&format!("test -e {system}/init")).unwrap().ok().unwrap();
    let mut order = bench.order(&system, Goal::Switch);
    order.expected = tested.clone();
    let nix = bench.nix();
    let collect = async {
        reaches(stage, Phase::Health).await;
        bench.machine.enter("nix-collect-garbage 2>&1").unwrap().ok().unwrap();
    };
    let entry = tokio::join!(node.deploy(&nix, &order, &show), collect).0.unwrap();
    bench.assert_outcome(&entry, Outcome::RolledBack, Some(Cause::Rejected)).await;
    assert_eq!(bench.machine.running().unwrap(), tested.as_str());
    assert_eq!(bench.machine.boot_default().unwrap(), bench.first.as_str());
    node.close().await;
}

#[tokio::test]
async fn an_activation_that_is_killed_may_be_tried_again() {
    let bench = Bench::new("first");
    let system = built(&System::new("slow").fault(Fault::Slow(30)));
    let node = bench.node(&system, |spec| spec.switch_timeout = Duration::from_secs(60));
    let ended = deploy_and(&bench, &node, &system, Phase::Testing, || {
        let kill =
            "sleep 1; kill -KILL $(pgrep -f '^/bin/sh /nix/store/[^ ]*/bin/switch-to-configuration test')";
        bench.machine.enter(kill).unwrap();
    })
    .await;
    let entry = ended.unwrap();
    bench.assert_outcome(&entry, Outcome::RolledBack, Some(Cause::Killed)).await;
    assert!(!entry.is_final_failure(), "{entry:?}");
    bench.assert_as_before();
    node.close().await;
}

#[tokio::test]
async fn systemd_may_re_execute_itself_in_every_phase() {
    let bench = Bench::new("first");
    let system = built(&System::new("second").fault(Fault::Gate("test")));
    let node = bench.node(&system, |_| {});
    let storm = "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do systemctl daemon-reexec; sleep 0.3; done </dev/null >/dev/null 2>&1 &";
    let ended = deploy_and(&bench, &node, &system, Phase::Testing, || {
        bench.machine.enter(storm).unwrap();
        bench.machine.open_gate().unwrap();
    })
    .await;
    bench.assert_outcome(&ended.unwrap(), Outcome::Succeeded, None).await;
    assert_eq!(bench.machine.loader_default().unwrap(), system.as_str());
    node.close().await;
}

#[tokio::test]
async fn what_a_lost_session_left_is_swept_by_the_next_switch_of_another_day_and_not_before() {
    let bench = Bench::new("first");
    // The script of a `start` and the root of a copy, of another day and of now.
    let leave = "mkdir -p /run/driftless-node && cd /run/driftless-node && touch start-old.sh start-new.sh && \
                 mkdir -p /nix/var/nix/gcroots/driftless && cd /nix/var/nix/gcroots/driftless && mkdir old new && \
                 touch -d '3 days ago' /run/driftless-node/start-old.sh old";
    bench.machine.enter(leave).unwrap().ok().unwrap();
    let (_, entry) = bench.deploy(&System::new("second")).await;
    bench.assert_outcome(&entry, Outcome::Succeeded, None).await;
    let left =
        bench.machine.enter("cd /run/driftless-node && ls -d start-*; ls /nix/var/nix/gcroots/driftless");
    assert_eq!(left.unwrap().stdout, "start-new.sh\nnew\n");
}
