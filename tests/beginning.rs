//! How tests begin: lab nodes, with a repository and a controller of this build for them; paths in the store.

use std::path::Path;
use std::process::Command;

use driftless_lab::{Fleet, Lab, Node, System};

/// Enough for a Nix that nobody has set up.
pub const NIX_CONFIG: &str = "build-users-group =\nsandbox = false\nsubstitute = false\n";

/// Builds what an expression says. The store paths, one a line.
pub fn built(expression: &str) -> String {
    let built = Command::new("nix-build")
        .args(["--no-out-link", "-E", expression])
        .env("NIX_CONFIG", NIX_CONFIG)
        .output()
        .unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    String::from_utf8(built.stdout).unwrap()
}

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
