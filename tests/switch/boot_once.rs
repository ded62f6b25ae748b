//! A system that only a reboot can start is booted once, and made the boot default only after it has proven itself.

use std::time::Duration;

use driftless::model::journal::{Cause, Entry, Outcome, Phase};
use driftless::model::node::{Goal, LastResort};
use driftless::model::observed::{NodeState, Stage};
use driftless::model::store_path::StorePath;
use driftless::node::Order;
use driftless_lab::{Fault, System};
use tokio::sync::watch;

use super::{Bench, Tune};

/// Neither can be started without a reboot where the first system runs.
fn only_by_reboot(text: &str) -> System {
    System::new(text).init_interface("3").kernel("6.9.1")
}

async fn stage(bench: &Bench, system: &System) -> StorePath {
    let (system, ended) = bench.deploy_with(system, |_| {}, Goal::Boot).await;
    bench.assert_outcome(&ended.unwrap(), Outcome::Staged, None).await;
    system
}

async fn seen(bench: &Bench) -> NodeState {
    let node = bench.node(&bench.first, |_| {});
    let state = node.observe(Duration::from_secs(20)).await.unwrap();
    node.close().await;
    state
}

/// The ordinary switch of a system onto itself, as a controller orders it after the reboot.
async fn prove(bench: &Bench, system: &StorePath, tune: Tune) -> Entry {
    let node = bench.node(system, tune);
    let order = Order { expected: system.clone(), ..bench.order(system, Goal::Switch) };
    let (show, _stage) = watch::channel(Stage::Preparing);
    let entry = node.deploy(&bench.nix(), &order, &show).await.unwrap();
    node.close().await;
    entry
}

fn boots(bench: &Bench) -> (String, String) {
    (bench.machine.boot_default().unwrap(), bench.machine.loader_default().unwrap())
}

fn only(system: &StorePath) -> (String, String) {
    (system.to_string(), system.to_string())
}

/// The boot loader knows the system by an entry of its own, or not.
fn has_entry(bench: &Bench, system: &StorePath) -> bool {
    let find = format!("grep -l 'init={system}/init' /boot/loader/entries/*.conf");
    bench.machine.enter(&find).unwrap().success()
}

#[tokio::test]
async fn a_good_system_is_booted_once_proven_and_made_the_default() {
    let bench = Bench::new("first");
    let (_, ended) = bench.deploy_with(&only_by_reboot("second"), |_| {}, Goal::Switch).await;
    bench.assert_outcome(&ended.unwrap(), Outcome::RolledBack, Some(Cause::NeedsReboot)).await;
    let system = stage(&bench, &only_by_reboot("second")).await;
    bench.assert_as_before();
    assert_eq!(seen(&bench).await.staged.as_ref(), Some(&system));
    assert!(has_entry(&bench, &system), "there is something to boot");

    bench.machine.reboot().unwrap();
    assert_eq!(bench.machine.running().unwrap(), system.as_str());
    assert_eq!(boots(&bench), only(&bench.first), "it is not proven yet");
    let state = seen(&bench).await;
    assert_eq!((state.staged, state.journal.last().unwrap().outcome), (None, Some(Outcome::Staged)));
    // It did boot, also where somebody has switched to another since.
    let run = |system: &StorePath| {
        bench.machine.enter(&format!("ln -sfn {system} /run/current-system")).unwrap().ok().unwrap();
    };
    run(&bench.first);
    assert_eq!(seen(&bench).await.journal.last().unwrap().outcome, Some(Outcome::Staged));
    run(&system);

    let entry = prove(&bench, &system, |_| {}).await;
    bench.assert_outcome(&entry, Outcome::Succeeded, None).await;
    assert_eq!(entry.previous, bench.first, "that is what a person rolls back to");
    bench.assert_sound(&system);
    bench.machine.reboot().unwrap();
    bench.assert_sound(&system);
    let state = seen(&bench).await;
    let outcomes: Vec<_> = state.journal.iter().map(|entry| entry.outcome.unwrap()).collect();
    assert_eq!(outcomes, [Outcome::RolledBack, Outcome::Staged, Outcome::Succeeded]);
    let left = bench.machine.enter("ls /nix/var/nix/profiles/system-profiles").unwrap();
    assert_eq!(left.stdout.trim(), "", "its own profile was for one boot");
}

