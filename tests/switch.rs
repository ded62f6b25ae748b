//! The node's switch, on lab nodes: every way it can end, with the journal that the node keeps of it.
//!
//! Ways in which a plausible script goes wrong, each once seen on a node, and the test that is red without the remedy:
//!
//! | finding | test |
//! |---|---|
//! | login shells print before a reply | `worst_case::a_login_with_sudo_noise_and_one_session_is_enough_for_a_whole_deploy` |
//! | systemd-run says 0 although the program failed | `a_switch_for_another_system_than_the_running_one_is_refused_as_changed` |
//! | with `--collect`, failed looks like never there | `guard::whatever_ends_the_watcher_the_switch_is_rolled_back` |
//! | a watcher that is killed leaves the node to itself | `guard::whatever_ends_the_watcher_the_switch_is_rolled_back` |
//! | a killed unit takes its ExecStopPost along | the same, its first and third way |
//! | `timeout` leaves children that keep the lock of switch-to-configuration | `an_activation_that_hangs_is_ended_at_its_deadline_and_rolled_back`, `faults::every_fault_of_a_new_system_has_its_outcome` (a child that stays) |
//! | a polled verdict says accepted and rolls back | `race::of_accept_reject_and_deadline_at_once_one_wins_and_all_are_told_which` |
//! | sudo writes lines into the journal at each look | `spine::a_look_at_a_node_leaves_no_line_of_sudo_in_its_journal` |
//! | the guard finds its programs in the system that it is to undo | `guard::what_ends_a_switch_relies_on_no_program_of_the_new_system` |
//! | where users do not see processes, a live switch looks dead | `spine::a_user_of_the_node_can_watch_and_do_nothing_else` |
//! | a half commit is taken for the way back | `spine::a_failing_switch_after_a_half_commit_does_not_go_back_to_the_half` |
//! | a user holds the lock and keeps switches away | `spine::a_user_of_the_node_can_watch_and_do_nothing_else` |
//! | a failed redirection of `:` ends the shell without a word | `spine::what_cannot_be_written_down_is_not_begun_and_leaves_nothing` |
//! | Nix needs the escalation for its daemon (of `nix::copy`) | `nix_copies::an_untrusted_user_needs_signatures_and_escalation_does_without` |

mod boot_once;
mod clocks;
mod disturbed;
mod faults;
mod guard;
mod power;
mod race;
mod scarcity;
mod scenario;
mod spine;
mod suspended;
mod worst_case;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use driftless::config::{NixConfig, SshConfig};
use driftless::model::journal::{Cause, Entry, Outcome, Phase};
use driftless::model::name::NodeName;
use driftless::model::node::{Goal, NodeSpec};
use driftless::model::observed::Stage;
use driftless::model::store_path::StorePath;
use driftless::nix::Nix;
use driftless::node::{Node, NodeError, Order, Refusal};
use driftless_lab::{Fault, Lab, Setup, System};
use tokio::sync::watch;

/// One lab node under the hand of a controller's node room.
pub struct Bench {
    /// The machine.
    pub machine: driftless_lab::Node,
    /// What it ran first.
    pub first: StorePath,
    state: tempfile::TempDir,
    lab: Lab,
}

/// What a test changes about the declaration.
type Tune = fn(&mut NodeSpec);

impl Bench {
    fn new(text: &str) -> Self {
        Self::on(&System::new(text), &Setup::default())
    }

    fn on(system: &System, setup: &Setup) -> Self {
        let lab = Lab::start().unwrap();
        let first = system.build().unwrap();
        let machine = lab.node_with("n1", &first, setup).unwrap();
        // Short: it holds sockets.
        let state = tempfile::Builder::new().prefix("dl").tempdir_in("/tmp").unwrap();
        Self { machine, first: first.parse().unwrap(), state, lab }
    }

