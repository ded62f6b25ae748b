//! Brings one system onto a node and switches it: root, copy, start, then follow the node through its own phases.
//!
//! The node decides whether it survives; this side only copies, knocks for contact, runs the health checks and gives its
//! verdict. It never retries a step that failed: the next pass of the controller is the retry.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use rand::Rng;
use tokio::sync::watch;

use super::frame::{FrameError, Reply};
use super::protocol::{Privilege, random_hex};
use super::{Node, NodeError, Refusal};
use crate::model::journal::{Deadlines, Entry, Phase, SwitchId};
use crate::model::node::{Goal, HealthChecks, LastResort};
use crate::model::observed::Stage;
use crate::model::store_path::StorePath;
use crate::nix::Nix;

/// Longest time for an answer that costs the node next to nothing.
const ANSWER: Duration = Duration::from_secs(30);
/// The same for a verdict, which is worth nothing after the node's deadline: then rather over a new connection.
const VERDICT: Duration = Duration::from_secs(8);
/// Longest time for `start`: the unit's own start timeout and some.
const START: Duration = Duration::from_secs(90);
/// How long a node that answers may take to write the first line of a switch's journal.
const BEGINS: Duration = Duration::from_secs(10);
/// Longest time for one long poll for the next phase.
const POLL: Duration = Duration::from_secs(10);
/// Between two tries to reach a node that is in the middle of a switch.
const KNOCK: Duration = Duration::from_millis(500);

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
}

