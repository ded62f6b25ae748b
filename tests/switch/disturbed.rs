//! A good switch, and one that goes back, on a node to which something happens before or in the middle: its clock is set, its
//! garbage is collected, its D-Bus is ill, its programs are missing, its boot partition is full, somebody else switches it.

use std::time::Duration;

use driftless::model::journal::{Cause, Outcome, Phase};
use driftless_lab::{Fault, Node, System};

use super::Tune;
use super::scenario::{Act, End, SUCCEEDED, Scenario, Which, back, play};

fn good() -> System {
    // Long enough for something to happen while it activates.
    System::new("second").fault(Fault::Slow(1))
}

fn bad() -> System {
    System::new("bad").fault(Fault::ActivationFails)
}

fn on(node: &Node, script: &str) {
    node.enter(script).unwrap().ok().unwrap();
}

/// A health check that never passes keeps a switch in its health phase for some seconds.
const NEVER: Tune = |spec| {
    spec.health_checks.after.units = vec!["never.service".into()];
    spec.health_timeout = Duration::from_secs(12);
};

const REJECTED: End = back(Cause::Rejected);

/// A clock of the node's own: every `date` on it reads the host's and adds what /run/lab-skew says. Its shell is one that
/// asks `date`; bash asks the kernel, for which all nodes are one machine.
fn own_clock(node: &Node) {
    on(node, "mount --bind /usr/bin/dash /usr/bin/bash");
    on(
        node,
        "cp /usr/bin/date /run/real-date && echo 0 >/run/lab-skew &&
         printf '#!/bin/sh\\nread -r skew </run/lab-skew\\n' >/run/skewed-date &&
         echo 'exec /run/real-date -d \"@$(($(/run/real-date +%s) + skew))\" \"$@\"' >>/run/skewed-date &&
         chmod 755 /run/skewed-date && mount --bind /run/skewed-date /usr/bin/date",
    );
}

fn a_year_on(node: &Node) {
    on(node, "echo 31536000 >/run/lab-skew");
}

fn a_year_back(node: &Node) {
    on(node, "echo -31536000 >/run/lab-skew");
}

/// The clock was really set in the middle: the log has lines of two years.
fn saw_two_years(node: &Node) {
    let years = "sed -n 's/^\\(20[0-9][0-9]\\)-.* driftless: .*/\\1/p' /var/lib/driftless-node/switches/*/log | sort -u | wc -l";
    assert_eq!(node.enter(years).unwrap().ok().unwrap(), "2");
}

#[test]
fn a_clock_that_is_set_by_a_year_ends_no_deadline_and_spoils_no_journal() {
    let stepped = |name: &str, phase, act: Act| {
        Scenario::new(name, good(), SUCCEEDED).before(own_clock).when(phase, act)
    };
    let rejected = |name: &str, act: Act| {
        Scenario::new(name, good(), REJECTED)
            .tune(NEVER)
            .before(own_clock)
            .when(Phase::Health, act)
            .after(saw_two_years)
    };
    play(&[
        stepped("on while testing", Phase::Testing, a_year_on).after(saw_two_years),
        stepped("back while testing", Phase::Testing, a_year_back).after(saw_two_years),
        // Contact may be over before the clock is set.
        stepped("on in contact", Phase::Contact, a_year_on),
        stepped("back in contact", Phase::Contact, a_year_back),
        rejected("on in health", a_year_on),
        rejected("back in health", a_year_back),
    ]);
}

/// Collects garbage, again and again, until the switch is over.
fn collect_garbage(node: &Node) {
    on(
        node,
        "systemd-run --quiet --unit=lab-garbage --setenv=PATH=$PATH --setenv=HOME=/root sh -c \
         'while :; do nix-collect-garbage -d; sleep 0.2; done'",
    );
}

fn stop_collecting(node: &Node) {
    on(node, "systemctl stop lab-garbage.service");
}

#[test]
fn garbage_collections_from_before_the_copy_to_the_end_take_nothing_that_is_needed() {
    let swept = |scenario: Scenario| scenario.before(collect_garbage).after(stop_collecting);
    play(&[
        swept(Scenario::new("good", good(), SUCCEEDED)),
        swept(Scenario::new("bad", bad(), back(Cause::Activation))),
        swept(Scenario::new(
            "not committed",
            System::new("bad").fault(Fault::BootLoaderFails),
            back(Cause::Commit).outcome(Outcome::CommitFailed),
        )),
    ]);
}

fn freeze_dbus(node: &Node) {
    on(
        node,
        "systemctl start dbus.service && systemctl kill --signal=STOP dbus.service && \
               grep -q 'State:.T' /proc/$(systemctl show --property=MainPID --value dbus.service)/status",
    );
}

