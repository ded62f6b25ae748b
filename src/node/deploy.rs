//! Brings one system onto a node and starts its switch: root, copy, start. `follow` sees it to its end.
//!
//! It never retries a step that failed: the next pass of the controller is the retry.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use rand::Rng;
use tokio::sync::watch;

use super::follow::{AT_ONCE, Following, KNOCK, begun};
use super::frame::{FrameError, Reply};
use super::protocol::{Privilege, random_hex};
use super::secrets::Seen;
use super::{Node, NodeError, Refusal};
use crate::model::health::Checks;
use crate::model::hook::{Hook, HookPoint};
use crate::model::journal::{Deadlines, Entry, Phase, SwitchId};
use crate::model::node::{Goal, LastResort};
use crate::model::observed::Stage;
use crate::model::store_path::StorePath;
use crate::model::way::Which;
use crate::nix::Nix;
use crate::plan::reboots;

/// Longest time for an answer that costs the node next to nothing.
const ANSWER: Duration = Duration::from_secs(30);
/// The same where there is another way to try.
const TURN: Duration = Duration::from_secs(4);
/// Longest time for `start`: the unit's own start timeout and some.
const START: Duration = Duration::from_secs(90);
/// How long a node that answers may take to write the first line of a switch's journal.
const BEGINS: Duration = Duration::from_secs(10);

/// What is to be installed on a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// The system.
    pub toplevel: StorePath,
    /// What the node must still run when the switch starts.
    pub expected: StorePath,
    /// How.
    pub goal: Goal,
    /// The commit it is for, for the journal; `-` where there is none.
    pub revision: String,
    /// Who asks, for the journal.
    pub asker: String,
    /// What is run here before it; what comes after it is the asker's to run, when it knows how the switch ended.
    pub hooks: Vec<Hook>,
}

/// A switch that has begun.
enum Started {
    /// In this phase, where the node told.
    Running { phase: Option<String> },
    /// It is over already.
    Ended(Box<Entry>),
}

impl Node {
    /// Copies a system to the node and switches to it. `Ok` is the journal's entry, whatever its outcome.
    pub async fn deploy(
        &self,
        nix: &Nix,
        order: &Order,
        stage: &watch::Sender<Stage>,
    ) -> Result<Entry, NodeError> {
        stage.send_replace(Stage::Preparing);
        self.is_ready().await?;
        let systems = (&order.toplevel, &order.expected);
        self.hooks_before(&order.hooks, HookPoint::BeforeCopy, systems, stage).await?;
        let id = SwitchId::new(Timestamp::now(), rand::rng().random());
        self.push_rooted(nix, &order.toplevel, &id, stage).await?;
        let prepared = async {
            self.hooks_before(&order.hooks, HookPoint::BeforeSecrets, systems, stage).await?;
            self.bring_secrets(nix, &order.toplevel, Seen::ByItsSwitch).await?;
            self.hooks_before(&order.hooks, HookPoint::BeforeSwitch, systems, stage).await
        };
        if let Err(error) = prepared.await {
            self.abandon(&id).await;
            return Err(error);
        }
        let switch = Following {
            id,
            nonce: random_hex(),
            checks: self.spec.health_checks.after.clone(),
            deadlines: self.deadlines(),
            seen: AT_ONCE,
        };
        // From here on the node may be switching, whether or not its answer arrives: nobody ends this watch now.
        stage.send_replace(Stage::Switching { phase: Phase::Checking, detail: String::new() });
        let started = self.start(&switch, order).await;
        if let Err(NodeError::Refused { .. }) = &started {
            self.abandon(&switch.id).await;
        }
        let phase = match started? {
            Started::Ended(entry) => return Ok(*entry),
            Started::Running { phase } => phase,
        };
        let (phase, seen) = begun(phase.as_deref(), order);
        stage.send_replace(Stage::Switching { phase, detail: String::new() });
        self.follow(&Following { seen, ..switch }, stage).await
    }

    /// Copies a system to the node and does not switch.
    pub async fn push(
        &self,
        nix: &Nix,
        toplevel: &StorePath,
        stage: &watch::Sender<Stage>,
    ) -> Result<(), NodeError> {
        let id = SwitchId::new(Timestamp::now(), rand::rng().random());
        // The root stays for a day, until the node's next switch clears it away.
        self.push_rooted(nix, toplevel, &id, stage).await
    }