    fn spec(&self, toplevel: &StorePath, tune: Tune) -> NodeSpec {
        let mut spec: NodeSpec = serde_json::from_value(serde_json::json!({
            "drv": format!("{toplevel}.drv"),
            "toplevel": toplevel,
            "system": "x86_64-linux",
            "host": format!("root@{}", self.machine.address()),
            "hostKeys": [self.machine.host_key()],
            "hasFastConnection": true,
            "switchTimeout": 20,
            "successTimeout": 8,
            "healthTimeout": 8,
        }))
        .unwrap();
        tune(&mut spec);
        spec
    }

    fn ssh(&self) -> SshConfig {
        SshConfig { identity_file: Some(self.lab.identity()), ..SshConfig::default() }
    }

    fn node(&self, toplevel: &StorePath, tune: Tune) -> Node {
        let name: NodeName = "n1".parse().unwrap();
        Node::new(&name, &self.spec(toplevel, tune), &self.ssh(), &self.state.path().join("r")).unwrap()
    }

    fn nix(&self) -> Nix {
        Nix::new(&NixConfig::default(), self.state.path()).unwrap()
    }

    fn order(&self, toplevel: &StorePath, goal: Goal) -> Order {
        Order {
            toplevel: toplevel.clone(),
            expected: self.first.clone(),
            goal,
            revision: "0123456789abcdef0123456789abcdef01234567".into(),
            asker: "controller test".into(),
            hooks: Vec::new(),
        }
    }

    async fn deploy_with(
        &self,
        system: &System,
        tune: Tune,
        goal: Goal,
    ) -> (StorePath, Result<Entry, NodeError>) {
        let toplevel: StorePath = system.build().unwrap().parse().unwrap();
        let (show, _stage) = watch::channel(Stage::Preparing);
        let node = self.node(&toplevel, tune);
        let ended = node.deploy(&self.nix(), &self.order(&toplevel, goal), &show).await;
        node.close().await;
        (toplevel, ended)
    }

    async fn deploy(&self, system: &System) -> (StorePath, Entry) {
        let (toplevel, ended) = self.deploy_with(system, |_| {}, Goal::Switch).await;
        (toplevel, ended.unwrap())
    }

    /// The node is back at, or still on, what it ran first, and sound.
    fn assert_as_before(&self) {
        self.assert_sound(&self.first);
    }

    /// The node is sound, and runs and boots this system.
    fn assert_sound(&self, system: &StorePath) {
        self.machine.assert_sound(&[system.as_str()], &[system.as_str()]).unwrap();
    }

    fn journal(&self) -> Vec<String> {
        let list = "cd /var/lib/driftless-node/switches && tail -qn 1 */summary";
        self.machine.enter(list).unwrap().stdout.lines().map(str::to_owned).collect()
    }

    async fn log(&self, entry: &Entry) -> String {
        let node = self.node(&self.first, |_| {});
        let log = node.log(&entry.id).await.unwrap();
        node.close().await;
        log
    }

    /// Fails with the node's own log where an outcome is another than expected.
    async fn assert_outcome(&self, entry: &Entry, outcome: Outcome, cause: Option<Cause>) {
        if (entry.outcome, entry.cause) != (Some(outcome), cause) {
            let log = self.machine.enter("cat /var/lib/driftless-node/switches/*/log").unwrap().stdout;
            panic!("{entry:#?}\n{log}");
        }
    }
}

#[tokio::test]
async fn a_good_system_is_installed_proven_and_made_the_boot_default() {
    let bench = Bench::new("first");
    let (system, entry) = bench.deploy(&System::new("second")).await;
    bench.assert_outcome(&entry, Outcome::Succeeded, None).await;
    assert_eq!(entry.phase, Phase::Finished);
    bench.assert_sound(&system);
    let log = bench.log(&entry).await;
    for phase in ["checking", "testing", "contact", "health", "committing"] {
        assert!(log.contains(&format!("phase {phase}")), "{log}");
    }
    bench.machine.reboot().unwrap();
    bench.machine.wait_ssh().unwrap();
    assert_eq!(bench.machine.running().unwrap(), system.as_str());
}

