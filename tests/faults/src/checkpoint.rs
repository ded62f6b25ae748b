//! A checkpoint: faults stop, a person repairs what only a person can, a good release is merged, and then everything must be
//! as it should be. Never mends what a node or the controller has to mend by itself.

use std::collections::BTreeSet;
use std::fs;
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use driftless_lab::{Node, Power};
use serde_json::Value;

use crate::diary::{Done, held, now};
use crate::field::Field;
use crate::inject::descendants;
use crate::ledger::Ledger;
use crate::report::Report;
use crate::schedule::NODES;
use crate::witness::Witness;

/// Until every switch that runs has ended: no deadline of a round is longer than a part of this.
const SETTLE: Duration = Duration::from_secs(180);
/// From the good release to a fleet in sync, on a machine that is busy with other things too.
const CONVERGE: Duration = Duration::from_secs(240);
/// Until what has ended is gone.
const GONE: Duration = Duration::from_secs(30);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(100);
/// At every so many checkpoints the controller is stopped, and nothing of it may be left.
const STOP_EVERY: usize = 4;
/// No controller of so few nodes needs more, in KiB.
const MEMORY: u64 = 96 << 10;
/// Nor more open files.
const FILES: usize = 160;
/// What never became a switch, because its session or its controller ended, has left roots and scripts. The next switch of
/// another day sweeps them.
const A_DAY_PASSES: &str = r#"
for root in /nix/var/nix/gcroots/driftless/*; do
  [ ! -d "$root" ] || [ -e "/var/lib/driftless-node/switches/${root##*/}/summary" ] || touch -d '3 days ago' "$root"
done
for script in /run/driftless-node/start-*; do
  [ ! -e "$script" ] || touch -d '3 days ago' "$script"
done
"#;
/// Effects that end with a repair.
const LASTING: [&str; 5] = ["fill-nix", "fill-var", "full-disk", "stop-sshd", "stop-dbus"];

/// Looks after the fleet between rounds.
pub(crate) struct Inspector<'a> {
    field: &'a Field,
    witness: &'a Witness,
    ledger: Ledger,
    /// What a node shows when it is well.
    well: Vec<BTreeSet<String>>,
    most_memory: u64,
}

impl<'a> Inspector<'a> {
    pub(crate) fn new(field: &'a Field, witness: &'a Witness) -> Self {
        Self { field, witness, ledger: Ledger::new(), well: Vec::new(), most_memory: 0 }
    }

    /// Before the first round: a first controller brings the fleet to the first commit and is stopped; nodes that nobody has
    /// harmed then show how they look when they are well.
    pub(crate) fn prepare(&mut self) -> Result<()> {
        let temporary = self.field.fleet().dir().join("tmp");
        fs::create_dir(&temporary)?;
        self.field.fleet_mut().set_env("TMPDIR", &temporary.display().to_string());
        self.field.fleet_mut().start()?;
        self.converge()?;
        self.field.fleet_mut().stop()?;
        for node in &self.field.nodes {
            self.well.push(shown(node)?);
        }
        self.field.fleet_mut().start()
    }

    /// Waits until no switch runs. Who was shut out in the middle of one lets people in again by then, by himself.
    pub(crate) fn settle(&mut self) -> Result<()> {
        let field = self.field;
        let deadline = Instant::now() + SETTLE;
        for (node, name) in NODES.iter().enumerate() {
            while let Some(phase) = field.phase(node) {
                ensure!(Instant::now() < deadline, "{name}: its switch stays in phase {phase} for ever");
                sleep(LOOK);
            }
        }
        let shut = held(&field.shut).clone();
        each(&field.nodes, |index, node| {
            if shut.contains(&index) {
                return Ok(());
            }
            // The lab's own: a PID 1 that died as a kernel panics. Whoever stands before it presses the button.
            if let Power::Broken(why) = node.power() {
                field.diary.say(&format!("{} is turned on again; it had died: {why}", node.name()));
                return node.start();
            }
            node.wait_ssh().context("nobody shut it but it lets nobody in")
        })?;
        self.audit()
    }

