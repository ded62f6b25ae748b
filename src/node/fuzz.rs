//! What nodes and `ssh` say, as bytes, for [`crate::fuzz`]. Asserts what holds for any bytes; talks to nobody.

use super::deploy::deadlines;
use super::frame::{Reply, pin_end};
use super::ssh_words;
use crate::fuzz::{is_decided, is_kept};
use crate::model::release::Release;

/// The frame of all replies of the corpus.
const FRAME: &str = "f00";

/// Whether this is a reply to `observe` that is understood.
#[cfg(test)]
pub(crate) fn is_reply(bytes: &[u8]) -> bool {
    Reply::parse(bytes, FRAME).is_ok_and(|reply| reply.node_state().is_ok())
}

/// All that comes back from a verb of `switch.sh`, the journal included.
pub(crate) fn reply(bytes: &[u8]) {
    let Ok(reply) = Reply::parse(bytes, FRAME) else { return };
    if let Ok(entry) = reply.entry() {
        is_kept(&entry);
    }
    let _ = reply.get("deadlines").and_then(deadlines);
    let Ok(state) = reply.node_state() else { return };
    is_kept(&state);
    if let Some(pin) = &state.pin {
        assert!(!pin_end(&pin.until).contains('\n'));
    }
    is_decided(&release(), &[state]);
}

/// What `ssh` prints where it cannot connect.
pub(crate) fn ssh_words(bytes: &[u8]) {
    assert!(!ssh_words::explain(&String::from_utf8_lossy(bytes)).is_empty());
}

/// One node, so that there is something to decide.
fn release() -> Release {
    let json = include_bytes!("../../fuzz/corpus/release/one-node.json");
    serde_json::from_slice(json).unwrap_or_else(|error| panic!("the corpus: {error}"))
}
