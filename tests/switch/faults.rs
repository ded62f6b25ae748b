//! Everything that a system of the lab can do, in every place where it can do it: as the new system, as the previous one that is
//! gone back to, and as one that the next boot is to start, once. A new [`Fault`] without an expectation does not compile.

use std::time::Duration;

use driftless::model::journal::{Cause, Outcome};
use driftless::model::node::Goal;
use driftless_lab::{Fault, System};

use super::scenario::{End, SUCCEEDED, Scenario, Which, back, play};

const COMMIT_FAILED: End = back(Cause::Commit).outcome(Outcome::CommitFailed);
/// It runs and boots what it did before, but for one time.
const STAGED: End = End { cause: None, ..back(Cause::Commit).outcome(Outcome::Staged) };

fn name(fault: &Fault) -> String {
    format!("{fault:?}")
}

fn with(fault: &Fault, text: &str) -> System {
    System::new(text).fault(fault.clone())
}

/// The lab's own fault is no part of what is judged.
fn give_space_back(node: &driftless_lab::Node) {
    node.enter("rm -f /run/.lab-fill").unwrap().ok().unwrap();
}

/// What the fault of a new system comes to.
fn as_the_new_system(fault: &Fault) -> Scenario {
    let plain = |end| Scenario::new(&name(fault), with(fault, "bad"), end);
    let hangs = |end| plain(end).tune(|spec| spec.switch_timeout = Duration::from_secs(6));
    let deaf = |end| plain(end).tune(|spec| spec.success_timeout = Duration::from_secs(4));
    match fault {
        Fault::ActivationFails => plain(back(Cause::Activation).says("exit code 2")),
        Fault::UnitFails => plain(back(Cause::Units).says("lab-broken.service")),
        Fault::Hang | Fault::HangStubbornly | Fault::Gate(_) => {
            hangs(back(Cause::Deadline).says("within 6 s"))
        }
        Fault::KillSsh | Fault::DropAddress => deaf(back(Cause::Contact)).logs("phase rolling-back"),
        // The controller is a neighbour on the same network: it needs no default route.
        Fault::DropRoute => plain(SUCCEEDED),
        // Contact and verdict can be written down only where some page is found for them; rolled back it is in any case.
        Fault::FillDisk(_) => plain(back(Cause::Silence).or(&[Cause::Contact, Cause::Rejected]))
            .after(give_space_back)
            .tune(|spec| {
                spec.success_timeout = Duration::from_secs(10);
                spec.health_timeout = Duration::from_secs(6);
                spec.health_checks.after.units = vec!["never.service".into()];
            }),
        // What it leaves behind ends with its unit, and so does its hold on the lock.
        Fault::LeaveChild(_) => plain(SUCCEEDED),
        // Nothing of ours reaches what is in another unit: its hold on the lock is waited for.
        Fault::LeaveUnit(_) => plain(SUCCEEDED).logs("switch-to-configuration boot: 11"),
        Fault::Slow(_) | Fault::PanicAtBoot | Fault::StopDbus => plain(SUCCEEDED),
        Fault::Exit(_) => plain(back(Cause::Activation).says("exit code 3")),
        Fault::Inhibitor(_) => plain(back(Cause::NeedsReboot).says("dbus")).logs_not("phase testing"),
        Fault::PreSwitchCheckFails => plain(back(Cause::Check)).logs_not("rolling-back"),
        Fault::BootLoaderFails => plain(COMMIT_FAILED.says("switch-to-configuration boot: 1")),
        Fault::BootLoaderHangs => hangs(COMMIT_FAILED.says("switch-to-configuration boot: deadline")),
        Fault::BootLoaderLies => plain(COMMIT_FAILED.says("the boot loader's default entry is not")),
    }
}