    /// What only a person can do: room on disks, an sshd that a person stopped. A day passes, too.
    pub(crate) fn repair(&mut self) -> Result<()> {
        let field = self.field;
        let shut = std::mem::take(&mut *held(&field.shut));
        each(&field.nodes, |index, node| {
            for place in ["/nix", "/var"] {
                node.empty(place)?;
            }
            node.enter("rm -f /nix/.lab-fill /var/.lab-fill /run/.lab-fill /tmp/.lab-fill")?.ok()?;
            if shut.contains(&index) {
                node.start_sshd()?;
            }
            node.enter(A_DAY_PASSES)?.ok()?;
            field.diary.repaired(&LASTING, index);
            Ok(())
        })?;
        Ok(())
    }

    /// Pins that a person set end. Said once there is a release that can be evaluated: a controller without its state knows no
    /// nodes before.
    pub(crate) fn give_all_back(&self) -> Result<()> {
        for (index, node) in self.field.nodes.iter().enumerate() {
            if node.path("/var/lib/driftless-node/pin").exists() {
                self.give_back(index)?;
            }
        }
        Ok(())
    }

    /// A release that fills disks may have come to a node after the repair.
    fn make_room(&self) {
        for node in &self.field.nodes {
            for place in ["/nix", "/var", "/run"] {
                // There is none, as a rule.
                let _ = fs::remove_file(node.path(place).join(".lab-fill"));
            }
        }
    }

    /// A controller that has just begun may not know its nodes yet; a person then says it again.
    fn give_back(&self, index: usize) -> Result<()> {
        let from = now();
        let deadline = Instant::now() + GONE;
        loop {
            let said = self.field.say(&["retry", NODES[index]])?;
            if said.success() {
                self.field.diary.note(Done { kind: "person-retries", node: Some(index), from, until: now() });
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "{} cannot be given back to the controller: {said:?}",
                NODES[index]
            );
            sleep(LOOK);
        }
    }

    /// Waits until the whole fleet is what the newest commit says. Yields the seconds that took.
    pub(crate) fn converge(&mut self) -> Result<f64> {
        let commit = self.field.fleet().git(&["rev-parse", "HEAD"])?;
        let short = commit.get(..7).unwrap_or(&commit).to_owned();
        let began = Instant::now();
        let mut shows = Value::Null;
        while began.elapsed() < CONVERGE {
            ensure!(self.field.fleet_mut().lives()?, "the controller ended by itself");
            self.make_room();
            if let Ok(seen) = self.field.fleet().snapshot() {
                let in_sync = |name: &str| {
                    let node = &seen["nodes"][name];
                    node["state"] == "in-sync" && node["runningRevision"] == short.as_str()
                };
                if NODES.into_iter().all(in_sync) {
                    return Ok(began.elapsed().as_secs_f64());
                }
                shows = seen;
            }
            sleep(LOOK);
        }
        let of = |name: &str| {
            let node = &shows["nodes"][name];
            format!("{name} is {} and runs {}: {}", node["state"], node["runningRevision"], node["why"])
        };
        let nodes: Vec<String> = NODES.into_iter().map(of).collect();
        bail!(
            "the fleet does not converge to {short} within {CONVERGE:?}: {}; source: {}",
            nodes.join("; "),
            shows["source"]
        );
    }

    /// Everything must be as it should be.
    pub(crate) fn inspect(&mut self, number: usize) -> Result<()> {
        let field = self.field;
        let seen = field.fleet().snapshot()?;
        each(&field.nodes, |_, node| {
            let desired = seen["nodes"][node.name()]["desired"].as_str().unwrap_or_default();
            node.assert_sound(&[desired], &[desired])
        })?;
        self.audit()?;
        if let Some(wrong) = self.witness.wrong() {
            bail!("{wrong}");
        }
        self.controller_is_sound()?;
        if number.is_multiple_of(STOP_EVERY) {
            self.nothing_outlives_the_controller()?;
            field.fleet_mut().start()?;
        }
        each(&field.nodes, |_, node| {
            // As a timer does on many machines; a hundred generations would make each commit slower.
            let tidy = "nix-env -p /nix/var/nix/profiles/system --delete-generations +3 2>&1";
            node.enter(tidy)?.ok().map(drop)
        })
    }

    /// The end of the campaign: the controller stops, and nothing is left of it.
    pub(crate) fn end(&mut self) -> Result<()> {
        self.nothing_outlives_the_controller()
    }

