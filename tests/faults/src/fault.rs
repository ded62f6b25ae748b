//! Which faults there are. How each is done is in [`crate::inject`].

use std::fmt;
use std::time::Duration;

use crate::dice::Dice;
use crate::schedule::NODES;

/// A fault, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// On a node.
    Node {
        /// Its place in [`NODES`].
        node: usize,
        /// Which.
        fault: NodeFault,
    },
    /// On the controller, or on what it lives from.
    Controller(ControllerFault),
}

/// What can happen to a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeFault {
    /// Every process of the switch's unit is killed, as the OOM killer may.
    KillWatcherUnit,
    /// The switch's main process is killed.
    KillWatcher,
    /// Somebody stops the switch's unit.
    StopWatcher,
    /// Every process of a running switch-to-configuration is killed.
    KillActivation,
    /// An orderly reboot.
    Reboot,
    /// The plug is pulled, and put back after this time.
    PowerCut(Duration),
    /// Nothing passes on the wire.
    Cut(Duration),
    /// The wire is slow and loses packets.
    BadLine(Duration),
    /// Packets vanish in silence, as behind a router that died.
    Silence(Duration),
    /// The whole machine stands still, as a paused virtual machine does.
    Freeze(Duration),
    /// A file system is full; `None`: until a person looks.
    Fill(&'static str, Option<Duration>),
    /// sshd is stopped and its sessions end.
    StopSshd,
    /// The sessions of sshd and itself are killed; systemd starts it again.
    KillSessions,
    /// Somebody runs nixos-rebuild switch.
    ByHand,
    /// Somebody deletes all old generations and collects garbage.
    CollectGarbage,
    /// D-Bus is stopped.
    StopDbus,
    /// D-Bus answers nothing.
    StallDbus(Duration),
    /// systemd re-executes itself.
    Reexec,
    /// Something else holds the lock of switch-to-configuration.
    HoldLock(Duration),
    /// The node's Nix daemon is killed with all it serves.
    KillNixDaemon,
    /// A person runs `driftless deploy --on` it.
    Deploy,
    /// A person runs `driftless retry`.
    Retry,
    /// A person runs `driftless rollback --on` it.
    Rollback,
}

/// What can happen to the controller and to what it lives from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ControllerFault {
    /// SIGKILL, and a new one after this time.
    Kill(Duration),
    /// SIGTERM, and a new one after this time.
    Terminate(Duration),
    /// SIGSTOP, and SIGCONT after this time.
    Freeze(Duration),
    /// SIGKILL, the state directory is deleted, and a new one.
    DeleteState,
    /// Its evaluation cache is rewritten with rubbish.
    SpoilCache,
    /// SIGKILL, what it remembers is rewritten with rubbish, and a new one.
    SpoilMemory,
    /// The repository is not there for so long.
    RepositoryAway(Duration),
    /// Somebody starts another one.
    Second,
    /// A burst of SIGHUP.
    HangUps,
    /// Every program that it runs (git, nix, ssh) is killed.
    KillChildren,
}

impl NodeFault {
    /// One of each.
    pub fn every() -> Vec<Self> {
        let none = Duration::ZERO;
        vec![
            Self::KillWatcherUnit,
            Self::KillWatcher,
            Self::StopWatcher,
            Self::KillActivation,
            Self::Reboot,
            Self::PowerCut(none),
            Self::Cut(none),
            Self::BadLine(none),
            Self::Silence(none),
            Self::Freeze(none),
            Self::Fill("/nix", None),
            Self::Fill("/var", None),
            Self::StopSshd,
            Self::KillSessions,
            Self::ByHand,
            Self::CollectGarbage,
            Self::StopDbus,
            Self::StallDbus(none),
            Self::Reexec,
            Self::HoldLock(none),
            Self::KillNixDaemon,
            Self::Deploy,
            Self::Retry,
            Self::Rollback,
        ]
    }

    /// The same with times of its own.
    pub(crate) fn thrown(self, dice: &mut Dice) -> Self {
        match self {
            Self::PowerCut(_) => Self::PowerCut(dice.millis(0, 1500)),
            Self::Cut(_) => Self::Cut(dice.millis(300, 7000)),
            Self::BadLine(_) => Self::BadLine(dice.millis(1000, 6000)),
            Self::Silence(_) => Self::Silence(dice.millis(300, 7000)),
            Self::Freeze(_) => Self::Freeze(dice.millis(300, 5000)),
            Self::Fill(place, _) => Self::Fill(place, dice.hit(1, 2).then(|| dice.millis(300, 3000))),
            Self::StallDbus(_) => Self::StallDbus(dice.millis(300, 4000)),
            Self::HoldLock(_) => Self::HoldLock(dice.millis(300, 4000)),
            same @ (Self::KillWatcherUnit
            | Self::KillWatcher
            | Self::StopWatcher
            | Self::KillActivation
            | Self::Reboot
            | Self::StopSshd
            | Self::KillSessions
            | Self::ByHand
            | Self::CollectGarbage
            | Self::StopDbus
            | Self::Reexec
            | Self::KillNixDaemon
            | Self::Deploy
            | Self::Retry
            | Self::Rollback) => same,
        }
    }