/// What the fault of the previous system comes to when it is gone back to; `None` where nobody could log into it before.
fn as_the_previous_system(fault: &Fault) -> Option<Scenario> {
    let plain = |end| {
        Scenario::new(&name(fault), System::new("bad").fault(Fault::ActivationFails), end)
            .from(with(fault, "first"))
    };
    let hangs = |end| plain(end).tune(|spec| spec.switch_timeout = Duration::from_secs(6));
    let of_the_loader = |end| {
        Scenario::new(&name(fault), System::new("bad").fault(Fault::BootLoaderFails), end)
            .from(with(fault, "first"))
            .tune(|spec| spec.switch_timeout = Duration::from_secs(6))
    };
    let failed = back(Cause::Activation).outcome(Outcome::RollbackFailed).says("re-activating");
    let went_back = back(Cause::Activation);
    Some(match fault {
        Fault::KillSsh | Fault::DropAddress | Fault::PanicAtBoot => return None,
        Fault::ActivationFails => plain(failed),
        Fault::Hang | Fault::HangStubbornly => hangs(failed),
        // It comes to nothing: the new system is what still runs.
        Fault::Gate(_) => hangs(failed.runs(Which::New)),
        // Some unit of the previous system failed before, too.
        Fault::UnitFails => plain(went_back).logs("switch-to-configuration test: 4"),
        Fault::DropRoute | Fault::LeaveChild(_) | Fault::LeaveUnit(_) | Fault::Slow(_) | Fault::StopDbus => {
            plain(went_back)
        }
        // It gives way to nothing: neither the way back nor the boot loader asks it.
        Fault::PreSwitchCheckFails => of_the_loader(COMMIT_FAILED).logs_not("Pre-switch check"),
        Fault::FillDisk(_) => plain(went_back).after(give_space_back),
        // It does nothing at all: the new system is what still runs, and the way in is open.
        Fault::Exit(_) => plain(failed.runs(Which::New)),
        Fault::Inhibitor(_) => {
            let bad = with(fault, "bad").fault(Fault::ActivationFails);
            Scenario::new(&name(fault), bad, went_back).from(with(fault, "first"))
        }
        Fault::BootLoaderFails | Fault::BootLoaderHangs => {
            of_the_loader(COMMIT_FAILED.says("the profile could not be restored"))
        }
        Fault::BootLoaderLies => of_the_loader(COMMIT_FAILED),
    })
}

/// What the fault comes to where the system is to be booted once: nothing of it is run before.
fn as_the_next_boot(fault: &Fault) -> Scenario {
    Scenario::new(&name(fault), with(fault, "next"), STAGED).goal(Goal::Boot)
}

/// The boot default's own boot loader is written then: what its faults come to.
fn with_a_default_whose_loader_fails() -> [Scenario; 4] {
    let from = |fault, end| {
        Scenario::new(&format!("default: {}", name(&fault)), System::new("next"), end)
            .from(with(&fault, "first"))
            .goal(Goal::Boot)
    };
    [
        from(Fault::BootLoaderFails, COMMIT_FAILED),
        from(Fault::BootLoaderHangs, COMMIT_FAILED).tune(|spec| spec.switch_timeout = Duration::from_secs(3)),
        from(Fault::BootLoaderLies, back(Cause::UnprovenBoot)),
        from(Fault::PreSwitchCheckFails, STAGED),
    ]
}

#[test]
fn every_fault_of_a_new_system_has_its_outcome() {
    play(&Fault::every().iter().map(as_the_new_system).collect::<Vec<_>>());
}

#[test]
fn every_fault_of_the_previous_system_has_its_outcome_when_it_is_gone_back_to() {
    play(&Fault::every().iter().filter_map(as_the_previous_system).collect::<Vec<_>>());
}

#[test]
fn every_fault_of_a_system_for_the_next_boot_has_its_outcome() {
    let mut all: Vec<_> = Fault::every().iter().map(as_the_next_boot).collect();
    all.extend(with_a_default_whose_loader_fails());
    play(&all);
}

#[test]
fn every_exit_code_has_its_meaning() {
    let code = |code, end| {
        Scenario::new(&format!("exit code {code}"), System::new("bad").fault(Fault::Exit(code)), end)
    };
    let failed = back(Cause::Activation);
    play(&[
        code(1, failed.says("exit code 1")),
        code(11, back(Cause::Busy)),
        code(42, failed.says("exit code 42")),
        code(99, failed.says("exit code 99")),
        code(100, back(Cause::NeedsReboot)),
        // 128 and a signal's number, SIGKILL and SIGSEGV: ended from outside, worth another try.
        code(137, back(Cause::Killed)),
        code(139, back(Cause::Killed)),
        code(255, failed.says("exit code 255")),
    ]);
}