#[tokio::test]
async fn a_system_that_does_not_come_up_gives_way_to_the_one_before() {
    let bench = Bench::new("first");
    let silent = stage(&bench, &only_by_reboot("silent").fault(Fault::KillSsh)).await;
    let boots_before = bench.machine.boot_count();
    bench.machine.enter("systemctl reboot").unwrap();
    bench.machine.wait_for_boot_without_ssh(boots_before + 1).unwrap();
    assert_eq!(bench.machine.running().unwrap(), silent.as_str());
    // Nobody gets in: somebody pulls the plug.
    bench.machine.power_cut().unwrap();
    bench.machine.start().unwrap();
    bench.assert_as_before();
    let entry = seen(&bench).await.journal.last().unwrap().clone();
    bench.assert_outcome(&entry, Outcome::RolledBack, Some(Cause::DidNotBoot)).await;
    assert!(entry.is_final_failure(), "nobody tries it again by himself");

    // And one that panics comes back without anybody.
    let panics = stage(&bench, &only_by_reboot("panics").fault(Fault::PanicAtBoot)).await;
    let boots_before = bench.machine.boot_count();
    bench.machine.enter("systemctl reboot").unwrap();
    bench.machine.wait_for_boot(boots_before + 2).unwrap();
    bench.assert_as_before();
    let entry = seen(&bench).await.journal.last().unwrap().clone();
    assert_eq!((&entry.system, entry.cause), (&panics, Some(Cause::DidNotBoot)));

    let (good, entry) = bench.deploy(&System::new("good")).await;
    bench.assert_outcome(&entry, Outcome::Succeeded, None).await;
    assert_eq!(boots(&bench), only(&good));
    assert!(!has_entry(&bench, &panics), "a commit clears its entry away");
    let state = seen(&bench).await;
    let causes: Vec<_> = state.journal.iter().map(|entry| entry.cause).collect();
    assert_eq!(causes, [Some(Cause::DidNotBoot), Some(Cause::DidNotBoot), None], "what was said stays said");
}

#[tokio::test]
async fn a_system_that_proves_unfit_is_left_by_a_reboot_into_the_default() {
    let bench = Bench::new("first");
    let unfit: Tune = |spec| {
        spec.health_checks.after.commands =
            [("shop".to_owned(), "echo closed; exit 1".to_owned().into())].into();
    };
    let system = stage(&bench, &only_by_reboot("second")).await;
    bench.machine.reboot().unwrap();
    // A controller that dies in the middle is no reason for a reboot.
    let node = bench.node(&system, |spec| {
        spec.health_checks.after.units = vec!["never.service".into()];
        spec.health_timeout = Duration::from_secs(3);
    });
    let order = Order { expected: system.clone(), ..bench.order(&system, Goal::Switch) };
    let (show, mut stage_seen) = watch::channel(Stage::Preparing);
    let nix = bench.nix();
    tokio::select! {
        ended = node.deploy(&nix, &order, &show) => panic!("ended too early: {ended:?}"),
        _ = stage_seen.wait_for(|stage| matches!(stage, Stage::Switching { phase: Phase::Health, .. })) => {}
    }
    node.close().await;
    let fresh = bench.node(&system, |_| {});
    let id = seen(&bench).await.journal.last().unwrap().clone().id;
    let (show, _stage) = watch::channel(Stage::Preparing);
    while seen(&bench).await.live_switch().is_some() {}
    let entry = fresh.attach(&id, &show).await.unwrap();
    fresh.close().await;
    bench.assert_outcome(&entry, Outcome::RolledBack, Some(Cause::Silence)).await;
    assert_eq!(bench.machine.running().unwrap(), system.as_str());
    assert_eq!(boots(&bench), only(&bench.first));

    // Where a reboot needs somebody with a passphrase, the node waits for him.
    let encrypted: Tune = |spec| {
        spec.health_checks.after.commands = [("shop".to_owned(), "exit 1".to_owned().into())].into();
        spec.last_resort = LastResort::None;
    };
    let entry = prove(&bench, &system, encrypted).await;
    bench.assert_outcome(&entry, Outcome::RollbackFailed, Some(Cause::Rejected)).await;
    assert_eq!(bench.machine.running().unwrap(), system.as_str());

    let boots_before = bench.machine.boot_count();
    let entry = prove(&bench, &system, unfit).await;
    bench.assert_outcome(&entry, Outcome::RolledBack, Some(Cause::Rejected)).await;
    assert!(entry.detail.contains("closed") && entry.detail.contains("rebooting"), "{}", entry.detail);
    bench.machine.wait_for_boot(boots_before + 1).unwrap();
    bench.assert_as_before();
    let state = seen(&bench).await;
    let staged = state.journal.iter().find(|entry| entry.outcome == Some(Outcome::Staged));
    assert_eq!(staged.map(|entry| &entry.system), Some(&system), "that it did boot stays in the journal");
    assert!(state.journal.last().unwrap().is_final_failure());
}