    /// Whether there is nothing to do where no switch runs.
    pub(crate) fn wants_a_switch(&self) -> bool {
        match self {
            Self::KillWatcherUnit | Self::KillWatcher | Self::StopWatcher | Self::KillActivation => true,
            Self::Reboot
            | Self::PowerCut(_)
            | Self::Cut(_)
            | Self::BadLine(_)
            | Self::Silence(_)
            | Self::Freeze(_)
            | Self::Fill(..)
            | Self::StopSshd
            | Self::KillSessions
            | Self::ByHand
            | Self::CollectGarbage
            | Self::StopDbus
            | Self::StallDbus(_)
            | Self::Reexec
            | Self::HoldLock(_)
            | Self::KillNixDaemon
            | Self::Deploy
            | Self::Retry
            | Self::Rollback => false,
        }
    }

    /// Its word in log and report.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::KillWatcherUnit => "kill-watcher-unit",
            Self::KillWatcher => "kill-watcher",
            Self::StopWatcher => "stop-watcher",
            Self::KillActivation => "kill-activation",
            Self::Reboot => "reboot",
            Self::PowerCut(_) => "power-cut",
            Self::Cut(_) => "cut-link",
            Self::BadLine(_) => "bad-line",
            Self::Silence(_) => "silent-link",
            Self::Freeze(_) => "freeze-node",
            Self::Fill("/nix", _) => "fill-nix",
            Self::Fill(..) => "fill-var",
            Self::StopSshd => "stop-sshd",
            Self::KillSessions => "kill-sessions",
            Self::ByHand => "foreign-switch",
            Self::CollectGarbage => "collect-garbage",
            Self::StopDbus => "stop-dbus",
            Self::StallDbus(_) => "stall-dbus",
            Self::Reexec => "systemd-reexec",
            Self::HoldLock(_) => "hold-stc-lock",
            Self::KillNixDaemon => "kill-nix-daemon",
            Self::Deploy => "person-deploys",
            Self::Retry => "person-retries",
            Self::Rollback => "person-rolls-back",
        }
    }
}

impl ControllerFault {
    /// One of each.
    pub fn every() -> Vec<Self> {
        let none = Duration::ZERO;
        vec![
            Self::Kill(none),
            Self::Terminate(none),
            Self::Freeze(none),
            Self::DeleteState,
            Self::SpoilCache,
            Self::SpoilMemory,
            Self::RepositoryAway(none),
            Self::Second,
            Self::HangUps,
            Self::KillChildren,
        ]
    }

    /// The same with times of its own.
    pub(crate) fn thrown(self, dice: &mut Dice) -> Self {
        match self {
            Self::Kill(_) => Self::Kill(dice.millis(0, 4000)),
            Self::Terminate(_) => Self::Terminate(dice.millis(0, 2000)),
            Self::Freeze(_) => Self::Freeze(dice.millis(500, 6000)),
            Self::RepositoryAway(_) => Self::RepositoryAway(dice.millis(300, 4000)),
            same @ (Self::DeleteState
            | Self::SpoilCache
            | Self::SpoilMemory
            | Self::Second
            | Self::HangUps
            | Self::KillChildren) => same,
        }
    }

    /// Its word in log and report.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Kill(_) => "controller-killed",
            Self::Terminate(_) => "controller-terminated",
            Self::Freeze(_) => "controller-frozen",
            Self::DeleteState => "state-deleted",
            Self::SpoilCache => "cache-spoilt",
            Self::SpoilMemory => "memory-spoilt",
            Self::RepositoryAway(_) => "repository-away",
            Self::Second => "second-controller",
            Self::HangUps => "hang-ups",
            Self::KillChildren => "controller-programs-killed",
        }
    }
}

impl Fault {
    /// Its word in log and report.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Node { fault, .. } => fault.kind(),
            Self::Controller(fault) => fault.kind(),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node { node, fault } => write!(f, "{} {}", NODES[*node], fault.kind())?,
            Self::Controller(fault) => write!(f, "controller {}", fault.kind())?,
        }
        let lasts = match self {
            Self::Node { fault, .. } => match fault {
                NodeFault::PowerCut(lasts)
                | NodeFault::Cut(lasts)
                | NodeFault::BadLine(lasts)
                | NodeFault::Silence(lasts)
                | NodeFault::Freeze(lasts)
                | NodeFault::Fill(_, Some(lasts))
                | NodeFault::StallDbus(lasts)
                | NodeFault::HoldLock(lasts) => Some(lasts),
                NodeFault::KillWatcherUnit
                | NodeFault::KillWatcher
                | NodeFault::StopWatcher
                | NodeFault::KillActivation
                | NodeFault::Reboot
                | NodeFault::Fill(_, None)
                | NodeFault::StopSshd
                | NodeFault::KillSessions
                | NodeFault::ByHand
                | NodeFault::CollectGarbage
                | NodeFault::StopDbus
                | NodeFault::Reexec
                | NodeFault::KillNixDaemon
                | NodeFault::Deploy
                | NodeFault::Retry
                | NodeFault::Rollback => None,
            },
            Self::Controller(fault) => match fault {
                ControllerFault::Kill(lasts)
                | ControllerFault::Terminate(lasts)
                | ControllerFault::Freeze(lasts)
                | ControllerFault::RepositoryAway(lasts) => Some(lasts),
                ControllerFault::DeleteState
                | ControllerFault::SpoilCache
                | ControllerFault::SpoilMemory
                | ControllerFault::Second
                | ControllerFault::HangUps
                | ControllerFault::KillChildren => None,
            },
        };
        lasts.map_or(Ok(()), |lasts| write!(f, " for {:.1} s", lasts.as_secs_f32()))
    }
}
