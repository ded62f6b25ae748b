//! Rollouts as deployments declare them: the example of the manual, and what the command line says of one that cannot be meant.

use std::fs;
use std::path::Path;
use std::time::Duration;

use assert_cmd::Command;
use driftless::model::manifest::{Manifest, Names};
use driftless::plan::declared::{Known, check};
use serde_json::Value;
use tempfile::TempDir;

use crate::nix_library::{BASE, Deployment, every_nixpkgs, our_nixpkgs, project};

const DEADLINE: Duration = Duration::from_secs(120);

#[test]
fn the_example_of_the_manual_is_a_file_that_can_be_meant() {
    let text = fs::read_to_string(project().join("examples/rollouts/deployment.nix")).unwrap();
    let manual = fs::read_to_string(project().join("docs/rollouts.md")).unwrap();
    assert!(manual.contains(&format!("```nix\n{text}```")), "docs/rollouts.md shows another file");
    for nixpkgs in every_nixpkgs() {
        let here = format!("import {} {{ }}", project().display());
        let deployment = Deployment::file(&nixpkgs, &text.replace("import ../.. { }", &here));
        let said =
            |want: &str| serde_json::from_slice::<Value>(&deployment.manifest(&[want]).stdout).unwrap();
        let names: Names = serde_json::from_value(said("names")).unwrap();
        let manifest: Manifest = serde_json::from_value(said("nodes")).unwrap();
        assert!(names.nodes.iter().eq(manifest.nodes.keys()));
        let nodes = manifest.nodes.iter().map(|(name, spec)| (name.clone(), Known::from(spec))).collect();
        assert_eq!(check(&names.rollout, &nodes), Ok(()));
    }
}

/// A directory with a deployment.
struct Desk {
    folder: TempDir,
}

/// What the program did.
#[derive(Debug)]
struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Desk {
    fn new(body: &str) -> Self {
        let entry = project().display();
        let text = format!(
            "import {entry} {{ }} ({{ ... }}: {{ defaults = {{ name, ... }}: {{ configuration = {{ {BASE} networking.hostName = name; }}; }}; {body} }})"
        );
        let desk = Self { folder: tempfile::tempdir().unwrap() };
        fs::write(desk.path().join("deployment.nix"), text).unwrap();
        desk
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn driftless(&self, arguments: &[&str]) -> Said {
        let output = Command::cargo_bin("driftless")
            .unwrap()
            .args(arguments)
            .current_dir(self.path())
            .env("NIX_PATH", format!("nixpkgs={}", our_nixpkgs().display()))
            .env("STATE_DIRECTORY", self.path().join("state"))
            .env("NIX_CONFIG", "build-users-group =\nsandbox = false\nsubstitute = false\nexperimental-features = nix-command flakes")
            .timeout(DEADLINE)
            .output()
            .unwrap();
        Said {
            code: output.status.code(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

const WEB: &str = "nodes.web1.tags = [ \"web\" ]; nodes.web2.tags = [ \"web\" \"eu\" ];";

#[test]
fn a_rollout_that_cannot_be_meant_fails_every_verb_that_would_follow_it() {
    let waves = "rollout.waves = [ { on = \"@web\"; } { on = \"@eu\"; } ];";
    let desk = Desk::new(&format!("{waves} {WEB} nodes.db1.after = [ \"wbe1\" ];"));
    let mistakes = [
        "rollout.waves[1].on: web2 is in wave 1 (`@web`) and in wave 2 (`@eu`); let only one of them select it",
        "rollout.waves: db1 is in no wave; add one with on = \"*\" for the rest",
        "nodes.db1.after[0]: no node matches \"wbe1\"; the nodes are db1, web1, web2; the tags are @eu, @web",
    ];
    let said = desk.driftless(&["check"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.out.contains(&mistakes.join("\n")), "{}", said.out);
    assert!(said.out.contains("All 3 pass, but 3 things that are declared cannot be meant."), "{}", said.out);
    let document: Value = serde_json::from_str(&desk.driftless(&["check", "--format", "json"]).out).unwrap();
    assert_eq!(document["misdeclared"][0]["place"], "rollout.waves[1].on", "{document:#}");
    assert_eq!(document["nodes"]["web1"]["result"], "evaluates");
    for verb in ["plan", "build", "deploy"] {
        let arguments: &[&str] = match verb {
            "plan" => &["plan", "--file", "deployment.nix"],
            _ => &[verb],
        };
        let said = desk.driftless(arguments);
        assert_eq!(said.code, Some(1), "{verb}: {said:?}");
        assert!(said.err.contains("declares what cannot be meant:"), "{verb}: {}", said.err);
        assert!(mistakes.iter().all(|mistake| said.err.contains(mistake)), "{verb}: {}", said.err);
    }
    // What has nothing to do with a rollout goes on.
    let said = desk.driftless(&["secrets", "list", "--file", "deployment.nix"]);
    assert_eq!(said.code, Some(0), "{said:?}");
}

#[test]
fn a_mistake_in_a_document_is_said_with_its_place() {
    for (rollout, expected) in [
        (
            "windows = [ { timeZone = \"UTC\"; } { timeZone = \"Europe/Berln\"; } ]",
            "rollout.windows[1].timeZone: \"Europe/Berln\" is not a time zone: expected a name of the IANA database",
        ),
        (
            "waves = [ { on = \"@web\"; } { on = \"web1 web2\"; } ]",
            "rollout.waves[1].on: \"web1 web2\" at character 1 of the selector \"web1 web2\" is neither a name",
        ),
        ("windows = [ { from = \"2026-02-30\"; timeZone = \"UTC\"; } ]", "rollout.windows[0].from: "),
        (
            "waves = [ { on = \"*\"; order = [ \"(web1\" ]; } ]",
            "rollout.waves[0].order[0]: the parenthesis at character 1",
        ),
    ] {
        let said = Desk::new(&format!("{WEB} rollout.{rollout};")).driftless(&["check"]);
        assert_eq!(said.code, Some(1), "{said:?}");
        assert!(said.err.contains(expected), "{rollout}: {}", said.err);
    }
    // Of a node it is the node's own.
    let said = Desk::new(&format!("{WEB} nodes.db1.after = [ \"web1 or\" ];")).driftless(&["check"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(
        said.out.contains("after[0]: the selector \"web1 or\" has an empty part at character 8"),
        "{}",
        said.out
    );
    assert!(said.out.contains("1 of 3 fail."), "{}", said.out);
}

#[test]
fn some_nodes_are_chosen_by_a_whole_expression() {
    let said = Desk::new(WEB).driftless(&["check", "--on", "@web and not (web1 or @us)"]);
    assert!(said.err.contains("no node matches \"@us\""), "{said:?}");
    let said = Desk::new(WEB).driftless(&["check", "--on", "@web and not web1"]);
    assert!(said.out.contains("web2  evaluates") && !said.out.contains("web1"), "{said:?}");
    let said = Desk::new(WEB).driftless(&["check", "--on", "web1 web2"]);
    assert_eq!(said.code, Some(64), "{said:?}");
}
