//! Many switches side by side, each on a node of its own that has all systems already, each with the end that it must come to.
//! Every one goes through the controller's own node room; what is not as expected is told for all of them together.

use std::sync::{Condvar, Mutex, PoisonError};

use driftless::config::{NixConfig, SshConfig};
use driftless::model::journal::{Cause, Entry, Outcome, Phase};
use driftless::model::node::{Goal, NodeSpec};
use driftless::model::observed::Stage;
use driftless::model::store_path::StorePath;
use driftless::nix::Nix;
use driftless::node::{Node, NodeError, Order};
use driftless_lab::{Fault, Lab, Setup, System};
use tokio::sync::watch;

use super::Tune;

/// So many nodes switch at the same time, over all tests: more would be late for their own deadlines on a small machine.
static SEATS: Seats = Seats { free: Mutex::new(6), freed: Condvar::new() };

/// What a test does to a node in the middle.
pub type Act = fn(&driftless_lab::Node);

/// Which system, in the words of a scenario.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// What the node ran before.
    Previous,
    /// What it was told to switch to.
    New,
    /// What somebody else brought: the system with the text "foreign".
    Foreign,
}

/// How a switch must end.
#[derive(Debug, Clone, Copy)]
pub struct End {
    /// The journal's outcome.
    pub outcome: Outcome,
    /// The journal's cause.
    pub cause: Option<Cause>,
    /// Other causes that are as right.
    pub or: &'static [Cause],
    /// What runs then.
    pub runs: Which,
    /// What profile and boot loader start then.
    pub boots: Which,
    /// What the journal's detail must say.
    pub words: &'static str,
}

/// It runs and boots the new system.
pub const SUCCEEDED: End =
    End { outcome: Outcome::Succeeded, cause: None, or: &[], runs: Which::New, boots: Which::New, words: "" };

/// It runs and boots what it did before, because of this.
pub const fn back(cause: Cause) -> End {
    End {
        outcome: Outcome::RolledBack,
        cause: Some(cause),
        or: &[],
        runs: Which::Previous,
        boots: Which::Previous,
        words: "",
    }
}

impl End {
    /// With another outcome.
    pub const fn outcome(self, outcome: Outcome) -> End {
        End { outcome, ..self }
    }

    /// Or with one of these causes, where it is a matter of luck.
    pub const fn or(self, causes: &'static [Cause]) -> End {
        End { or: causes, ..self }
    }

    /// With another running system.
    pub const fn runs(self, runs: Which) -> End {
        End { runs, ..self }
    }

    /// With another boot default.
    pub const fn boots(self, boots: Which) -> End {
        End { boots, ..self }
    }

    /// With these words in the journal's detail.
    pub const fn says(self, words: &'static str) -> End {
        End { words, ..self }
    }
}

/// One switch on one node.
#[derive(Clone)]
pub struct Scenario {
    name: String,
    previous: System,
    new: System,
    goal: Goal,
    tune: Tune,
    before: Option<Act>,
    in_phase: Option<(Phase, Act)>,
    after: Option<Act>,
    end: End,
    refused: Option<&'static str>,
    log: Vec<&'static str>,
    not_in_log: Vec<&'static str>,
}

impl Scenario {
    /// A switch from a good system to `new`, with a controller that accepts.
    pub fn new(name: &str, new: System, end: End) -> Scenario {
        Scenario {
            name: name.to_owned(),
            previous: System::new("first"),
            new,
            goal: Goal::Switch,
            tune: |_| {},
            before: None,
            in_phase: None,
            after: None,
            end,
            refused: None,
            log: Vec::new(),
            not_in_log: Vec::new(),
        }
    }

    /// From this system.
    pub fn from(mut self, previous: System) -> Scenario {
        self.previous = previous;
        self
    }

    /// With another goal than `switch`.
    pub fn goal(mut self, goal: Goal) -> Scenario {
        self.goal = goal;
        self
    }

    /// With another declaration.
    pub fn tune(mut self, tune: Tune) -> Scenario {
        self.tune = tune;
        self
    }