#[tokio::test]
async fn a_unit_that_fails_while_the_system_boots_is_its_own_failure() {
    let bench = Bench::new("first");
    let system = stage(&bench, &only_by_reboot("second").fault(Fault::UnitFails)).await;
    bench.machine.reboot().unwrap();
    let boots_before = bench.machine.boot_count();
    let entry = prove(&bench, &system, |_| {}).await;
    bench.assert_outcome(&entry, Outcome::RolledBack, Some(Cause::Units)).await;
    assert!(entry.detail.contains("lab-broken.service"), "{}", entry.detail);
    bench.machine.wait_for_boot(boots_before + 1).unwrap();
    bench.assert_as_before();
}

#[tokio::test]
async fn the_next_switch_takes_the_order_to_boot_once_back() {
    let bench = Bench::new("first");
    let second = stage(&bench, &only_by_reboot("second")).await;
    let third = stage(&bench, &only_by_reboot("third")).await;
    assert_eq!(seen(&bench).await.staged.as_ref(), Some(&third));
    assert!(!has_entry(&bench, &second) && has_entry(&bench, &third), "one at a time");
    // Where that cannot be, nothing begins, and the guard of what did not begin is gone with it.
    bench.machine.enter("touch /boot/no-uefi").unwrap().ok().unwrap();
    let (_, ended) = bench.deploy_with(&System::new("fourth"), |_| {}, Goal::Switch).await;
    let refused = ended.unwrap_err().to_string();
    assert!(refused.contains("to be booted once"), "{refused}");
    let gone = "timeout 20 sh -c 'while systemctl list-units --all --plain --no-legend | grep -q driftless-guard; \
                do sleep 0.2; done'; rm /boot/no-uefi; systemctl list-units --all --plain --no-legend 'driftless-*'";
    assert_eq!(bench.machine.enter(gone).unwrap().ok().unwrap(), "");
    assert_eq!(seen(&bench).await.staged.as_ref(), Some(&third));
    // Also where the next switch fails.
    let (_, entry) = bench.deploy(&System::new("bad").fault(Fault::ActivationFails)).await;
    bench.assert_outcome(&entry, Outcome::RolledBack, Some(Cause::Activation)).await;
    let state = seen(&bench).await;
    assert_eq!(state.staged, None);
    let causes: Vec<_> = state.journal.iter().map(|entry| entry.cause).collect();
    assert_eq!(causes, [Some(Cause::Superseded), Some(Cause::Superseded), Some(Cause::Activation)]);
    bench.machine.power_cut().unwrap();
    bench.machine.start().unwrap();
    bench.assert_as_before();
    assert_eq!(seen(&bench).await.journal.last().unwrap().clone().cause, Some(Cause::Activation));
}

