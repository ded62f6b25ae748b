//! How tests of a whole fleet begin: lab nodes, and a repository and a controller of this build for them.

use std::path::Path;

use driftless_lab::{Fleet, Lab, Node, System};

/// Plain nodes of a lab of their own.
pub fn fleet(names: &[&str]) -> Fleet {
    let lab = Lab::start().unwrap();
    let first = System::new("installed").build().unwrap();
    fleet_of(&lab, lab.nodes(names, &first).unwrap())
}

/// These nodes.
pub fn fleet_of(lab: &Lab, nodes: Vec<Node>) -> Fleet {
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    Fleet::new(lab, nodes, Path::new(env!("CARGO_BIN_EXE_driftless")), project).unwrap()
}

/// Commits a deployment in which each node has this body.
pub fn commit(fleet: &Fleet, message: &str, body: impl Fn(&str) -> String) -> String {
    fleet.commit(message, &[("deployment.nix", &fleet.deployment("", body))]).unwrap()
}
