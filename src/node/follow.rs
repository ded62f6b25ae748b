//! Follows a switch on a node to its end: knocks for contact, runs the health checks, gives the verdict.
//!
//! The node decides whether it survives; here is only proof and opinion. Where the switch moves the node to another
//! address, the node is followed there, and back again should it go back.

use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::frame::Reply;
use super::ways::Moved;
use super::{Node, NodeError, Order};
use crate::model::health::Checks;
use crate::model::journal::{Deadlines, Entry, Phase, SwitchId};
use crate::model::node::Goal;
use crate::model::observed::Stage;
use crate::model::way::Which;

/// Longest time for an answer that costs the node next to nothing.
const ANSWER: Duration = Duration::from_secs(30);
/// The same for a verdict, which is worth nothing after the node's deadline: then rather over a new connection.
const VERDICT: Duration = Duration::from_secs(8);
/// Longest time for one long poll for the next phase.
const POLL: Duration = Duration::from_secs(10);
/// Between two tries to reach a node that is in the middle of a switch.
pub const KNOCK: Duration = Duration::from_millis(500);

/// Most switches say within this that they have begun.
const SILENCE: Duration = Duration::from_secs(5);

/// No phase: the node answers whatever phase it is in.
pub const AT_ONCE: &str = "-";
/// The phase that a switch begins with.
const BEGUN: &str = "checking";
/// The phases of a switch that has begun to test its system.
const TESTING: &str = "checking testing";

/// What a watcher of a running switch must know; the node tells a controller that comes later.
pub struct Following {
    pub id: SwitchId,
    pub nonce: String,
    pub checks: Checks,
    pub deadlines: Deadlines,
    /// Phases that the node is known to be in, or asks nothing of us in: it answers in another one.
    pub seen: &'static str,
}

/// What need not be asked of a switch that has just begun, where the node told how far it is.
pub fn begun(phase: Option<&str>, order: &Order) -> (Phase, &'static str) {
    match phase {
        Some("testing") => (Phase::Testing, TESTING),
        // What is not there yet is tested within a moment, and nothing is asked of us before it was.
        Some("checking") if order.goal != Goal::Boot && order.toplevel != order.expected => {
            (Phase::Testing, TESTING)
        }
        Some(_) | None => (Phase::Checking, BEGUN),
    }
}

/// What came of knocking at one way.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Knock {
    /// The node took both, and the switch is over.
    Ended(Box<Entry>),
    /// The node took it for contact, and our word with it that nothing else has to be proven.
    Accepted,
    /// The node took it for contact.
    Made,
    /// The node answered, and did not need it.
    Answered,
    /// Nobody who knows of the switch answered.
    Silence,
}