/// What a watcher of a running switch must know; the node tells a controller that comes later.
struct Following {
    id: SwitchId,
    nonce: String,
    checks: HealthChecks,
    deadlines: Deadlines,
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
        let id = SwitchId::new(Timestamp::now(), rand::rng().random());
        self.push_rooted(nix, &order.toplevel, &id, stage).await?;
        let nonce = random_hex();
        // From here on the node may be switching, whether or not its answer arrives: nobody ends this watch now.
        stage.send_replace(Stage::Switching { phase: Phase::Checking, detail: String::new() });
        let started = self.start(&id, &nonce, order).await;
        if let Err(NodeError::Refused { .. }) = &started {
            self.abandon(&id).await;
        }
        started?;
        let following =
            Following { id, nonce, checks: self.spec.health_checks.clone(), deadlines: self.deadlines() };
        self.follow(&following, stage).await
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
        let reply = self.ask_switch(attempt, id, "attach", &["-", "0"], ANSWER).await?;
        let wrong = |key| self.wrong_reply(attempt, FrameError::Missing { key });
        let nonce = reply.get("nonce").ok_or_else(|| wrong("nonce"))?.to_owned();
        let deadlines = reply.get("deadlines").and_then(deadlines).ok_or_else(|| wrong("deadlines"))?;
        // The entry's checks, not the newest declaration's: the switch is judged by what it was started with.
        let checks = match reply.get("checks") {
            None => HealthChecks::default(),
            Some(json) => serde_json::from_str(json).map_err(|_| wrong("checks"))?,
        };
        self.follow(&Following { id: id.clone(), nonce, checks, deadlines }, stage).await
    }

    async fn push_rooted(
        &self,
        nix: &Nix,
        toplevel: &StorePath,
        id: &SwitchId,
        stage: &watch::Sender<Stage>,
    ) -> Result<(), NodeError> {
        let prepare = ["prepare", id.as_str(), toplevel.as_str()];
        self.ask("root the new system", Privilege::Root, &prepare, ANSWER).await?;
        let copied = self
            .copy(nix, toplevel, |bytes, total| {
                stage.send_replace(Stage::Copying { bytes, total });
            })
            .await;
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

    async fn start(&self, id: &SwitchId, nonce: &str, order: &Order) -> Result<(), NodeError> {
        let arguments = self.start_arguments(id, nonce, order);
        match self.ask_start(&arguments, START).await {
            Ok(reply) => self.started(&reply),
            Err(error) if error.is_connection() => self.find_started(id, error).await,
            Err(error) => Err(error),
        }
    }

    /// The answer was lost, perhaps not the question. The journal knows, as soon as the node answers again.
    async fn find_started(&self, id: &SwitchId, lost: NodeError) -> Result<(), NodeError> {
        let began = Instant::now();
        let mut answered = None;
        loop {
            match self.ask_switch("ask for the switch", id, "attach", &["-", "0"], ANSWER).await {
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
            tokio::time::sleep(KNOCK).await;
        }
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
            ("ignore-units", self.spec.ignore_units.join(" ")),
            (
                "last-resort",
                match self.spec.last_resort {
                    LastResort::Reboot => "reboot".into(),
                    LastResort::None => "none".into(),
                },
            ),
        ];
        if !self.spec.health_checks.is_empty() {
            let json = serde_json::to_string(&self.spec.health_checks).unwrap_or_default();
            pairs.push(("checks", json));
        }
        let mut arguments = vec![id.as_str().to_owned(), order.toplevel.as_str().to_owned()];
        arguments.extend(pairs.into_iter().map(|(key, value)| format!("{key}={value}")));
        arguments
    }

    fn started(&self, reply: &Reply) -> Result<(), NodeError> {
        if reply.get("started").is_some() {
            return Ok(());
        }
        let said = reply.get("refused").unwrap_or("without a reason");
        let refusal = match said.split_once(' ').unwrap_or((said, "")) {
            ("busy", _) => Refusal::Busy,
            ("changed", running) => Refusal::Changed { running: running.to_owned() },
            ("missing", _) => Refusal::Missing,
            ("no-way-back", _) => Refusal::NoWayBack,
            ("exists", _) => Refusal::Exists,
            _ => Refusal::Other(said.to_owned()),
        };
        Err(NodeError::Refused { node: self.name.clone(), refusal })
    }

    /// Watches a switch to its end; makes contact and gives the verdict when the node waits for them.
    async fn follow(&self, switch: &Following, stage: &watch::Sender<Stage>) -> Result<Entry, NodeError> {
        let began = Instant::now();
        let mut seen = "-".to_owned();
        let mut touch = Touch { phase: seen.clone(), at: Instant::now() };
        loop {
            let reply = match self.next_phase(switch, &seen).await {
                Ok(reply) => reply,
                // In the middle of a switch a lost connection is ordinary: knock again, contact included.
                Err(error) if error.may_pass() && touch.at.elapsed() < touch.patience(switch.deadlines) => {
                    tracing::debug!(node = %self.name, error = &error as &dyn std::error::Error, "lost touch");
                    self.knock(switch).await;
                    tokio::time::sleep(KNOCK).await;
                    continue;
                }
                Err(error) if error.may_pass() => {
                    return Err(NodeError::LostTouch {
                        node: self.name.clone(),
                        id: switch.id.clone(),
                        seconds: touch.at.elapsed().as_secs(),
                        source: Box::new(error),
                    });
                }
                Err(error) => return Err(error),
            };
            let entry = reply.entry().map_err(|source| self.wrong_reply("follow the switch", source))?;
            if entry.outcome.is_some() {
                return Ok(entry);
            }
            if began.elapsed() > longest(switch.deadlines) {
                let (node, attempt) = (self.name.clone(), "follow the switch to its end");
                return Err(NodeError::Deadline { node, attempt, seconds: began.elapsed().as_secs() });
            }
            let phase = reply.get("phase").unwrap_or(entry.phase.as_str()).to_owned();
            touch = Touch { phase: phase.clone(), at: Instant::now() };
            stage.send_replace(Stage::Switching { phase: entry.phase, detail: String::new() });
            let again = match phase.as_str() {
                "contact" | "recontact" => !self.knock(switch).await,
                "health" => !self.judge(switch, stage).await,
                _ => false,
            };
            if again {
                // Not waited for by a long poll: what did not get through is tried again soon.
                tokio::time::sleep(KNOCK).await;
            }
            seen = if again { "-".to_owned() } else { phase };
        }
    }

    /// Waits for another phase than `seen`. A kept connection may be silent for longer than the node waits for contact:
    /// while no answer comes, knocks over new ones.
    async fn next_phase(&self, switch: &Following, seen: &str) -> Result<Reply, NodeError> {
        let poll = POLL.min(switch.deadlines.contact / 4).max(Duration::from_secs(1));
        let seconds = poll.as_secs().to_string();
        let arguments = [seen, seconds.as_str()];
        let asked = self.ask_switch("follow the switch", &switch.id, "attach", &arguments, ANSWER);
        tokio::pin!(asked);
        let mut patience = if seen == "-" { Duration::from_secs(1) } else { poll + Duration::from_secs(1) };
        loop {
            tokio::select! {
                reply = &mut asked => return reply,
                () = tokio::time::sleep(patience) => {}
            }
            tokio::select! {
                reply = &mut asked => return reply,
                _ = self.knock(switch) => {}
            }
            patience = KNOCK * 2;
        }
    }

    /// One try to make contact: whether the node took it. Only the node's own word afterwards counts.
    async fn knock(&self, switch: &Following) -> bool {
        match self.ask_contact(&switch.id, &switch.nonce).await {
            Ok(reply) => {
                tracing::debug!(node = %self.name, id = %switch.id, ?reply, "contact");
                reply.get("contact").is_some()
            }
            Err(error) => {
                tracing::debug!(node = %self.name, id = %switch.id, error = &error as &dyn std::error::Error, "no contact");
                false
            }
        }
    }

    /// Runs the health checks and hands the node its verdict: whether it was delivered.
    async fn judge(&self, switch: &Following, stage: &watch::Sender<Stage>) -> bool {
        // The node counts silence as a reject: our own word has to be there before.
        let deadline = switch.deadlines.health.mul_f64(0.8);
        let show = |detail: String| {
            stage.send_replace(Stage::Switching { phase: Phase::Health, detail });
        };
        let healthy = self.await_health(&switch.checks, deadline, show).await;
        let said = match &healthy {
            Ok(()) => {
                self.ask_switch("accept the switch", &switch.id, "accept", &[&switch.nonce], VERDICT).await
            }
            Err(reason) => {
                let arguments = [switch.nonce.as_str(), reason.as_str()];
                self.ask_switch("reject the switch", &switch.id, "reject", &arguments, VERDICT).await
            }
        };
        if let Err(error) = &said {
            // The node waits until its own deadline; the next round of `follow` tries again or reads the outcome.
            tracing::warn!(node = %self.name, id = %switch.id, error = error as &dyn std::error::Error, "verdict not delivered");
        }
        said.is_ok()
    }
}

