//! Does faults to real nodes and to a real controller, each as it happens in life. Never does more than the fault says, and
//! leaves behind what a person would have to repair only where the fault is just that.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use driftless_lab::{Node, Power, Wire};

use crate::diary::{Done, held, now};
use crate::fault::{ControllerFault, Fault, NodeFault};
use crate::field::Field;
use crate::schedule::{Injection, NODES};

/// What came of an injection.
pub(crate) enum Came {
    /// It was done; the end of its effect.
    Of { until: f64, what: String },
    /// driftless did what it must never do.
    Wrong(String),
}

fn done() -> Result<Came> {
    done_as("")
}

fn done_as(what: impl Into<String>) -> Result<Came> {
    Ok(Came::Of { until: now(), what: what.into() })
}

/// Until somebody repairs it.
fn lasting() -> Result<Came> {
    Ok(Came::Of { until: f64::INFINITY, what: String::new() })
}

impl Field {
    /// Waits until it is due, does it, and writes it down. Yields whether it could be done; an error is driftless's fault.
    pub(crate) fn inject(&self, step: &Injection) -> Result<bool> {
        let node = match &step.fault {
            Fault::Node { node, .. } => Some(*node),
            Fault::Controller(_) => None,
        };
        let phase = self.wait(step.when, node);
        let from = now();
        let came = match &step.fault {
            Fault::Node { node, fault } => self.harm_node(*node, fault),
            Fault::Controller(fault) => self.harm_controller(fault),
        };
        let head = format!("#{} {} ({}; {phase})", step.number, step.fault, step.when);
        let (until, tail, could) = match came {
            Ok(Came::Of { until, what }) => (until, what, true),
            Ok(Came::Wrong(what)) => {
                self.diary.say(&format!("{head}: WRONG: {what}"));
                bail!("step #{}, {}: {what}", step.number, step.fault);
            }
            Err(error) => (now(), format!("not done: {error:#}"), false),
        };
        self.diary.say(&format!("{head} {:.1} s {tail}", now() - from));
        self.diary.note(Done { kind: step.fault.kind(), node, from, until });
        Ok(could)
    }

    fn harm_node(&self, index: usize, fault: &NodeFault) -> Result<Came> {
        let node = &self.nodes[index];
        ensure!(node.power() == Power::On, "it is {:?}", node.power());
        match fault {
            NodeFault::KillWatcherUnit => kill(node, "--signal=KILL 'driftless-switch-*'"),
            NodeFault::KillWatcher => kill(node, "--signal=KILL --kill-whom=main 'driftless-switch-*'"),
            NodeFault::StopWatcher => tell(node, "systemctl stop --no-block 'driftless-switch-*'"),
            NodeFault::KillActivation => kill(node, "--signal=KILL 'driftless-stc-*'"),
            NodeFault::Reboot => node.reboot().and_then(|()| done()),
            NodeFault::PowerCut(off) => {
                node.power_cut()?;
                sleep(*off);
                node.start()?;
                done()
            }
            NodeFault::Cut(lasts) => {
                node.link().cut()?;
                sleep(*lasts);
                node.link().restore()?;
                done()
            }
            NodeFault::BadLine(lasts) => line(node, Wire::new(Duration::from_millis(150), 0.1), *lasts),
            NodeFault::Silence(lasts) => line(node, Wire::DEAD, *lasts),
            NodeFault::Freeze(lasts) => {
                node.freeze()?;
                sleep(*lasts);
                node.thaw()?;
                done()
            }
            NodeFault::Fill(place, lasts) => fill(node, place, *lasts),
            NodeFault::StopSshd => self.stop_sshd(index),
            NodeFault::KillSessions => tell(node, "systemctl kill --signal=KILL sshd.service"),
            NodeFault::ByHand => {
                let stray = &self.strays[index % self.strays.len()];
                let said = node.nixos_rebuild(stray)?;
                done_as(format!("exit code {:?}", said.code))
            }
            NodeFault::CollectGarbage => tell(node, "nix-collect-garbage -d >/dev/null 2>&1"),
            NodeFault::StopDbus => {
                tell(node, "systemctl stop dbus.socket dbus.service")?;
                lasting()
            }
            NodeFault::StallDbus(lasts) => {
                let stall = format!(
                    "systemctl kill --signal=STOP dbus.service; sleep {}; systemctl kill --signal=CONT dbus.service",
                    lasts.as_secs_f32()
                );
                tell(node, &stall)
            }
            NodeFault::Reexec => tell(node, "systemctl daemon-reexec"),
            NodeFault::HoldLock(lasts) => {
                let hold = format!(
                    "mkdir -p /run/nixos; exec 8>/run/nixos/switch-to-configuration.lock; flock -w 10 8 && sleep {}",
                    lasts.as_secs_f32()
                );
                tell(node, &hold)
            }
            NodeFault::KillNixDaemon => kill(node, "--signal=KILL nix-daemon.service"),
            NodeFault::Deploy => {
                self.person(&["deploy", "--on", NODES[index], "--reason", "a fault campaign"])
            }
            NodeFault::Rollback => {
                self.person(&["rollback", "--on", NODES[index], "--reason", "a fault campaign"])
            }
            NodeFault::Retry => self.person(&["retry", NODES[index]]),
        }
    }

    /// A switch that has not had its contact notices, and opens the way in again when it goes back.
    fn stop_sshd(&self, index: usize) -> Result<Came> {
        let notices =
            || self.phase(index).is_some_and(|phase| ["testing", "contact"].contains(&phase.as_str()));
        let before = notices();
        self.nodes[index].stop_sshd()?;
        if !(before && notices()) {
            held(&self.shut).insert(index);
        }
        lasting()
    }