impl Node {
    /// Watches a switch to its end; makes contact and gives the verdict when the node waits for them.
    pub(super) async fn follow(
        &self,
        switch: &Following,
        stage: &watch::Sender<Stage>,
    ) -> Result<Entry, NodeError> {
        let began = Instant::now();
        let mut seen = switch.seen.to_owned();
        let mut touch = Touch { phase: seen.clone(), at: Instant::now() };
        loop {
            let reply = match self.next_phase(switch, &seen).await {
                Ok(reply) => reply,
                // In the middle of a switch a lost connection is ordinary: knock again, contact included.
                Err(error) if error.may_pass() && touch.at.elapsed() < touch.patience(switch.deadlines) => {
                    tracing::debug!(node = %self.name, error = &error as &dyn std::error::Error, "lost touch");
                    self.search(switch).await;
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
            seen = match self.answer(switch, phase, stage).await {
                Answered::Seen(seen) => seen,
                Answered::Ended(entry) => return Ok(*entry),
            };
            if seen == AT_ONCE {
                // Not waited for by a long poll: what did not get through is tried again soon.
                tokio::time::sleep(KNOCK).await;
            }
        }
    }

    /// Gives the node what it waits for in a phase.
    async fn answer(&self, switch: &Following, phase: String, stage: &watch::Sender<Stage>) -> Answered {
        let did = match phase.as_str() {
            "contact" => self.knock(switch, Which::Declared).await,
            "recontact" => match self.knock(switch, Which::Declared).await {
                // The previous system is back, and with it perhaps the way that led there.
                Knock::Answered | Knock::Silence => self.knock(switch, Which::Last).await,
                made @ (Knock::Ended(_) | Knock::Accepted | Knock::Made) => made,
            },
            "health" if self.judge(switch, stage).await => Knock::Accepted,
            "health" => Knock::Silence,
            _ => return Answered::Seen(phase),
        };
        Answered::Seen(match did {
            Knock::Ended(entry) => return Answered::Ended(entry),
            // What follows a verdict asks nothing of us before it is over; a boot loader may take its time.
            Knock::Accepted => {
                stage.send_replace(Stage::Switching { phase: Phase::Committing, detail: String::new() });
                "contact health committing".to_owned()
            }
            Knock::Made => phase,
            Knock::Answered | Knock::Silence => AT_ONCE.to_owned(),
        })
    }

    /// Waits for another phase than `seen`. A kept connection may be silent for longer than the node waits for contact:
    /// while no answer comes, knocks over new ones, and asks where the node has moved to once it answers there.
    async fn next_phase(&self, switch: &Following, seen: &str) -> Result<Reply, NodeError> {
        let poll = POLL.min(switch.deadlines.contact / 4).max(Duration::from_secs(1));
        let seconds = poll.as_secs().to_string();
        let arguments = [seen, seconds.as_str()];
        loop {
            let asked = self.ask_switch("follow the switch", &switch.id, "attach", &arguments, ANSWER);
            tokio::pin!(asked);
            let mut patience =
                if seen == AT_ONCE { Duration::from_secs(1) } else { poll + Duration::from_secs(1) };
            loop {
                tokio::select! {
                    reply = &mut asked => return reply,
                    () = tokio::time::sleep(patience) => {}
                }
                tokio::select! {
                    reply = &mut asked => return reply,
                    moved = self.search(switch) => if moved == Moved::Yes { break },
                }
                patience = KNOCK * 2;
            }
        }
    }

    /// The way that is worked over is silent. Knocks where the node is declared, then where it was last; work goes on
    /// where it answers.
    async fn search(&self, switch: &Following) -> Moved {
        for which in [Which::Declared, Which::Last] {
            match self.knock(switch, which).await {
                Knock::Ended(_) | Knock::Accepted | Knock::Made | Knock::Answered => {
                    return self.ways.work_over(which);
                }
                Knock::Silence => {}
            }
        }
        Moved::No
    }

    /// Waits for a switch that does not say that it has begun, and may have cut the connection over which it would. Ends when
    /// the node has taken a new one for contact; `Some` where the switch is over by then.
    pub(super) async fn makes_contact(&self, switch: &Following) -> Option<Box<Entry>> {
        tokio::time::sleep(SILENCE).await;
        loop {
            let ended = match self.knock(switch, Which::Declared).await {
                Knock::Ended(entry) => Some(entry),
                Knock::Accepted | Knock::Made => None,
                Knock::Answered | Knock::Silence => {
                    tokio::time::sleep(KNOCK * 2).await;
                    continue;
                }
            };
            tracing::info!(
                node = %self.name,
                id = %switch.id,
                "the connection that the switch was started over is silent, a new one made contact"
            );
            self.ways.work_over(Which::Declared);
            return ended;
        }
    }

    /// One try to make contact over one way. Only the node's own word afterwards counts.
    async fn knock(&self, switch: &Following, which: Which) -> Knock {
        let verb = match (which, self.ways.last()) {
            // Without checks, contact is all that there is to judge by.
            (Which::Declared, _) if switch.checks.is_empty() => "vouch",
            (Which::Declared, _) => "contact",
            // What the new system has to prove is the declared way; after a rollback any way in is one.
            (Which::Last, Some(_)) => "recontact",
            (Which::Last, None) => return Knock::Silence,
        };
        match self.ask_contact(self.ways.link(which), verb, &switch.id, &switch.nonce).await {
            Ok(reply) => {
                tracing::debug!(node = %self.name, id = %switch.id, ?which, ?reply, "contact");
                match (reply.get("contact"), reply.get("verdict")) {
                    (_, Some("accept")) => match reply.entry() {
                        Ok(entry) if entry.outcome.is_some() => Knock::Ended(Box::new(entry)),
                        Ok(_) | Err(_) => Knock::Accepted,
                    },
                    (Some(_), _) => Knock::Made,
                    (None, _) => Knock::Answered,
                }
            }
            Err(error) => {
                tracing::debug!(node = %self.name, id = %switch.id, ?which, error = &error as &dyn std::error::Error, "no contact");
                Knock::Silence
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

/// What came of an answer to a phase.
#[derive(Debug)]
enum Answered {
    /// The phases that need nothing more of us.
    Seen(String),
    /// The switch is over.
    Ended(Box<Entry>),
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
        let seconds = Duration::from_secs;
        let deadlines = Deadlines { switch: seconds(300), contact: seconds(60), health: seconds(40) };
        let patience =
            |phase: &str| Touch { phase: phase.into(), at: Instant::now() }.patience(deadlines).as_secs();
        assert_eq!(["testing", "contact", "health"].map(patience), [390, 90, 70]);
    }
}
