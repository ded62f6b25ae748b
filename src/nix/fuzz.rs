//! What the nix programs print, as bytes, for [`crate::fuzz`]. Asserts what holds for any bytes; runs nothing.

use super::ask::{Document, read};
use super::error::Subject;
use super::message::{Said, plain};
use super::progress::Heard;
use crate::fuzz::is_kept;
use crate::model::manifest::Names;
use crate::model::node::NodeSpec;

/// stderr of an evaluation or a build.
pub(crate) fn words(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut said = Said::default();
    for line in text.lines() {
        assert!(!plain(line).contains('\u{1b}'));
        said.hear(line);
    }
    for tail in [said.reason(), said.end(12)] {
        assert!(tail.0.len() <= 30, "too much for a person: {} lines", tail.0.len());
    }
    let _ = said.failed_derivation();
}

/// `--log-format internal-json` of a copy, and what ssh and login shells print in between.
pub(crate) fn log(bytes: &[u8]) {
    let mut heard = Heard::default();
    String::from_utf8_lossy(bytes).lines().for_each(|line| heard.hear(line));
    let _ = heard.progress(u64::MAX);
}

/// What `nix/manifest.nix` evaluates to.
pub(crate) fn manifest(bytes: &[u8]) {
    let _ = read::<Names>(bytes, Subject::Deployment);
    let Ok(document) = read::<Document>(bytes, Subject::Deployment) else { return };
    for node in document.nodes.into_values() {
        if let Ok(spec) = serde_json::from_value::<NodeSpec>(node) {
            is_kept(&spec);
        }
    }
}
