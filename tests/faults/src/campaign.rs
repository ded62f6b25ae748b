//! Plays a schedule on a real fleet: rounds of merges and faults, and after each a checkpoint. Decides nothing that the
//! schedule has not decided.

use std::fmt;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::{Context, Result, ensure};
use driftless_lab::{Fleet, Lab, Setup, System};

use crate::checkpoint::Inspector;
use crate::diary::{Diary, held};
use crate::fault::Fault;
use crate::field::Field;
use crate::merge::{Deployment, MergeKind, Patience};
use crate::report::Report;
use crate::schedule::{Injection, Merge, NODES, Round, Schedule};
use crate::witness::Witness;

/// What a campaign needs to know.
pub struct Options {
    /// What is thrown.
    pub seed: u64,
    /// How many faults.
    pub faults: usize,
    /// About how many between two checkpoints.
    pub per_round: usize,
    /// The `driftless` under test.
    pub binary: PathBuf,
    /// The checkout with `nix/` and `tests/nixpkgs/`.
    pub project: PathBuf,
    /// Who wants to read along.
    pub out: Box<dyn Write + Send>,
}

/// An invariant that did not hold.
#[derive(Debug)]
pub struct Broken {
    /// Which, and where.
    pub what: String,
    /// What was done before.
    pub diary: String,
    /// What the controller said last.
    pub log: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.what)
    }
}

impl std::error::Error for Broken {}

/// Plays the schedule of a seed. An invariant that does not hold ends it with [`Broken`].
pub fn run(options: Options) -> Result<Report> {
    let schedule = Schedule::new(options.seed, options.faults, options.per_round);
    let diary = Diary::new(options.out);
    let lab = Lab::start()?;
    let installed = System::new("installed").build()?;
    let stray = |number: usize| System::new(&format!("by hand {number}")).package("htop", "3.3.0").build();
    let strays = (0..3).map(stray).collect::<Result<Vec<_>>>()?;
    let setup = Setup { store: strays.clone(), ..Setup::default() };
    let nodes = lab.nodes_with(&NODES, &installed, &setup)?;
    let fleet = Fleet::new(&lab, nodes, &options.binary, &options.project)?;
    let field = Field::new(fleet, installed, strays, diary);
    let witness = Witness::new();
    thread::scope(|scope| {
        scope.spawn(|| witness.watch(&field.nodes));
        let mut campaign = Campaign {
            field: &field,
            inspector: Inspector::new(&field, &witness),
            deployment: Deployment::default(),
            before: Deployment::default(),
            report: Report { seed: options.seed, ..Report::default() },
        };
        let played = campaign.play(&schedule).map_err(|error| broken(&field, &error));
        witness.end();
        played.map(|()| campaign.report)
    })
}

fn broken(field: &Field, error: &anyhow::Error) -> anyhow::Error {
    let log = field.fleet().log();
    let from = log.char_indices().rev().nth(30_000).map_or(0, |(place, _)| place);
    let broken =
        Broken { what: format!("{error:#}"), diary: field.diary.tail(120), log: log[from..].to_owned() };
    anyhow::Error::new(broken)
}

struct Campaign<'a> {
    field: &'a Field,
    inspector: Inspector<'a>,
    /// As the branch says, and as it said before the last merge.
    deployment: Deployment,
    before: Deployment,
    report: Report,
}