    /// A person's verb may fail, for the node may be in any state; it must end, and say why.
    fn person(&self, arguments: &[&str]) -> Result<Came> {
        let said = self.say(arguments)?;
        let last = said.stderr.lines().chain(said.stdout.lines()).last().unwrap_or_default();
        if !matches!(said.code, Some(0 | 1)) || said.stderr.contains("panicked") {
            return Ok(Came::Wrong(format!("exit code {:?}: {}{}", said.code, said.stdout, said.stderr)));
        }
        done_as(format!("exit code {:?}: {last}", said.code))
    }

    fn harm_controller(&self, fault: &ControllerFault) -> Result<Came> {
        match fault {
            ControllerFault::Kill(away) => {
                self.fleet_mut().kill()?;
                sleep(*away);
                self.fleet_mut().start()?;
                done()
            }
            ControllerFault::Terminate(away) => {
                let new = self.fleet().snapshot().is_err();
                let code = self.fleet_mut().stop();
                // One that has hardly begun has no handler for the signal yet, and nothing to leave in order.
                let well = matches!(code, Ok(Some(0))) || new && matches!(code, Ok(None));
                if !well {
                    return Ok(Came::Wrong(format!("a controller that was asked to stop: {code:?}")));
                }
                sleep(*away);
                self.fleet_mut().start()?;
                done()
            }
            ControllerFault::Freeze(lasts) => {
                let pid = self.fleet().pid().context("no controller runs")?;
                signal("STOP", &[pid]);
                sleep(*lasts);
                signal("CONT", &[pid]);
                done()
            }
            ControllerFault::DeleteState => {
                let mut fleet = self.fleet_mut();
                fleet.kill()?;
                remove(&fleet.state())?;
                fleet.start()?;
                done()
            }
            ControllerFault::SpoilCache => spoil(&self.fleet().state().join("cache")).and_then(done_as),
            ControllerFault::SpoilMemory => {
                let mut fleet = self.fleet_mut();
                fleet.kill()?;
                fs::write(fleet.state().join("release.json"), "{ \"release\": { \"nodes\"")?;
                fleet.start()?;
                done()
            }
            ControllerFault::RepositoryAway(lasts) => {
                let _alone = held(&self.repository);
                let repository = self.fleet().repository();
                let aside = repository.with_extension("aside");
                fs::rename(&repository, &aside)?;
                sleep(*lasts);
                fs::rename(&aside, &repository)?;
                done()
            }
            ControllerFault::Second => {
                let said = self.say(&["run"])?;
                if said.code != Some(1) || !said.stderr.contains("another controller runs") {
                    return Ok(Came::Wrong(format!("a second controller: {said:?}")));
                }
                done()
            }
            ControllerFault::HangUps => {
                for _ in 0..30 {
                    self.fleet().hang_up()?;
                }
                done()
            }
            ControllerFault::KillChildren => {
                let children = descendants(self.fleet().pid().context("no controller runs")?);
                signal("KILL", &children);
                done_as(format!("{} of them", children.len()))
            }
        }
    }
}

fn tell(node: &Node, script: &str) -> Result<Came> {
    let said = node.enter(script)?;
    done_as(match said.code {
        Some(0) => String::new(),
        code => format!("exit code {code:?}: {}", said.stderr.trim()),
    })
}

fn kill(node: &Node, what: &str) -> Result<Came> {
    tell(node, &format!("systemctl kill {what}"))
}

fn line(node: &Node, wire: Wire, lasts: Duration) -> Result<Came> {
    node.wire(wire)?;
    sleep(lasts);
    node.wire(Wire::default())?;
    done()
}

fn fill(node: &Node, place: &str, lasts: Option<Duration>) -> Result<Came> {
    node.fill(place)?;
    let Some(lasts) = lasts else { return lasting() };
    sleep(lasts);
    node.empty(place)?;
    done()
}

/// Removes what a dying process may still write into.
fn remove(directory: &Path) -> Result<()> {
    for _ in 0..50 {
        match fs::remove_dir_all(directory) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(_) => sleep(Duration::from_millis(20)),
        }
    }
    bail!("{} cannot be removed", directory.display())
}

/// Rewrites every file below a directory.
fn spoil(directory: &Path) -> Result<String> {
    let mut count = 0;
    for deployment in fs::read_dir(directory)?.flatten() {
        for file in fs::read_dir(deployment.path()).into_iter().flatten().flatten() {
            // It may be replaced at this moment.
            if fs::write(file.path(), format!("{{\"rubbish\": {count}")).is_ok() {
                count += 1;
            }
        }
    }
    Ok(format!("{count} files"))
}

/// Every process that a process has started, and that they have.
pub(crate) fn descendants(pid: u32) -> Vec<u32> {
    let mut found = Vec::new();
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    for task in tasks {
        let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        for child in children.split_whitespace().filter_map(|child| child.parse().ok()) {
            found.push(child);
            found.extend(descendants(child));
        }
    }
    found
}

/// Sends a signal; who is gone already needs none.
fn signal(name: &str, pids: &[u32]) {
    let pids: Vec<String> = pids.iter().map(u32::to_string).collect();
    if !pids.is_empty() {
        let mut kill = Command::new("kill");
        let _ = kill.arg(format!("-{name}")).args(pids).stdin(Stdio::null()).stderr(Stdio::null()).status();
    }
}