/// Three numbers of seconds.
pub(super) fn deadlines(text: &str) -> Option<Deadlines> {
    let mut numbers = text.split(' ').map(|number| number.parse().ok().map(Duration::from_secs));
    let mut next = || numbers.next().flatten();
    Some(Deadlines { switch: next()?, contact: next()?, health: next()? })
}

/// A node that answers ends its switch within this: test, contact, health, commit, and a rollback that is tried twice and
/// waits for contact; all of it once more where its watcher is killed.
fn longest(deadlines: Deadlines) -> Duration {
    (deadlines.switch * 6 + deadlines.contact * 2 + deadlines.health + Duration::from_secs(400)) * 2
}

/// The last answer of a node in the middle of a switch.
struct Touch {
    phase: String,
    at: Instant,
}

impl Touch {
    /// How long a silent node is worth knocking at. After that it has decided alone, and following it only keeps others
    /// waiting; once it answers again, its journal tells, or the next pass re-attaches.
    fn patience(&self, deadlines: Deadlines) -> Duration {
        let waited_for = match self.phase.as_str() {
            "contact" | "recontact" => deadlines.contact,
            "health" => deadlines.health,
            "committing" | "rolling-back" => deadlines.switch * 2 + deadlines.contact,
            _ => deadlines.switch + deadlines.contact,
        };
        waited_for + Duration::from_secs(30)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_node_keeps_its_place_no_longer_than_it_needs_to_decide() {
        let deadlines = deadlines("300 60 40").unwrap();
        let patience =
            |phase: &str| Touch { phase: phase.into(), at: Instant::now() }.patience(deadlines).as_secs();
        assert_eq!(["testing", "contact", "health"].map(patience), [390, 90, 70]);
    }

    #[test]
    fn deadlines_are_three_numbers() {
        let read = deadlines("300 60 30").unwrap();
        assert_eq!((read.switch.as_secs(), read.contact.as_secs(), read.health.as_secs()), (300, 60, 30));
        assert!(deadlines("300 60").is_none());
        assert!(deadlines("a b c").is_none());
    }
}