    /// With this before its name.
    pub fn named(mut self, name: &str) -> Scenario {
        self.name = format!("{name} {}", self.name);
        self
    }

    /// Done to the node before the switch.
    pub fn before(mut self, act: Act) -> Scenario {
        self.before = Some(act);
        self
    }

    /// Done to the node when the switch is in that phase. `Testing` lasts until it is done.
    pub fn when(mut self, phase: Phase, act: Act) -> Scenario {
        if phase == Phase::Testing {
            self.new = self.new.fault(Fault::Gate("test"));
        }
        self.in_phase = Some((phase, act));
        self.name = format!("{} in {}", self.name, phase.as_str());
        self
    }

    /// Done to the node when the switch has ended, before it is looked at.
    pub fn after(mut self, act: Act) -> Scenario {
        self.after = Some(act);
        self
    }

    /// It must not even begin, for this reason.
    pub fn refused(mut self, words: &'static str) -> Scenario {
        self.refused = Some(words);
        self
    }

    /// The log must say this.
    pub fn logs(mut self, words: &'static str) -> Scenario {
        self.log.push(words);
        self
    }

    /// The log must not say this.
    pub fn logs_not(mut self, words: &'static str) -> Scenario {
        self.not_in_log.push(words);
        self
    }
}

/// Plays all scenarios and insists on the end of each.
pub fn play(scenarios: &[Scenario]) {
    let lab = Lab::start().unwrap();
    let mut systems: Vec<System> =
        scenarios.iter().flat_map(|one| [one.previous.clone(), one.new.clone()]).collect();
    systems.push(System::new("foreign"));
    let built = System::build_all(&systems).unwrap();
    let foreign = built.last().unwrap().as_str();
    let mut store = built.clone();
    store.sort();
    store.dedup();
    let failures = std::thread::scope(|scope| {
        let playing: Vec<_> = scenarios
            .iter()
            .enumerate()
            .map(|(number, scenario)| {
                let (lab, store) = (&lab, &store);
                let (previous, new) = (&built[2 * number], &built[2 * number + 1]);
                let player = scope.spawn(move || {
                    let _seat = SEATS.take();
                    // The store of the first node is everyone's template: the same key for all.
                    let setup = Setup { store: store.clone(), ..Setup::default() };
                    let machine = lab.node_with(&format!("n{number}"), previous, &setup).unwrap();
                    let cast = Cast { lab, machine, previous, new, foreign };
                    cast.play(scenario);
                });
                (scenario, player)
            })
            .collect();
        playing
            .into_iter()
            .filter_map(|(scenario, player)| {
                let panic = player.join().err()?;
                let said = panic.downcast_ref::<String>().cloned();
                let said = said.or_else(|| panic.downcast_ref::<&str>().map(|said| (*said).to_owned()));
                Some(format!("--- {}: {}", scenario.name, said.unwrap_or_default()))
            })
            .collect::<Vec<_>>()
    });
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), scenarios.len(), failures.join("\n"));
}

/// The few seats of those who play at the same time.
struct Seats {
    free: Mutex<usize>,
    freed: Condvar,
}

impl Seats {
    fn take(&'static self) -> Seat {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free = self.freed.wait_while(free, |free| *free == 0).unwrap_or_else(PoisonError::into_inner);
        *free -= 1;
        Seat(self)
    }
}

/// One of them.
struct Seat(&'static Seats);

impl Drop for Seat {
    fn drop(&mut self) {
        *self.0.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.0.freed.notify_one();
    }
}

/// One scenario's node and systems.
struct Cast<'a> {
    lab: &'a Lab,
    machine: driftless_lab::Node,
    previous: &'a str,
    new: &'a str,
    foreign: &'a str,
}