    /// Takes over a switch that somebody else started and is no longer there to judge.
    pub async fn attach(&self, id: &SwitchId, stage: &watch::Sender<Stage>) -> Result<Entry, NodeError> {
        let attempt = "re-attach to the switch";
        let reply = self.find_switch(attempt, id).await?;
        let wrong = |key| self.wrong_reply(attempt, FrameError::Missing { key });
        let nonce = reply.get("nonce").ok_or_else(|| wrong("nonce"))?.to_owned();
        let deadlines = reply.get("deadlines").and_then(deadlines).ok_or_else(|| wrong("deadlines"))?;
        // The entry's checks, not the newest declaration's: the switch is judged by what it was started with.
        let checks = match reply.get("checks") {
            None => Checks::default(),
            Some(json) => serde_json::from_str(json).map_err(|_| wrong("checks"))?,
        };
        self.follow(&Following { id: id.clone(), nonce, checks, deadlines, seen: AT_ONCE }, stage).await
    }

    async fn push_rooted(
        &self,
        nix: &Nix,
        toplevel: &StorePath,
        id: &SwitchId,
        stage: &watch::Sender<Stage>,
    ) -> Result<(), NodeError> {
        let copied = async {
            if self.builds(nix, toplevel) {
                return self.build_there(nix, toplevel, id, stage).await;
            }
            let delta = self.prepare(nix, toplevel, id).await?;
            self.copy(nix, toplevel, delta, |bytes, total| {
                stage.send_replace(Stage::Copying { bytes, total });
            })
            .await
        };
        let copied = copied.await;
        if copied.is_err() {
            self.abandon(id).await;
        }
        copied
    }

    /// Gives the root back. Best effort: the node clears what is left after a day.
    async fn abandon(&self, id: &SwitchId) {
        let gone = self.ask("abandon the copy", Privilege::Root, &["abandon", id.as_str()], ANSWER).await;
        if let Err(error) = gone {
            tracing::debug!(node = %self.name, %id, error = &error as &dyn std::error::Error, "root not given back");
        }
    }

    fn deadlines(&self) -> Deadlines {
        Deadlines {
            switch: self.spec.switch_timeout,
            contact: self.spec.success_timeout,
            health: self.spec.health_timeout,
        }
    }

    async fn start(&self, switch: &Following, order: &Order) -> Result<Started, NodeError> {
        let arguments = self.start_arguments(&switch.id, &switch.nonce, order);
        let answer = tokio::select! {
            answer = self.ask_start(&arguments, START) => answer,
            // The connection that it was started over has not lived to see its answer; a new one did better.
            ended = self.makes_contact(switch) => {
                return Ok(ended.map_or(Started::Running { phase: None }, Started::Ended));
            }
        };
        match answer {
            Ok(reply) => self.started(&reply).map(|phase| Started::Running { phase }),
            Err(error) if error.is_connection() => {
                self.find_started(&switch.id, error).await.map(|()| Started::Running { phase: None })
            }
            Err(error) => Err(error),
        }
    }

    /// The answer was lost, perhaps not the question. The journal knows, as soon as the node answers again.
    async fn find_started(&self, id: &SwitchId, lost: NodeError) -> Result<(), NodeError> {
        let began = Instant::now();
        let mut answered = None;
        loop {
            match self.ask_where_it_is("ask for the switch", id).await {
                Ok(_) => return Ok(()),
                Err(error) if !error.is_connection() => {
                    // It may be about to begin.
                    if answered.get_or_insert_with(Instant::now).elapsed() > BEGINS {
                        return Err(lost);
                    }
                }
                Err(_) => {}
            }
            if began.elapsed() > START {
                return Err(lost);
            }
            // It may have begun and moved the node already.
            self.ways.turn();
            tokio::time::sleep(KNOCK).await;
        }
    }