#[tokio::test]
async fn a_unit_that_had_failed_before_is_no_reason_to_roll_back() {
    let bench = Bench::new("first");
    let chronic = "printf '[Service]\\nType=oneshot\\nExecStart=/bin/false\\n' >/run/systemd/system/chronic.service; \
                   systemctl daemon-reload; systemctl start chronic.service; systemctl is-failed chronic.service";
    assert_eq!(bench.machine.enter(chronic).unwrap().stdout.trim(), "failed");
    let (system, entry) = bench.deploy(&System::new("second")).await;
    bench.assert_outcome(&entry, Outcome::Succeeded, None).await;
    assert_eq!(bench.machine.running().unwrap(), system.as_str());
    let log = bench.log(&entry).await;
    assert!(log.contains("switch-to-configuration test: 4"), "the exit code 4 is what this is about:\n{log}");
}

#[tokio::test]
async fn a_failed_unit_that_is_declared_unimportant_does_not_count() {
    let bench = Bench::new("first");
    let broken = System::new("second").fault(Fault::UnitFails);
    let ignore: Tune = |spec| spec.ignore_units = vec!["lab-*.service".into()];
    let (system, ended) = bench.deploy_with(&broken, ignore, Goal::Switch).await;
    bench.assert_outcome(&ended.unwrap(), Outcome::Succeeded, None).await;
    assert_eq!(bench.machine.running().unwrap(), system.as_str());
}

#[tokio::test]
async fn a_descendant_that_keeps_the_lock_does_not_block_the_rollback() {
    let bench = Bench::new("first");
    let leaves = System::new("bad").fault(Fault::ActivationFails).fault(Fault::LeaveChild(600));
    let (_, entry) = bench.deploy(&leaves).await;
    bench.assert_outcome(&entry, Outcome::RolledBack, Some(Cause::Activation)).await;
    bench.assert_as_before();
}