#[tokio::test]
async fn where_the_loader_cannot_boot_once_nothing_changes_unless_a_person_says_so() {
    let bench = Bench::new("first");
    bench.machine.enter("touch /boot/no-uefi").unwrap();
    let (system, ended) = bench.deploy_with(&only_by_reboot("second"), |_| {}, Goal::Boot).await;
    let entry = ended.unwrap();
    bench.assert_outcome(&entry, Outcome::RolledBack, Some(Cause::UnprovenBoot)).await;
    assert!(entry.is_final_failure() && entry.detail.contains("Not booted with UEFI"), "{entry:?}");
    bench.assert_as_before();
    assert!(!has_entry(&bench, &system));
    let said = |spec: &mut driftless::model::node::NodeSpec| spec.reboot.unproven = true;
    let (system, ended) = bench.deploy_with(&only_by_reboot("second"), said, Goal::Boot).await;
    bench.assert_outcome(&ended.unwrap(), Outcome::Succeeded, None).await;
    assert_eq!(boots(&bench), only(&system));
    assert_eq!(bench.machine.running().unwrap(), bench.first.as_str());
}

#[tokio::test]
async fn what_goes_wrong_while_it_is_staged_leaves_the_node_as_it_was() {
    // The boot loader of the running system is the one that is written.
    let bench = Bench::on(&System::new("first").fault(Fault::BootLoaderHangs), &Default::default());
    let system: StorePath = only_by_reboot("second").build().unwrap().parse().unwrap();
    let hangs = "until grep -q 'loader hangs' /var/log/lab-switch.log 2>/dev/null; do sleep 0.1; done";
    let hangs = format!("timeout 30 sh -c \"{hangs}\" && rm /var/log/lab-switch.log");
    for end in ["kill", "power"] {
        let node = bench.node(&system, |spec| spec.switch_timeout = Duration::from_secs(5));
        let (nix, order) = (bench.nix(), bench.order(&system, Goal::Boot));
        let (show, mut stage_seen) = watch::channel(Stage::Preparing);
        let staging = |stage: &Stage| matches!(stage, Stage::Switching { phase: Phase::Staging, .. });
        tokio::select! {
            ended = node.deploy(&nix, &order, &show) => panic!("ended too early: {ended:?}"),
            _ = stage_seen.wait_for(staging) => {}
        }
        bench.machine.enter(&hangs).unwrap().ok().unwrap();
        let cause = if end == "kill" {
            let kill = "systemctl kill --signal=KILL --kill-whom=main 'driftless-switch-*'";
            bench.machine.enter(kill).unwrap().ok().unwrap();
            while seen(&bench).await.live_switch().is_some() {}
            (Outcome::RolledBack, Some(Cause::Killed))
        } else {
            bench.machine.power_cut().unwrap();
            bench.machine.start().unwrap();
            (Outcome::Interrupted, Some(Cause::Killed))
        };
        node.close().await;
        bench.assert_as_before();
        let state = seen(&bench).await;
        let entry = state.journal.last().unwrap();
        bench.assert_outcome(entry, cause.0, cause.1).await;
        assert_eq!(state.staged, None);
    }
    let (_, ended) = bench
        .deploy_with(&only_by_reboot("second"), |s| s.switch_timeout = Duration::from_secs(2), Goal::Boot)
        .await;
    bench.assert_outcome(&ended.unwrap(), Outcome::CommitFailed, Some(Cause::Commit)).await;
    bench.assert_as_before();
    bench.machine.reboot().unwrap();
    bench.assert_as_before();
}

/// What NixOS' `install-grub.pl` writes, with one system to be booted once.
const GRUB_CFG: &str = r#"search --set=drive1 --fs-uuid 1234
if [ -s $prefix/grubenv ]; then
  load_env
fi
if [ "${next_entry}" ]; then
  set default="${next_entry}"
  set next_entry=
  save_env next_entry
  set timeout=1
  set boot_once=true
else
  set default=0
  set timeout=5
fi
menuentry "NixOS - Default" --class nixos --unrestricted {
search --set=drive1 --fs-uuid 1234
  linux ($drive1)//kernels/linux-6.6.1-bzImage init=/nix/store/first-nixos/init loglevel=4
  initrd ($drive1)//kernels/initrd-linux-6.6.1-initrd
}

