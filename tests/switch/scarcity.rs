//! What a switch needs and may not get: room, the right to write, the lock of switch-to-configuration, a way back.

use std::time::Duration;

use driftless::model::journal::{Cause, Outcome, Phase};
use driftless_lab::{Fault, Node, System};

use super::scenario::{Act, SUCCEEDED, Scenario, Which, back, play};

fn on(node: &Node, script: &str) {
    node.enter(script).unwrap().ok().unwrap();
}

fn good() -> System {
    System::new("second").fault(Fault::Slow(5))
}

fn bad() -> System {
    System::new("bad").fault(Fault::Slow(5)).fault(Fault::ActivationFails)
}

/// What /var says must be true after the next boot, when /run is gone.
fn var_tells_the_end(node: &Node) {
    let told = node.enter("cut -f 4 /var/lib/driftless-node/switches/*/summary").unwrap().ok().unwrap();
    assert_eq!(told, "finished", "the journal on /var");
}

#[test]
fn a_full_or_read_only_file_system_is_refused_before_and_survived_in_the_middle() {
    let nothing = back(Cause::Commit);
    let fill_var: Act = |node| node.fill("/var").unwrap();
    let empty_var: Act = |node| {
        node.empty("/var").unwrap();
        var_tells_the_end(node);
    };
    play(&[
        Scenario::new("/var full before", good(), nothing)
            .before(fill_var)
            .after(|node| node.empty("/var").unwrap())
            .refused("journal"),
        Scenario::new("/var full, good,", good(), SUCCEEDED).when(Phase::Testing, fill_var).after(empty_var),
        Scenario::new("/var full, bad,", bad(), back(Cause::Activation))
            .when(Phase::Testing, fill_var)
            .after(empty_var),
        Scenario::new("/nix read-only before", good(), nothing)
            .before(|node| on(node, "mount -o remount,bind,ro /nix"))
            .after(|node| on(node, "mount -o remount,bind,rw /nix"))
            .refused("root"),
    ]);
}

/// Somebody else's switch-to-configuration, for so many seconds from the moment the lock is free.
fn hold_lock(node: &Node, seconds: u32) {
    let lock = "mkdir -p /run/nixos && systemd-run --quiet --unit=lab-lock --setenv=PATH=$PATH \
                flock /run/nixos/switch-to-configuration.lock sleep";
    on(node, &format!("{lock} {seconds}"));
}

/// The same, from the moment that our own activation has the lock.
fn queue_for_lock(node: &Node, seconds: u32) {
    on(node, "until grep -q ' test .* slow$' /var/log/lab-switch.log; do sleep 0.05; done");
    hold_lock(node, seconds);
}

fn free_lock(node: &Node) {
    on(node, "systemctl stop lab-lock.service");
}

#[test]
fn a_lock_that_somebody_holds_is_waited_for_where_giving_up_would_leave_the_node_half_way() {
    let short: super::Tune = |spec| spec.switch_timeout = Duration::from_secs(6);
    let half_way = back(Cause::Commit).outcome(Outcome::RollbackFailed).runs(Which::New);
    play(&[
        Scenario::new("before", good(), back(Cause::Busy))
            .before(|node| hold_lock(node, 600))
            .after(free_lock),
        Scenario::new("before, newer", good().newer_switch(), back(Cause::Busy))
            .before(|node| hold_lock(node, 600))
            .after(free_lock),
        Scenario::new("for a moment, good,", good(), SUCCEEDED)
            .when(Phase::Testing, |node| queue_for_lock(node, 4)),
        Scenario::new("for a moment, newer,", good().newer_switch(), SUCCEEDED)
            .when(Phase::Testing, |node| queue_for_lock(node, 4)),
        Scenario::new("for a moment, bad,", bad(), back(Cause::Activation))
            .when(Phase::Testing, |node| queue_for_lock(node, 4)),
        Scenario::new("for good", good(), half_way.says("boot: 11"))
            .logs("rollback-failed")
            .tune(short)
            .when(Phase::Testing, |node| queue_for_lock(node, 600))
            .after(free_lock),
    ]);
}

#[test]
fn a_way_back_that_is_gone_is_said_and_the_reboot_finds_another() {
    let take_away: Act =
        |node| on(node, "chmod -x $(readlink /run/booted-system)/bin/switch-to-configuration");
    // sshd cannot be started again, whatever is tried.
    let shut_and_take_away: Act = |node| {
        on(
            node,
            "chmod -x $(readlink /run/booted-system)/bin/switch-to-configuration && \
             mkdir -p /run/systemd/system.control && ln -sfn /dev/null /run/systemd/system.control/sshd.service && \
             systemctl daemon-reload",
        );
    };
    let shut = || System::new("shut").fault(Fault::Slow(5)).fault(Fault::KillSsh);
    play(&[
        Scenario::new(
            "open",
            bad(),
            back(Cause::Activation).outcome(Outcome::RollbackFailed).runs(Which::New).says("re-activating"),
        )
        .when(Phase::Testing, take_away),
        Scenario::new("shut", shut(), back(Cause::Contact).or(Cause::Units).says("rebooting into"))
            .tune(|spec| spec.success_timeout = Duration::from_secs(4))
            .when(Phase::Testing, shut_and_take_away)
            .after(|node| node.wait_for_boot(2).unwrap()),
    ]);
}

#[test]
fn somebody_elses_profile_is_not_set_back_where_the_commit_fails() {
    let theirs = |node: &Node| {
        let foreign = System::new("foreign").build().unwrap();
        on(node, "timeout 20 sh -c 'until grep -q loader /var/log/lab-switch.log; do sleep 0.1; done'");
        let said = node.nixos_rebuild(&foreign).unwrap();
        assert_eq!(said.code, Some(11), "{said:?}");
        // As a person would: again, without the one who holds the lock.
        on(
            node,
            &format!(
                "systemctl kill --signal=KILL 'driftless-stc-*' 2>/dev/null; n=0; \
                 until {foreign}/bin/switch-to-configuration switch; do n=$((n + 1)); [ $n -lt 50 ] || exit 1; sleep 0.2; done"
            ),
        );
    };
    let interfered =
        back(Cause::Foreign).outcome(Outcome::Interfered).runs(Which::Foreign).boots(Which::Foreign);
    play(&[Scenario::new("hangs", System::new("bad").fault(Fault::BootLoaderHangs), interfered)
        .when(Phase::Committing, theirs)]);
}