#[tokio::test]
async fn a_controller_that_dies_while_the_node_waits_leaves_it_to_roll_back_alone() {
    let bench = Bench::new("first");
    let system: StorePath = System::new("second").build().unwrap().parse().unwrap();
    let node = bench.node(&system, |spec| spec.health_checks.after.units = vec!["never.service".into()]);
    let (show, mut stage) = watch::channel(Stage::Preparing);
    {
        let (nix, order) = (bench.nix(), bench.order(&system, Goal::Switch));
        let deploy = node.deploy(&nix, &order, &show);
        let health = stage.wait_for(|stage| matches!(stage, Stage::Switching { phase: Phase::Health, .. }));
        tokio::select! {
            ended = deploy => panic!("ended too early: {ended:?}"),
            _ = health => {}
        }
    }
    node.close().await;
    assert_eq!(bench.machine.running().unwrap(), system.as_str());
    // Nobody asks the node anything until it has decided.
    let deadline = Instant::now() + Duration::from_secs(30);
    while bench.machine.running().unwrap() != bench.first.as_str() {
        assert!(Instant::now() < deadline, "it never rolled back: {:?}", bench.journal());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let state = node.observe(Duration::from_secs(20)).await.unwrap();
    assert_eq!(state.generation, Some(1));
    let (show, _stage) = watch::channel(Stage::Preparing);
    let entry = node.attach(&state.journal[0].id, &show).await.unwrap();
    bench.assert_outcome(&entry, Outcome::RolledBack, Some(Cause::Silence)).await;
    bench.assert_as_before();
    node.close().await;
}

#[tokio::test]
async fn a_successor_re_attaches_to_a_waiting_switch_and_accepts_it() {
    let bench = Bench::new("first");
    let system: StorePath = System::new("second").build().unwrap().parse().unwrap();
    let node = bench.node(&system, |spec| {
        spec.health_checks.after.commands =
            BTreeMap::from([("file".to_owned(), "test -e /run/healthy".to_owned().into())]);
    });
    let (show, mut stage) = watch::channel(Stage::Preparing);
    {
        let (nix, order) = (bench.nix(), bench.order(&system, Goal::Switch));
        tokio::select! {
            ended = node.deploy(&nix, &order, &show) => panic!("ended too early: {ended:?}"),
            _ = stage.wait_for(|stage| matches!(stage, Stage::Switching { phase: Phase::Health, .. })) => {}
        }
    }
    node.close().await;
    // The successor knows nothing of the checks but what the node tells.
    let successor = bench.node(&system, |_| {});
    let state = successor.observe(Duration::from_secs(20)).await.unwrap();
    let live = state.live_switch().unwrap().clone();
    bench.machine.enter("touch /run/healthy").unwrap();
    let (show, _stage) = watch::channel(Stage::Preparing);
    let entry = successor.attach(&live.id, &show).await.unwrap();
    bench.assert_outcome(&entry, Outcome::Succeeded, None).await;
    assert_eq!(bench.machine.boot_default().unwrap(), system.as_str());
    successor.close().await;
}

#[tokio::test]
async fn a_health_check_that_fails_rolls_back_with_its_name_and_output() {
    let bench = Bench::new("first");
    let check: Tune = |spec| {
        let command = "echo the shop is closed; exit 7".to_owned();
        spec.health_checks.after.commands = BTreeMap::from([("shop".to_owned(), command.into())]);
        spec.health_timeout = Duration::from_secs(8);
    };
    let (_, ended) = bench.deploy_with(&System::new("second"), check, Goal::Switch).await;
    let entry = ended.unwrap();
    bench.assert_outcome(&entry, Outcome::RolledBack, Some(Cause::Rejected)).await;
    assert!(
        entry.detail.contains("command shop") && entry.detail.contains("the shop is closed"),
        "{}",
        entry.detail
    );
    bench.assert_as_before();
}

#[tokio::test]
async fn a_reboot_in_the_middle_comes_back_with_the_previous_system() {
    let bench = Bench::new("first");
    let system: StorePath = System::new("second").build().unwrap().parse().unwrap();
    let node = bench.node(&system, |spec| {
        spec.health_checks.after.units = vec!["never.service".into()];
        spec.health_timeout = Duration::from_secs(60);
    });
    let (show, mut stage) = watch::channel(Stage::Preparing);
    let (nix, order) = (bench.nix(), bench.order(&system, Goal::Switch));
    tokio::select! {
        ended = node.deploy(&nix, &order, &show) => panic!("ended too early: {ended:?}"),
        _ = stage.wait_for(|stage| matches!(stage, Stage::Switching { phase: Phase::Health, .. })) => {}
    }
    bench.machine.power_cut().unwrap();
    bench.machine.start().unwrap();
    bench.machine.wait_ssh().unwrap();
    bench.assert_as_before();
    let fresh = bench.node(&system, |_| {});
    let state = fresh.observe(Duration::from_secs(20)).await.unwrap();
    let entry = state.journal.last().unwrap();
    bench.assert_outcome(entry, Outcome::Interrupted, Some(Cause::Killed)).await;
    // And the next try is an ordinary switch.
    let (show, _stage) = watch::channel(Stage::Preparing);
    let entry = fresh.deploy(&nix, &order, &show).await.unwrap();
    bench.assert_outcome(&entry, Outcome::Succeeded, None).await;
    fresh.close().await;
}

#[tokio::test]
async fn a_node_that_dies_for_good_in_the_middle_is_not_waited_for_any_longer_than_it_needs() {
    let bench = Bench::new("first");
    let system: StorePath = System::new("second").build().unwrap().parse().unwrap();
    let node = bench.node(&system, |spec| spec.health_checks.after.units = vec!["never.service".into()]);
    let (nix, order) = (bench.nix(), bench.order(&system, Goal::Switch));
    let (show, mut stage) = watch::channel(Stage::Preparing);
    let die = async {
        stage.wait_for(|stage| matches!(stage, Stage::Switching { phase: Phase::Health, .. })).await.unwrap();
        bench.machine.power_cut().unwrap();
        Instant::now()
    };
    let (ended, died) = tokio::join!(node.deploy(&nix, &order, &show), die);
    let error = ended.unwrap_err();
    assert!(matches!(error, NodeError::LostTouch { .. }), "{error}");
    assert!(died.elapsed() < Duration::from_secs(8 + 30 + 45), "{:?}", died.elapsed());
    node.close().await;
}

#[tokio::test]
async fn a_second_switch_meanwhile_is_refused_as_busy() {
    let bench = Bench::new("first");
    let slow: StorePath = System::new("slow").fault(Fault::Slow(4)).build().unwrap().parse().unwrap();
    let other: StorePath = System::new("other").build().unwrap().parse().unwrap();
    let (one, two) = (bench.node(&slow, |_| {}), bench.node(&other, |_| {}));
    let (show, mut stage) = watch::channel(Stage::Preparing);
    let (unseen, _) = watch::channel(Stage::Preparing);
    let (nix, first, second) =
        (bench.nix(), bench.order(&slow, Goal::Switch), bench.order(&other, Goal::Switch));
    let late = async {
        stage.wait_for(|stage| matches!(stage, Stage::Switching { .. })).await.unwrap();
        two.deploy(&nix, &second, &unseen).await
    };
    let (won, lost) = tokio::join!(one.deploy(&nix, &first, &show), late);
    bench.assert_outcome(&won.unwrap(), Outcome::Succeeded, None).await;
    let refused = lost.unwrap_err();
    assert!(matches!(refused, NodeError::Refused { refusal: Refusal::Busy, .. }), "{refused}");
    assert_eq!(bench.journal().len(), 1, "a refused switch leaves no entry");
    one.close().await;
    two.close().await;
    bench.assert_sound(&slow);
}

#[tokio::test]
async fn a_switch_for_another_system_than_the_running_one_is_refused_as_changed() {
    let bench = Bench::new("first");
    let other: StorePath = System::new("other").build().unwrap().parse().unwrap();
    let node = bench.node(&other, |_| {});
    let (show, _stage) = watch::channel(Stage::Preparing);
    let order = Order { expected: other.clone(), ..bench.order(&other, Goal::Switch) };
    let refused = node.deploy(&bench.nix(), &order, &show).await.unwrap_err();
    assert!(matches!(refused, NodeError::Refused { refusal: Refusal::Changed { .. }, .. }), "{refused}");
    assert!(refused.to_string().contains(bench.first.as_str()), "{refused}");
    bench.assert_as_before();
    node.close().await;
}

#[tokio::test]
async fn what_a_former_boot_loader_left_behind_does_not_fail_the_commit() {
    let bench = Bench::new("first");
    let stale = "printf 'default gone.conf\\n' >/boot/loader/loader.conf";
    assert!(bench.machine.enter(stale).unwrap().success());
    // As with a GRUB machine that once had systemd-boot: nothing writes these files any more.
    let (system, entry) = bench.deploy(&System::new("second").fault(Fault::BootLoaderLies)).await;
    bench.assert_outcome(&entry, Outcome::Succeeded, None).await;
    assert_eq!(bench.machine.boot_default().unwrap(), system.as_str());
}

#[tokio::test]
async fn somebody_elses_switch_meanwhile_is_left_alone() {
    let bench = Bench::new("first");
    let system: StorePath = System::new("second").build().unwrap().parse().unwrap();
    let foreign: StorePath = System::new("foreign").build().unwrap().parse().unwrap();
    let node = bench.node(&system, |spec| spec.health_checks.after.units = vec!["never.service".into()]);
    let nix = bench.nix();
    let (show, mut stage) = watch::channel(Stage::Preparing);
    node.push(&nix, &foreign, &show).await.unwrap();
    let order = bench.order(&system, Goal::Switch);
    let intrude = async {
        stage.wait_for(|stage| matches!(stage, Stage::Switching { phase: Phase::Health, .. })).await.unwrap();
        let switched = bench.machine.enter(&format!("{foreign}/bin/switch-to-configuration test")).unwrap();
        assert!(switched.success(), "{switched:?}");
    };
    let (ended, ()) = tokio::join!(node.deploy(&nix, &order, &show), intrude);
    bench.assert_outcome(&ended.unwrap(), Outcome::Interfered, Some(Cause::Foreign)).await;
    assert_eq!(bench.machine.running().unwrap(), foreign.as_str());
    node.close().await;
}

#[tokio::test]
async fn goal_test_leaves_the_boot_default_and_goal_boot_leaves_the_running_system() {
    let bench = Bench::new("first");
    let (tested, ended) = bench.deploy_with(&System::new("tested"), |_| {}, Goal::Test).await;
    bench.assert_outcome(&ended.unwrap(), Outcome::Succeeded, None).await;
    assert_eq!(bench.machine.running().unwrap(), tested.as_str());
    assert_eq!(bench.machine.boot_default().unwrap(), bench.first.as_str());
    let booted: StorePath = System::new("booted").build().unwrap().parse().unwrap();
    let node = bench.node(&booted, |_| {});
    let (show, _stage) = watch::channel(Stage::Preparing);
    let order = Order { expected: tested.clone(), ..bench.order(&booted, Goal::Boot) };
    let entry = node.deploy(&bench.nix(), &order, &show).await.unwrap();
    bench.assert_outcome(&entry, Outcome::Staged, None).await;
    assert_eq!(bench.machine.running().unwrap(), tested.as_str());
    assert_eq!(bench.machine.loader_default().unwrap(), bench.first.as_str());
    node.close().await;
}

#[tokio::test]
async fn what_is_wrong_with_a_connection_is_said_in_words() {
    let bench = Bench::new("first");
    let wrong: [(Tune, &str); 4] = [
        (|spec| spec.host = Some("root@no-such-host.invalid".into()), "Could not resolve hostname"),
        (|spec| spec.port = Some(9), "Connection refused"),
        (|spec| spec.host_keys = vec![OTHER_KEY.into()], "has changed"),
        (|spec| spec.host_keys.clear(), "not known"),
    ];
    for (tune, words) in wrong {
        let error = bench.node(&bench.first, tune).observe(Duration::from_secs(20)).await.unwrap_err();
        assert!(matches!(error, NodeError::Connect { .. }) && error.to_string().contains(words), "{error}");
    }
    let stranger = bench.state.path().join("stranger");
    let keygen = ["-q", "-t", "ed25519", "-N", "", "-f", stranger.to_str().unwrap()];
    assert!(std::process::Command::new("ssh-keygen").args(keygen).status().unwrap().success());
    let ssh = SshConfig { identity_file: Some(stranger), ..SshConfig::default() };
    let spec = bench.spec(&bench.first, |_| {});
    let node = Node::new(&"n1".parse().unwrap(), &spec, &ssh, Path::new("/tmp/dl-stranger")).unwrap();
    let error = node.observe(Duration::from_secs(20)).await.unwrap_err();
    assert!(error.to_string().contains("does not accept our key"), "{error}");
    std::fs::remove_dir_all("/tmp/dl-stranger").unwrap();
    bench.machine.enter("rm /etc/NIXOS").unwrap();
    let error = bench.node(&bench.first, |_| {}).observe(Duration::from_secs(20)).await.unwrap_err();
    assert!(matches!(error, NodeError::NotNixos { .. }), "{error}");
}

/// A valid key that is nobody's.
const OTHER_KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl";