    /// What is to be reported.
    pub(crate) fn figures(&self, report: &mut Report) {
        report.most_memory = self.most_memory;
        report.count_ends(self.ledger.entries(), &self.field.diary.all());
    }

    fn audit(&mut self) -> Result<()> {
        let wrong = self.ledger.audit(self.field, self.witness)?;
        ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
        Ok(())
    }

    /// No programs that nobody waits for, no memory and no files without end, nothing forgotten in temporary directories.
    fn controller_is_sound(&mut self) -> Result<()> {
        let fleet = self.field.fleet();
        ensure!(!fleet.log().contains("panicked at"), "the controller panicked");
        let pid = fleet.pid().context("no controller runs")?;
        until_empty("zombies of the controller", || Ok(zombies(pid)))?;
        let temporary = fleet.dir().join("tmp");
        // A Nix that was killed leaves its builds' directories; that is Nix's.
        let ours = |name: &String| !name.starts_with("nix-");
        let forgotten = || Ok(names_in(&temporary).into_iter().filter(ours).collect());
        until_empty("temporary files of the controller", forgotten)?;
        let files = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().count();
        ensure!(files <= FILES, "the controller has {files} files open");
        let memory = resident(pid)?;
        self.most_memory = self.most_memory.max(memory);
        ensure!(memory <= MEMORY, "the controller has {memory} KiB of memory");
        let programs = descendants(pid).len();
        self.field.diary.say(&format!("controller {pid}: {memory} KiB, {files} files, {programs} programs"));
        Ok(())
    }

    fn nothing_outlives_the_controller(&self) -> Result<()> {
        let field = self.field;
        let code = field.fleet_mut().stop()?;
        ensure!(code == Some(0), "the controller ended with {code:?}");
        let fleet = field.fleet();
        until_empty("programs of the controller", || Ok(fleet.processes()))?;
        let sockets = || {
            let names = names_in(&fleet.dir().join("r"));
            Ok(names.into_iter().filter(|name| name.ends_with(".sock")).collect())
        };
        until_empty("sockets of the controller", sockets)?;
        each(&field.nodes, |index, node| {
            until_empty("on it", || {
                let extra: Vec<String> = shown(node)?.difference(&self.well[index]).cloned().collect();
                Ok(extra)
            })
        })
    }
}

/// Does the same with every node, side by side; errors name theirs.
fn each(nodes: &[Node], what: impl Fn(usize, &Node) -> Result<()> + Sync) -> Result<()> {
    thread::scope(|scope| {
        let what = &what;
        let at_work: Vec<_> = nodes
            .iter()
            .enumerate()
            .map(|(index, node)| {
                scope.spawn(move || what(index, node).with_context(|| node.name().to_owned()))
            })
            .collect();
        at_work
            .into_iter()
            .try_for_each(|work| work.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

/// What a node shows of mounts, kinds of processes, and the first level of its fleeting directories.
fn shown(node: &Node) -> Result<BTreeSet<String>> {
    let show = "cut -d' ' -f2 /proc/mounts | sed 's/^/mount /'; ps -eo comm= | sed 's/^/process /'; \
                for dir in /run /tmp /root /home /boot; do ls -A $dir | sed \"s,^,file $dir/,\"; done";
    let lines = node.enter(show)?.ok()?;
    // Started when somebody asks for it: it need not run on a node that is well.
    Ok(lines
        .lines()
        .map(|line| line.trim().to_owned())
        .filter(|line| line != "process dbus-daemon")
        .collect())
}

fn until_empty(what: &str, look: impl Fn() -> Result<Vec<String>>) -> Result<()> {
    let deadline = Instant::now() + GONE;
    loop {
        let left = look()?;
        if left.is_empty() {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "left behind {what}: {}", left.join("\n"));
        sleep(LOOK);
    }
}

fn names_in(directory: &std::path::Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

fn zombies(pid: u32) -> Vec<String> {
    let state = |pid: &u32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        status.contains("State:\tZ").then_some(status)
    };
    descendants(pid).iter().filter_map(state).collect()
}

/// Resident memory in KiB (proc_pid_status(5)).
fn resident(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse()?)
}