impl Campaign<'_> {
    fn play(&mut self, schedule: &Schedule) -> Result<()> {
        let field = self.field;
        self.commit(&Deployment::whole("c0"), Patience::Checkpoint, "checkpoint 0")?;
        self.inspector.prepare()?;
        for (number, round) in schedule.rounds.iter().enumerate() {
            let number = number + 1;
            self.round(round).with_context(|| format!("in round {number}"))?;
            self.checkpoint(number).with_context(|| format!("at checkpoint {number}"))?;
            self.report.checkpoints = number;
        }
        self.inspector.end()?;
        self.inspector.figures(&mut self.report);
        self.report.seconds = field.diary.seconds();
        Ok(())
    }

    /// Merges and faults side by side: one worker merges, and each node and the controller has one that harms it.
    fn round(&mut self, round: &Round) -> Result<()> {
        let field = self.field;
        let (faults, not_done) = (Mutex::new(Vec::new()), AtomicUsize::new(0));
        let harm = |steps: Vec<&Injection>| -> Result<()> {
            for step in steps {
                if field.inject(step)? {
                    held(&faults).push(step.fault.kind());
                } else {
                    not_done.fetch_add(1, Ordering::Relaxed);
                }
            }
            Ok(())
        };
        let mut merges = round.merges.iter();
        merges.next().map_or(Ok(()), |first| self.merge(first))?;
        field.wait_for_switches();
        let merged = thread::scope(|scope| {
            let workers: Vec<_> = (0..=NODES.len())
                .map(|worker| {
                    round.faults.iter().filter(|step| worker_of(&step.fault) == worker).collect::<Vec<_>>()
                })
                .map(|steps| scope.spawn(|| harm(steps)))
                .collect();
            let merged = merges.try_for_each(|merge| self.merge(merge));
            let harmed = workers
                .into_iter()
                .map(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect::<Result<Vec<()>>>();
            merged.and(harmed.map(drop))
        });
        for kind in held(&faults).iter() {
            *self.report.faults.entry(kind).or_default() += 1;
        }
        self.report.not_done += not_done.load(Ordering::Relaxed);
        merged
    }

    fn merge(&mut self, merge: &Merge) -> Result<()> {
        let phase = self.field.wait(merge.when, None);
        let next = self.deployment.merged(merge.number, &merge.kind, &self.before);
        self.field.diary.say(&format!("merge {} {:?} ({}; {phase})", merge.number, merge.kind, merge.when));
        *self.report.merges.entry(merge.kind.kind()).or_default() += 1;
        self.commit(&next, Patience::Round, &format!("merge {}", merge.number))?;
        if merge.kind == MergeKind::Twice {
            let second = Deployment::whole(&format!("m{}b", merge.number));
            self.commit(&second, Patience::Round, &format!("merge {} again", merge.number))?;
        }
        Ok(())
    }

    fn commit(&mut self, next: &Deployment, patience: Patience, message: &str) -> Result<()> {
        let _alone = held(&self.field.repository);
        let fleet = self.field.fleet();
        let place = |name: &str| NODES.iter().position(|node| *node == name).unwrap_or_default();
        let text = if next.is_broken() {
            "import <driftless> { } (".to_owned()
        } else {
            fleet.deployment(&next.fleet_wide(), |name| next.of(place(name), patience))
        };
        fleet.commit(message, &[("deployment.nix", &text)])?;
        self.before = std::mem::replace(&mut self.deployment, next.clone());
        Ok(())
    }

    fn checkpoint(&mut self, number: usize) -> Result<()> {
        let field = self.field;
        field.diary.say(&format!("checkpoint {number}"));
        ensure!(field.fleet_mut().lives()?, "the controller ended by itself");
        self.inspector.settle()?;
        self.inspector.repair()?;
        self.commit(
            &Deployment::whole(&format!("c{number}")),
            Patience::Checkpoint,
            &format!("checkpoint {number}"),
        )?;
        self.inspector.give_all_back()?;
        let seconds = self.inspector.converge()?;
        self.report.longest_convergence = self.report.longest_convergence.max(seconds);
        self.inspector.inspect(number)?;
        field.diary.say(&format!("checkpoint {number} passed; in sync after {seconds:.1} s"));
        Ok(())
    }
}

/// Which worker does a fault: one for each node, and the last for the controller.
fn worker_of(fault: &Fault) -> usize {
    match fault {
        Fault::Node { node, .. } => *node,
        Fault::Controller(_) => NODES.len(),
    }
}
