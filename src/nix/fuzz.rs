//! What the nix programs print, as bytes, for [`crate::fuzz`]. Asserts what holds for any bytes; runs nothing.

use std::collections::BTreeSet;

use super::ask::{Document, read};
use super::error::Subject;
use super::graph::Graph;
use super::message::{Said, plain};
use super::progress::Heard;
use crate::fuzz::is_kept;
use crate::model::manifest::Names;
use crate::model::node::NodeSpec;
use crate::model::store_path::StorePath;

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

/// `nix-store --query --graph` of several systems.
pub(crate) fn graph(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let graph = Graph::read(&text);
    let names = text.split('"').filter_map(|name| format!("/nix/store/{name}").parse::<StorePath>().ok());
    for system in names.take(10) {
        let Ok(closure) = graph.closure(&system) else { continue };
        assert_eq!(closure.last(), Some(&system), "what is referred to comes first");
        assert_eq!(closure.iter().collect::<BTreeSet<_>>().len(), closure.len(), "each path once");
    }
}

/// Whether the first path that is named has a closure.
#[cfg(test)]
pub(crate) fn is_graph(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let first = text.split('"').nth(1).map(|name| format!("/nix/store/{name}").parse::<StorePath>());
    first.is_some_and(|path| path.is_ok_and(|path| Graph::read(&text).closure(&path).is_ok()))
}