impl Cast<'_> {
    fn play(&self, scenario: &Scenario) {
        if let Some(act) = scenario.before {
            act(&self.machine);
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let ended = runtime.block_on(self.deploy(scenario));
        if let Some(act) = scenario.after {
            act(&self.machine);
        }
        match (ended, scenario.refused) {
            (Ok(entry), None) => self.assert_end(&entry, &scenario.end),
            (Ok(entry), Some(words)) => panic!("not refused because of {words:?}, but {entry:#?}"),
            (Err(error), Some(words)) => {
                let said = driftless::error_chain::error_chain(&error);
                assert!(said.contains(words), "not refused because of {words:?}, but: {said}");
            }
            (Err(error), None) => {
                panic!("{}\n{}", driftless::error_chain::error_chain(&error), self.log())
            }
        }
        let end = &scenario.end;
        self.machine.assert_sound(&[self.path(end.runs)], &[self.path(end.boots)]).unwrap_or_else(|error| {
            panic!("{error:?}");
        });
        self.assert_log(scenario);
    }

    fn assert_end(&self, entry: &Entry, end: &End) {
        let as_expected = entry.outcome == Some(end.outcome)
            && (entry.cause == end.cause || entry.cause.is_some_and(|cause| end.or.contains(&cause)))
            && entry.detail.contains(end.words)
            && entry.phase == Phase::Finished;
        assert!(as_expected, "not {end:?}, but {entry:#?}\n{}", self.log());
    }

    fn assert_log(&self, scenario: &Scenario) {
        let log = self.log();
        for words in &scenario.log {
            assert!(log.contains(words), "the log says nothing of {words:?}:\n{log}");
        }
        for words in &scenario.not_in_log {
            assert!(!log.contains(words), "the log says {words:?}:\n{log}");
        }
    }

    fn path(&self, which: Which) -> &str {
        match which {
            Which::Previous => self.previous,
            Which::New => self.new,
            Which::Foreign => self.foreign,
        }
    }

    fn log(&self) -> String {
        let tell = "cat /var/lib/driftless-node/switches/*/log";
        self.machine.enter(tell).map(|said| said.stdout).unwrap_or_default()
    }

    async fn deploy(&self, scenario: &Scenario) -> Result<Entry, NodeError> {
        let state = tempfile::Builder::new().prefix("dl").tempdir_in("/tmp").unwrap();
        let toplevel: StorePath = self.new.parse().unwrap();
        let ssh = SshConfig { identity_file: Some(self.lab.identity()), ..SshConfig::default() };
        let name = self.machine.name().parse().unwrap();
        let node = Node::new(&name, &self.spec(scenario.tune), &ssh, &state.path().join("r")).unwrap();
        let nix = Nix::new(&NixConfig::default(), state.path()).unwrap();
        let order = Order {
            toplevel: toplevel.clone(),
            expected: self.previous.parse().unwrap(),
            goal: scenario.goal,
            revision: "0123456789abcdef0123456789abcdef01234567".into(),
            asker: "controller test".into(),
            hooks: Vec::new(),
        };
        let (show, mut stage) = watch::channel(Stage::Preparing);
        let disturb = async {
            let Some((wanted, act)) = scenario.in_phase else { return };
            let there = |now: &Stage| matches!(now, Stage::Switching { phase, .. } if *phase == wanted);
            if stage.wait_for(there).await.is_ok() {
                act(&self.machine);
                self.machine.open_gate().unwrap();
            }
        };
        let deploy = async {
            let ended = node.deploy(&nix, &order, &show).await;
            drop(show);
            ended
        };
        let (ended, ()) = tokio::join!(deploy, disturb);
        node.close().await;
        ended
    }

    fn spec(&self, tune: Tune) -> NodeSpec {
        // Generous where a switch is to go through on a busy machine; a scenario that waits for a deadline has its own.
        let mut spec: NodeSpec = serde_json::from_value(serde_json::json!({
            "drv": format!("{}.drv", self.new),
            "toplevel": self.new,
            "system": "x86_64-linux",
            "host": format!("root@{}", self.machine.address()),
            "hostKeys": [self.machine.host_key()],
            "hasFastConnection": true,
            "switchTimeout": 60,
            "successTimeout": 40,
            "healthTimeout": 40,
        }))
        .unwrap();
        tune(&mut spec);
        spec
    }
}