submenu "NixOS - All configurations" --class submenu {
menuentry "NixOS - Configuration 7 (2026-11-22 - 26.05)" --class nixos {
  linux ($drive1)//kernels/linux-6.6.1-bzImage init=/nix/store/first-nixos/init loglevel=4
}

menuentry "NixOS - Configuration 6 (2026-11-01 - 26.05)" --class nixos {
  linux ($drive1)//kernels/linux-6.6.1-bzImage init=/nix/store/old-nixos/init
}

}
submenu "NixOS - Profile 'driftless'" --class submenu {
menuentry "NixOS - Configuration 1 (2026-11-22 - 26.05)" --class nixos {
  linux ($drive1)//kernels/linux-6.9.1-bzImage init=/nix/store/next-nixos/init loglevel=4
}

}
"#;

/// Where GRUB's files are, and whether it could write there.
const GRUBS: [(&str, &str, &str); 6] = [
    ("ext2/ext3", "/dev/vda1", "can"),
    ("msdos", "/dev/nvme0n1p1", "can"),
    ("btrfs", "/dev/vda1", "cannot"),
    ("zfs", "rpool/boot", "cannot"),
    ("ext2/ext3", "/dev/dm-0", "cannot"),
    ("xfs", "/dev/md127", "cannot"),
];

/// What a system says of switch inhibitors, what the booted one says (nothing: it has no such file), and whether that holds.
const INHIBITORS: [(&str, Option<&str>, &str); 7] = [
    ("", Some(""), "goes on"),
    ("{}\n", None, "goes on"),
    ("{}", Some("{}\n"), "goes on"),
    ("{\n\"dbus\": 1\n}\n", Some("{\n\"dbus\": 1\n}\n"), "goes on"),
    ("{\n\"dbus\": 1\n}\n", Some("{\n\"dbus\": 2\n}\n"), "held"),
    ("{\"dbus\": 1}\n", None, "held"),
    ("{}\n", Some("{\"dbus\": 1}\n"), "held"),
];

/// No program compares them, so each way in which two files can differ, or not, is tried.
#[test]
fn switch_inhibitors_hold_only_where_they_differ_from_the_booted_systems() {
    let bench = Bench::new("first");
    let functions = driftless::node::SWITCH_SH.trim_end().strip_suffix("main \"$@\"").unwrap();
    std::fs::write(bench.machine.path("/root/functions.sh"), functions).unwrap();
    for (wanted, booted, then) in INHIBITORS {
        let write = |folder: &str, text: Option<&str>| {
            let folder = bench.machine.path(folder);
            let _ = std::fs::remove_dir_all(&folder);
            std::fs::create_dir_all(&folder).unwrap();
            if let Some(text) = text {
                std::fs::write(folder.join("switch-inhibitors"), text).unwrap();
            }
        };
        write("/root/new", Some(wanted));
        write("/root/booted", booted);
        let ask = "ln -sfn /root/booted /run/booted-system; . /root/functions.sh
            REBOOTS=no GOAL=switch PROVING=no SYSTEM=/root/new; finish() { echo held; }
            check_inhibitors && echo goes on";
        for shell in ["bash", "dash"] {
            let said = bench.machine.enter(&format!("{shell} -c '{ask}'")).unwrap();
            assert_eq!(said.stdout.trim(), then, "{shell}: {wanted:?} {booted:?}: {}", said.stderr);
        }
    }
}

