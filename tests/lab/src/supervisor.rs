//! Keeps one node as its power switch says: a reboot from inside boots it again, a power-off leaves it down. Never decides
//! what is booted; the boot loader's files do.

use std::fs::{self, File};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Signals with which PID 1 of a namespace ends after reboot(2) (its page, "Behavior inside PID namespaces").
const RESTARTED: i32 = 1;
const HALTED: i32 = 2;
const KILLED: i32 = 9;

/// How a node stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Power {
    /// PID 1 runs, or is about to.
    On,
    /// Powered off, by itself or by [`crate::Node::power_off`], or its power was cut.
    Off,
    /// It does not boot, or its PID 1 died: what was said on its console.
    Broken(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Switch {
    On,
    Off,
    /// The lab is going away; the thread ends.
    Gone,
}

struct State {
    switch: Switch,
    power: Power,
    boots: u32,
}

/// What one boot needs to know: the arguments of `boot.sh`.
pub(crate) struct Machine {
    pub(crate) dir: PathBuf,
    pub(crate) cgroup: PathBuf,
    pub(crate) script: PathBuf,
    pub(crate) arguments: Vec<String>,
}

pub(crate) struct Supervisor {
    machine: Machine,
    state: Mutex<State>,
    changed: Condvar,
}

impl Supervisor {
    /// Starts to supervise a node that is still off.
    pub(crate) fn start(machine: Machine) -> Arc<Supervisor> {
        let supervisor = Arc::new(Supervisor {
            machine,
            state: Mutex::new(State { switch: Switch::Off, power: Power::Off, boots: 0 }),
            changed: Condvar::new(),
        });
        let thread = Arc::clone(&supervisor);
        std::thread::spawn(move || thread.supervise());
        supervisor
    }

    pub(crate) fn power(&self) -> Power {
        self.lock().power.clone()
    }

    /// How often it was booted.
    pub(crate) fn boots(&self) -> u32 {
        self.lock().boots
    }

    /// Turns it on and returns when the firmware has started.
    pub(crate) fn turn_on(&self) -> Result<()> {
        let mut state = self.lock();
        if state.power != Power::On {
            state.switch = Switch::On;
            let before = state.boots;
            self.changed.notify_all();
            drop(state);
            self.wait(Duration::from_secs(10), "to start", |state| state.boots > before)?;
        }
        Ok(())
    }

    /// Pulls the plug and returns when nothing of it runs.
    pub(crate) fn cut_power(&self) -> Result<()> {
        self.lock().switch = Switch::Off;
        let _ = fs::remove_file(self.machine.dir.join("pid1"));
        self.kill_boots();
        self.wait_off(Duration::from_secs(10))
    }

    /// Returns when it is off; a node that reboots meanwhile is not.
    pub(crate) fn wait_off(&self, deadline: Duration) -> Result<()> {
        self.wait(deadline, "to be off", |state| state.power != Power::On)
    }

    /// Returns when it was booted `boots` times.
    pub(crate) fn wait_boots(&self, boots: u32, deadline: Duration) -> Result<()> {
        self.wait(deadline, &format!("for boot number {boots}"), |state| state.boots >= boots)
    }

    /// Ends the supervision; the keeper kills what runs.
    pub(crate) fn abandon(&self) {
        self.lock().switch = Switch::Gone;
        self.changed.notify_all();
    }

    /// The number of PID 1 in the host's eyes.
    pub(crate) fn pid1(&self) -> Result<u32> {
        let file = self.machine.dir.join("pid1");
        let text = fs::read_to_string(&file)
            .with_context(|| format!("the node is not up: reading {}", file.display()))?;
        Ok(text.trim().parse()?)
    }

    /// What the scripts of the last boot said: nothing, unless something went wrong.
    pub(crate) fn console(&self) -> String {
        fs::read_to_string(self.console_file()).unwrap_or_default()
    }

    fn console_file(&self) -> PathBuf {
        self.machine.dir.join("console.log")
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait(&self, deadline: Duration, what: &str, reached: impl Fn(&State) -> bool) -> Result<()> {
        let until = Instant::now() + deadline;
        let mut state = self.lock();
        while !reached(&state) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!(
                    "waited {deadline:?} for the node {what}; its power is {:?}, its console says: {}",
                    state.power,
                    self.console()
                );
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(())
    }

    fn supervise(&self) {
        loop {
            let mut state = self.lock();
            while state.switch == Switch::Off {
                // The plug may have been pulled between a reboot's end and its next boot.
                if state.power == Power::On {
                    state.power = Power::Off;
                    self.changed.notify_all();
                }
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            if state.switch == Switch::Gone {
                return;
            }
            let _ = fs::remove_file(self.machine.dir.join("pid1"));
            let child = self.firmware();
            state.power = Power::On;
            state.boots += 1;
            drop(state);
            self.changed.notify_all();
            let ended = child.and_then(|mut child| child.wait());
            self.await_silence();
            let _ = fs::remove_file(self.machine.dir.join("pid1"));
            self.note_end(ended);
        }
    }

    /// The cgroups of the node's boots: the present one and any that could not be removed yet.
    fn boots_cgroups(&self) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(&self.machine.cgroup) else {
            return Vec::new();
        };
        let entries = entries.flatten().map(|entry| entry.path());
        entries.filter(|path| path.is_dir()).collect()
    }

    fn kill_boots(&self) {
        for cgroup in self.boots_cgroups() {
            // It may be gone already, after a power-off.
            let _ = fs::write(cgroup.join("cgroup.kill"), "1");
        }
    }

    /// A boot has ended when its last process has, which is a moment after the one that we wait for.
    fn await_silence(&self) {
        let until = Instant::now() + Duration::from_secs(10);
        let populated = |cgroup: &PathBuf| {
            fs::read_to_string(cgroup.join("cgroup.events"))
                .is_ok_and(|events| events.contains("populated 1"))
        };
        while self.boots_cgroups().iter().any(populated) && Instant::now() < until {
            self.kill_boots();
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn firmware(&self) -> std::io::Result<std::process::Child> {
        let console = File::create(self.console_file())?;
        Command::new("sh")
            .arg(&self.machine.script)
            .args(&self.machine.arguments)
            .current_dir(Path::new("/"))
            .stdin(Stdio::null())
            .stdout(console.try_clone()?)
            .stderr(console)
            .process_group(0)
            .spawn()
    }

    fn note_end(&self, ended: std::io::Result<ExitStatus>) {
        let mut state = self.lock();
        let signal = ended.as_ref().ok().and_then(|status| status.signal());
        match (state.switch, signal) {
            (Switch::On, Some(RESTARTED)) | (Switch::Gone, _) => {}
            (Switch::Off, _) | (Switch::On, Some(HALTED | KILLED)) => {
                state.switch = Switch::Off;
                state.power = Power::Off;
            }
            (Switch::On, _) => {
                state.switch = Switch::Off;
                state.power = Power::Broken(format!("{ended:?}: {}", self.console()));
            }
        }
        drop(state);
        self.changed.notify_all();
    }
}
