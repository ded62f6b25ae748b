//! `driftless deploy --reboot`: reboots a node into the system that waits for it, and has that proven. Whether it is kept is
//! the node's decision; nothing here makes it the boot default.

use std::time::Duration;

use tokio::time::Instant;

use super::{Acting, Ending, act};
use crate::model::journal::Entry;
use crate::model::name::NodeName;
use crate::model::node::{Goal, NodeSpec};
use crate::model::observed::{NodeState, Stage};
use crate::node::{Node, NodeError, Order};

/// How long a node may take to come back: servers check their memory before they boot.
const BACK: Duration = Duration::from_secs(900);
/// Between two knocks at a node that boots.
const KNOCK: Duration = Duration::from_secs(1);
/// A controller that sees the node first proves the system too: then its switch is watched. More rounds mean that somebody
/// else keeps coming first.
const ROUNDS: u32 = 5;

/// Reboots the node, waits until it is back, and has the system proven.
pub async fn run(acting: &Acting, name: &NodeName, spec: &NodeSpec, revision: String) -> Ending {
    // Never closed; without a permit the switch would merely be one too many.
    let _permit = acting.limit.acquire().await;
    let node = match acting.node(name, spec) {
        Ok(node) => node,
        Err(error) => return Ending::of_error(name, error),
    };
    let ending = match booted(acting, &node).await {
        Ok(state) if state.running == spec.toplevel => prove(acting, &node, revision).await,
        Ok(state) => Err(did_not_boot(&state)),
        Err(ending) => Err(ending),
    };
    let ending = ending.unwrap_or_else(|ending| ending);
    act::unpin_unless_done(&node, &ending).await;
    node.close().await;
    ending
}

/// The node after its reboot.
async fn booted(acting: &Acting, node: &Node) -> Result<NodeState, Ending> {
    let failed = |error| Ending::of_error(node.name(), error);
    let before = acting.here.look(node).await.map_err(failed)?;
    acting.progress.say(node.name(), "rebooting");
    match node.reboot(&before.boot_id, None).await {
        // What it was about to say went with its network.
        Err(error) if !error.may_pass() => return Err(failed(error)),
        Ok(()) | Err(_) => {}
    }
    let began = Instant::now();
    while began.elapsed() < BACK {
        match acting.here.look(node).await {
            Ok(state) if state.boot_id != before.boot_id => return Ok(state),
            Ok(_) | Err(_) => tokio::time::sleep(KNOCK).await,
        }
    }
    let minutes = BACK.as_secs() / 60;
    Err(Ending::failed(
        "not back",
        format!("it has not come back within {minutes} min; its next boot starts {}", default_of(&before)),
    ))
}

fn did_not_boot(state: &NodeState) -> Ending {
    let why = format!("it came back with {} instead", state.running.name());
    Ending::failed("did not boot", why)
}

fn default_of(state: &NodeState) -> &str {
    state.boot_default.as_ref().map_or("what it booted before", |default| default.name())
}

/// Has what runs proven, by a switch of ours or of a controller that came first.
async fn prove(acting: &Acting, node: &Node, revision: String) -> Result<Ending, Ending> {
    let name = node.name();
    let failed = |error| Ending::of_error(name, error);
    let toplevel = &node.spec().toplevel;
    let order = Order {
        toplevel: toplevel.clone(),
        expected: toplevel.clone(),
        goal: Goal::Switch,
        revision,
        asker: acting.asker.clone(),
        hooks: Vec::new(),
    };
    for _ in 0..ROUNDS {
        let state = acting.here.look(node).await.map_err(failed)?;
        if state.boot_default.as_ref() == Some(toplevel) {
            return Ok(Ending::Done { word: "deployed", detail: "rebooted".into() });
        }
        let ended = match state.live_switch() {
            Some(live) => attach(node, live).await,
            None => acting.watched(node, &order).await,
        };
        match ended {
            Ok(entry) => return Ok(Ending::of_entry(&entry, "deployed")),
            Err(NodeError::Refused { .. }) => tokio::time::sleep(KNOCK).await,
            Err(error) => return Err(failed(error)),
        }
    }
    Err(Ending::failed("not proven", "somebody else keeps switching it"))
}

async fn attach(node: &Node, live: &Entry) -> Result<Entry, NodeError> {
    let (show, _stages) = tokio::sync::watch::channel(Stage::Preparing);
    node.attach(&live.id, &show).await
}