/// GRUB itself cannot run in the lab: the script's questions about it are asked on a node with GRUB's files.
#[test]
fn grub_is_told_to_boot_once_only_where_it_can_forget_it_again() {
    let bench = Bench::new("first");
    let script = driftless::node::SWITCH_SH.trim_end();
    let functions = script.strip_suffix("main \"$@\"").unwrap();
    std::fs::write(bench.machine.path("/root/functions.sh"), functions).unwrap();
    std::fs::create_dir_all(bench.machine.path("/boot/grub")).unwrap();
    std::fs::write(bench.machine.path("/boot/grub/grub.cfg"), GRUB_CFG).unwrap();
    let ask = |what: &str| {
        let asked = format!(
            "mv /boot/loader /boot/away; . /root/functions.sh; LOG=/root/log LOADER_TOLD=yes PROFILE_BEFORE=/nix/store/first-nixos\n\
             timeout() {{ shift 3; printf '%s ' \"$@\" >>/root/told; }}\n{what}\nmv /boot/away /boot/loader"
        );
        let said = bench.machine.enter(&asked).unwrap();
        assert!(said.stderr.is_empty(), "{}", said.stderr);
        said.stdout
    };
    assert_eq!(ask("loader"), "grub\n");
    let entry = "entry_of /nix/store/";
    assert_eq!(ask(&format!("{entry}first-nixos")), "NixOS - Default");
    let next = "NixOS - Profile 'driftless'>NixOS - Configuration 1 (2026-11-22 - 26.05)";
    assert_eq!(ask(&format!("{entry}next-nixos")), next);
    let old = "NixOS - All configurations>NixOS - Configuration 6 (2026-11-01 - 26.05)";
    assert_eq!(ask(&format!("{entry}old-nixos")), old);
    assert_eq!(ask(&format!("{entry}none-nixos")), "");
    assert_eq!(ask("boots /nix/store/first-nixos && echo yes"), "yes\n");
    assert_eq!(ask("boots /nix/store/next-nixos && echo yes"), "");
    for (system, device, can) in GRUBS {
        let fake = format!(
            "stat() {{ echo {system}; }}\n findmnt() {{ echo {device}; }}\n readlink() {{ echo \"$2\"; }}"
        );
        let said = ask(&format!("{fake}\n if can_boot_once; then echo can; else echo cannot; fi"));
        assert_eq!(said.trim(), can, "{system} on {device}");
    }
    ask("rm -f /root/told; once \"$(entry_of /nix/store/next-nixos)\"");
    let told = bench.machine.enter("cat /root/told").unwrap().stdout;
    assert_eq!(told.trim(), format!("grub-editenv /boot/grub/grubenv set next_entry={next}"));
    // A grub.cfg by somebody else, which would boot the entry for ever.
    let foreign = bench.machine.path("/boot/grub/grub.cfg");
    std::fs::write(foreign, GRUB_CFG.replace("save_env next_entry", "true")).unwrap();
    let fake = "stat() { echo ext2/ext3; }\n findmnt() { echo /dev/vda1; }\n readlink() { echo \"$2\"; }";
    let said = ask(&format!("{fake}\n if can_boot_once; then echo can; else echo cannot; fi"));
    assert_eq!(said.trim(), "cannot");
}

#[tokio::test]
async fn an_order_to_reboot_is_remembered_over_the_reboot_until_failures_are_forgiven() {
    let bench = Bench::new("first");
    let boots = bench.machine.boot_count();
    let before = seen(&bench).await;
    assert_eq!(before.reboot, None);
    let node = bench.node(&bench.first, |_| {});
    let old = "00000000-0000-4000-8000-000000000000".parse().unwrap();
    assert!(node.reboot(&old, Some(&bench.first)).await.is_err(), "another boot than the one that was seen");
    // It may be gone before it has said so.
    let _ = node.reboot(&before.boot_id, Some(&bench.first)).await;
    node.close().await;
    bench.machine.wait_for_boot(boots + 1).unwrap();
    let after = seen(&bench).await;
    assert_ne!(after.boot_id, before.boot_id);
    let order = after.reboot.unwrap();
    assert_eq!((order.boot, order.toplevel), (before.boot_id, bench.first.clone()));
    let node = bench.node(&bench.first, |_| {});
    node.forgive().await.unwrap();
    node.close().await;
    assert_eq!(seen(&bench).await.reboot, None);
}

#[tokio::test]
async fn a_switch_to_another_kernel_becomes_a_boot_where_the_node_may_be_rebooted() {
    let bench = Bench::new("first");
    let may_reboot: Tune = |spec| spec.reboot.policy = driftless::model::node::RebootPolicy::WhenRequired;
    for system in [System::new("kernel").kernel("6.9.1"), System::new("interface").init_interface("3")] {
        let (system, ended) = bench.deploy_with(&system, may_reboot, Goal::Switch).await;
        bench.assert_outcome(&ended.unwrap(), Outcome::Staged, None).await;
        bench.assert_as_before();
        assert_eq!(seen(&bench).await.staged, Some(system));
    }
    let (_, ended) = bench.deploy_with(&System::new("same kernel"), may_reboot, Goal::Switch).await;
    bench.assert_outcome(&ended.unwrap(), Outcome::Succeeded, None).await;
}