    /// Asks for a switch that may be moving the node at this moment: where one way is silent, the other is tried.
    async fn find_switch(&self, attempt: &'static str, id: &SwitchId) -> Result<Reply, NodeError> {
        let began = Instant::now();
        loop {
            match self.ask_where_it_is(attempt, id).await {
                Err(error) if error.may_pass() && self.ways.last().is_some() && began.elapsed() < ANSWER => {
                    self.ways.turn();
                    tokio::time::sleep(KNOCK).await;
                }
                ended => return ended,
            }
        }
    }

    async fn ask_where_it_is(&self, attempt: &'static str, id: &SwitchId) -> Result<Reply, NodeError> {
        let patience = if self.ways.last().is_some() { TURN } else { ANSWER };
        self.ask_switch(attempt, id, "attach", &[AT_ONCE, "0"], patience).await
    }

    fn start_arguments(&self, id: &SwitchId, nonce: &str, order: &Order) -> Vec<String> {
        let seconds = |duration: Duration| duration.as_secs().max(1).to_string();
        let mut pairs = vec![
            ("expected", order.expected.as_str().to_owned()),
            ("nonce", nonce.to_owned()),
            ("goal", order.goal.as_str().to_owned()),
            ("revision", order.revision.clone()),
            ("asker", order.asker.clone()),
            ("switch-timeout", seconds(self.spec.switch_timeout)),
            ("contact-timeout", seconds(self.spec.success_timeout)),
            ("health-timeout", seconds(self.spec.health_timeout)),
            ("ignore-failed", if self.spec.ignore_failing_systemd_units { "yes" } else { "no" }.into()),
            ("unproven", if self.spec.reboot.unproven { "yes" } else { "no" }.into()),
            ("ignore-units", self.spec.ignore_units.join(" ")),
            (
                "last-resort",
                match self.spec.last_resort {
                    LastResort::Reboot => "reboot".into(),
                    LastResort::None => "none".into(),
                },
            ),
        ];
        // Never the default: an installed driftless-node of before does not know the word.
        if reboots::wanted(&self.spec) {
            pairs.push(("reboots", "allowed".into()));
        }
        if let (Which::Last, Some(last)) = (self.ways.which(), self.ways.last()) {
            let declared = self.ways.declared();
            let text =
                format!("over {}; started over {}", declared.told_from(last), last.told_from(declared));
            pairs.push(("contact-over", text));
        }
        if !self.spec.health_checks.after.is_empty() {
            let json = serde_json::to_string(&self.spec.health_checks.after).unwrap_or_default();
            pairs.push(("checks", json));
        }
        let mut arguments = vec![id.as_str().to_owned(), order.toplevel.as_str().to_owned()];
        arguments.extend(pairs.into_iter().map(|(key, value)| format!("{key}={value}")));
        arguments
    }

    fn started(&self, reply: &Reply) -> Result<Option<String>, NodeError> {
        if reply.get("started").is_some() {
            return Ok(reply.get("phase").map(str::to_owned));
        }
        let said = reply.get("refused").unwrap_or("without a reason");
        let refusal = match said.split_once(' ').unwrap_or((said, "")) {
            ("busy", _) => Refusal::Busy,
            ("changed", running) => Refusal::Changed { running: running.to_owned() },
            ("missing", _) => Refusal::Missing,
            ("no-way-back", _) => Refusal::NoWayBack,
            ("exists", _) => Refusal::Exists,
            ("unfinished", id) => Refusal::Unfinished { id: id.to_owned() },
            ("unsigned", said) => Refusal::Unsigned { said: said.to_owned() },
            ("unwritable", what) => Refusal::Unwritable { what: what.to_owned() },
            _ => Refusal::Other(said.to_owned()),
        };
        Err(NodeError::Refused { node: self.name.clone(), refusal })
    }
}

/// Three numbers of seconds.
pub(super) fn deadlines(text: &str) -> Option<Deadlines> {
    let mut numbers = text.split(' ').map(|number| number.parse().ok().map(Duration::from_secs));
    let mut next = || numbers.next().flatten();
    Some(Deadlines { switch: next()?, contact: next()?, health: next()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_are_three_numbers() {
        let read = deadlines("300 60 30").unwrap();
        assert_eq!((read.switch.as_secs(), read.contact.as_secs(), read.health.as_secs()), (300, 60, 30));
        assert!(deadlines("300 60").is_none());
        assert!(deadlines("a b c").is_none());
    }
}