fn thaw_dbus(node: &Node) {
    on(node, "systemctl kill --signal=CONT dbus.service");
}

fn stop_dbus(node: &Node) {
    on(node, "systemctl stop dbus.socket dbus.service");
}

#[test]
fn a_dbus_that_hangs_or_is_gone_keeps_no_switch_from_its_end() {
    let ill = |name: &str, scenario: fn() -> Scenario| {
        let mut all = vec![scenario().before(freeze_dbus).after(thaw_dbus)];
        for phase in [Phase::Testing, Phase::Health] {
            all.push(scenario().when(phase, freeze_dbus).after(thaw_dbus));
        }
        all.push(scenario().before(stop_dbus));
        all.into_iter().map(|one| one.named(name)).collect::<Vec<_>>()
    };
    let mut all = ill("good", || Scenario::new("", good(), SUCCEEDED));
    all.extend(ill("rejected", || Scenario::new("", good(), REJECTED).tune(NEVER)));
    play(&all);
}

/// Nothing can execute these any more, and no search of PATH finds them.
fn hide(node: &Node, programs: &[&str]) {
    for program in programs {
        on(node, &format!("mount --bind /dev/null \"$(readlink -f /usr/bin/{program})\""));
    }
}

#[test]
fn missing_programs_are_done_without_or_said() {
    let without = |name: &str, system, end, hide: Act| Scenario::new(name, system, end).before(hide);
    let no_commit = back(Cause::Commit).outcome(Outcome::CommitFailed);
    play(&[
        without("ip, ss", good(), SUCCEEDED, |node| hide(node, &["ip", "ss"])),
        without(
            "ip, ss, and a system that shuts sshd down",
            System::new("bad").fault(Fault::KillSsh),
            back(Cause::Contact),
            |node| hide(node, &["ip", "ss"]),
        )
        .tune(|spec| spec.success_timeout = Duration::from_secs(4)),
        without("nix-env", good(), no_commit.says("nix-env could not set the profile"), |node| {
            // A link to the one program that Nix is: only its name can be taken away.
            on(node, "ln -sfn /bin/false \"$(readlink /run/current-system/sw/bin/nix-env)\"");
        }),
        // systemd would end the watcher in the middle: what it cannot be told of is not begun.
        without("systemd-notify", good(), back(Cause::Killed).says("systemd-notify"), |node| {
            hide(node, &["systemd-notify"]);
        })
        .logs_not("phase testing"),
    ]);
}

/// A boot partition of its own, as machines have it, with this little room.
fn small_boot(node: &Node, options: &str) {
    on(
        node,
        &format!(
            "cp -a /boot /run/boot && mount -t tmpfs -o size=16k boot /boot && cp -a /run/boot/. /boot/ && \
             {{ head -c 1m /dev/zero >/boot/fill 2>/dev/null || :; }} && mount -o remount,{options} /boot"
        ),
    );
}

/// The host looks at the node's /boot from outside and does not see what is mounted there.
fn put_boot_back(node: &Node) {
    on(
        node,
        "mount -o remount,rw /boot; rm -f /boot/fill; cp -a /boot/. /run/boot/ && umount /boot && \
              rm -rf /boot/loader && cp -a /run/boot/. /boot/",
    );
}

#[test]
fn a_boot_partition_that_is_full_or_read_only_fails_the_commit_and_nothing_else() {
    let no_commit = back(Cause::Commit).outcome(Outcome::CommitFailed);
    let boot = |name: &str, act: Act| {
        Scenario::new(name, good(), no_commit).when(Phase::Testing, act).after(put_boot_back)
    };
    play(&[boot("full", |node| small_boot(node, "rw")), boot("read-only", |node| small_boot(node, "ro"))]);
}

/// Somebody with a system of their own.
fn foreign() -> String {
    System::new("foreign").build().unwrap()
}

#[test]
fn somebody_elses_switch_is_left_alone_in_every_phase() {
    let theirs = back(Cause::Foreign).outcome(Outcome::Interfered).runs(Which::Foreign).boots(Which::Foreign);
    let intrude: Act = |node| {
        let said = node.nixos_rebuild(&foreign()).unwrap();
        assert!(said.success(), "{said:?}");
    };
    // Our own activation holds the lock: they are told so, and only their profile is there.
    let intrude_too_early: Act = |node| {
        let said = node.nixos_rebuild(&foreign()).unwrap();
        assert_eq!(said.code, Some(11), "{said:?}");
    };
    play(&[
        Scenario::new("contact", good(), theirs).tune(NEVER).when(Phase::Contact, intrude),
        Scenario::new("testing", good(), SUCCEEDED).when(Phase::Testing, intrude_too_early),
    ]);
}
