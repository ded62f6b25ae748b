//! What a switch needs and may not get: a way back.

use std::time::Duration;

use driftless::model::journal::{Cause, Outcome, Phase};
use driftless_lab::{Fault, Node, System};

use super::scenario::{Act, Scenario, Which, back, play};

fn on(node: &Node, script: &str) {
    node.enter(script).unwrap().ok().unwrap();
}

fn bad() -> System {
    System::new("bad").fault(Fault::ActivationFails)
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
    let shut = || System::new("shut").fault(Fault::KillSsh);
    play(&[
        Scenario::new(
            "open",
            bad(),
            back(Cause::Activation).outcome(Outcome::RollbackFailed).runs(Which::New).says("re-activating"),
        )
        .when(Phase::Testing, take_away),
        Scenario::new("shut", shut(), back(Cause::Contact).or(&[Cause::Units]).says("rebooting into"))
            .tune(|spec| spec.success_timeout = Duration::from_secs(4))
            .when(Phase::Testing, shut_and_take_away)
            .after(|node| node.wait_for_boot(2).unwrap()),
    ]);
}

#[test]
fn a_store_that_cannot_be_written_to_is_refused_before_anything_happens() {
    play(&[Scenario::new("/nix read-only before", System::new("second"), back(Cause::Commit))
        .before(|node| on(node, "mount -o remount,bind,ro /nix"))
        .after(|node| on(node, "mount -o remount,bind,rw /nix"))
        .refused("root")]);
}
