//! The command line as a person meets it: the real program, its help, its exit codes, and what it says when something
//! is wrong.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use assert_cmd::Command;
use tempfile::TempDir;

/// Evaluating three small nodes takes about a second.
const DEADLINE: Duration = Duration::from_secs(120);

const VERBS: [&str; 24] = [
    "run",
    "plan",
    "status",
    "report",
    "deploy",
    "build",
    "push",
    "diff",
    "rollback",
    "retry",
    "suspend",
    "resume",
    "approve",
    "override",
    "sync",
    "accept-history",
    "history",
    "logs",
    "exec",
    "ssh",
    "secrets",
    "check",
    "init",
    "completions",
];

/// A directory to stand in, with nothing of the machine's own configuration.
struct Desk {
    folder: TempDir,
}

/// What the program did.
struct Said {
    code: i32,
    out: String,
    err: String,
}

impl Desk {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("work")).unwrap();
        Self { folder }
    }

    /// Where the program is started.
    fn path(&self) -> PathBuf {
        self.folder.path().join("work")
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path().join(name), text).unwrap();
    }

    /// A deployment in our format; each node with the body of its configuration.
    fn deployment(&self, nodes: &[(&str, &str)]) {
        let base = "boot.isContainer = true; system.stateVersion = \"24.05\";";
        let nodes: String = nodes
            .iter()
            .map(|(name, body)| {
                format!("nodes.{name} = {{ configuration = {{ pkgs, ... }}: {{ {base} {body} }}; }};\n")
            })
            .collect();
        let entry = Path::new(env!("CARGO_MANIFEST_DIR")).join("nix");
        self.write(
            "deployment.nix",
            &format!(
                "import {} {{ }} ({{ ... }}: {{ defaults = {{ ... }}: {{ nixpkgs = <nixpkgs>; }}; {nodes} }})",
                entry.display()
            ),
        );
    }

    /// A configuration whose socket nobody listens on.
    fn configuration(&self, more: &str) {
        let socket = self.path().join("control.sock");
        self.write(
            "driftless.toml",
            &format!(
                "[source]\nurl = \"/nowhere\"\n{more}\n[serve]\nsocket = {:?}\n",
                socket.display().to_string()
            ),
        );
    }

    fn say(&self, arguments: &[&str]) -> Said {
        let nixpkgs = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/nixpkgs");
        let output = Command::new(env!("CARGO_BIN_EXE_driftless"))
            .args(arguments)
            .current_dir(self.path())
            .env_remove("DRIFTLESS_CONFIG")
            .env_remove("RUST_LOG")
            .env_remove("JOURNAL_STREAM")
            .env("STATE_DIRECTORY", self.folder.path().join("state"))
            .env("NIX_PATH", format!("nixpkgs={}", nixpkgs.display()))
            .env(
                "NIX_CONFIG",
                "build-users-group =\nsandbox = false\nsubstitute = false\nexperimental-features = nix-command flakes",
            )
            .timeout(DEADLINE)
            .write_stdin("")
            .output()
            .unwrap();
        let text = |bytes: &[u8]| {
            let here = fs::canonicalize(self.path()).unwrap();
            String::from_utf8_lossy(bytes).replace(&here.display().to_string(), "HERE")
        };
        Said {
            code: output.status.code().unwrap_or(-1),
            out: text(&output.stdout),
            err: text(&output.stderr),
        }
    }
}

#[test]
fn every_verb_explains_itself() {
    let desk = Desk::new();
    insta::assert_snapshot!("help", desk.say(&["--help"]).out);
    for verb in VERBS {
        let said = desk.say(&[verb, "-h"]);
        assert_eq!(said.code, 0, "{verb}");
        insta::assert_snapshot!(format!("help-{verb}"), said.out);
    }
    for verb in ["list", "edit", "rekey"] {
        let said = desk.say(&["secrets", verb, "-h"]);
        assert_eq!(said.code, 0, "{verb}");
        insta::assert_snapshot!(format!("help-secrets-{verb}"), said.out);
    }
}

#[test]
fn a_command_line_that_is_not_understood_is_64() {
    let desk = Desk::new();
    for (line, complaint) in [
        (vec!["frobnicate"], "unrecognized subcommand 'frobnicate'"),
        (vec!["status", "--file", "a", "--flake", "b"], "cannot be used with"),
        (vec!["status", "--on", "web1,,web2"], "has an empty part"),
        (vec!["logs", "../etc"], "is not a node name"),
        (vec!["status", "--format", "yaml"], "possible values: text, json"),
    ] {
        let said = desk.say(&line);
        assert_eq!(said.code, 64, "{line:?}: {}", said.err);
        assert!(said.err.contains(complaint), "{line:?}: {}", said.err);
        assert!(said.out.is_empty());
    }
}

#[test]
fn a_missing_configuration_says_which_and_what_to_do() {
    let said = Desk::new().say(&["--config", "/nope/driftless.toml", "run"]);
    assert_eq!(said.code, 1);
    insta::assert_snapshot!(said.err, @"error: cannot read the configuration /nope/driftless.toml; name another with --config, or write one with `driftless init`: No such file or directory (os error 2)");
}

#[test]
fn an_unknown_key_in_the_configuration_is_named_with_its_line() {
    let desk = Desk::new();
    desk.configuration("brunch = \"main\"");
    let said = desk.say(&["--config", "driftless.toml", "status"]);
    assert_eq!(said.code, 1);
    assert!(said.err.contains("driftless.toml is not valid") && said.err.contains("line 3"), "{}", said.err);
    assert!(said.err.contains("unknown field `brunch`"), "{}", said.err);
    assert_eq!(said.err.matches("error:").count(), 1, "an error is printed once: {}", said.err);
}

#[test]
fn without_a_controller_a_look_says_how_to_start_one_or_do_without() {
    let desk = Desk::new();
    desk.configuration("");
    for verb in ["status", "plan", "report", "history", "diff"] {
        let said = desk.say(&["--config", "driftless.toml", verb]);
        assert_eq!(said.code, 1, "{verb}");
        let expected = "error: which fleet? start a controller with `driftless run`, or name a deployment with --file, \
                        --flake or --release: no controller is running: nobody listens on HERE/control.sock\n";
        assert_eq!(said.err, expected, "{verb}");
    }
}

#[test]
fn an_acting_verb_without_a_deployment_says_what_it_looked_for() {
    let desk = Desk::new();
    for verb in ["deploy", "build", "push", "check"] {
        let said = desk.say(&[verb]);
        assert_eq!(said.code, 1, "{verb}");
        assert!(
            said.err.contains("no deployment.nix, flake.nix, hive.nix, network.nix or nixops.nix here"),
            "{verb}: {}",
            said.err
        );
    }
}

#[test]
fn what_reaches_many_nodes_wants_them_named() {
    let desk = Desk::new();
    desk.configuration("");
    for line in [vec!["rollback"], vec!["exec", "--", "reboot"]] {
        let said = desk.say(&line);
        assert_eq!(said.code, 1);
        assert!(said.err.contains("name them with --on"), "{}", said.err);
    }
}

#[test]
fn bash_completions_complete_verbs() {
    let said = Desk::new().say(&["completions", "bash"]);
    assert_eq!(said.code, 0);
    assert!(said.out.contains("complete -F _driftless") && said.out.contains("rollback"));
}

#[test]
fn check_shows_each_node_with_its_own_error_and_builds_the_others() {
    let desk = Desk::new();
    desk.deployment(&[
        ("broken", "environment.etc.x.text = throw \"the secret is missing\";"),
        ("failing", "environment.etc.x.text = \"${pkgs.runCommand \"unlucky\" { } \"echo boom; exit 3\"}\";"),
        ("good", ""),
    ]);
    let evaluated = desk.say(&["check", "--format", "json"]);
    assert_eq!(evaluated.code, 1, "{}", evaluated.err);
    let document: serde_json::Value = serde_json::from_str(&evaluated.out).unwrap();
    assert_eq!(document["format"], "driftless");
    let nodes = &document["nodes"];
    assert_eq!(nodes["broken"]["result"], "does not evaluate");
    assert!(nodes["broken"]["error"].as_str().unwrap().contains("the secret is missing"));
    assert_eq!(
        (&nodes["good"]["result"], &nodes["failing"]["result"]),
        (&"evaluates".into(), &"evaluates".into())
    );

    let built = desk.say(&["check", "--build"]);
    assert_eq!(built.code, 1, "{}", built.err);
    for line in
        ["broken   does not evaluate", "failing  does not build", "good     builds", "boom", "2 of 3 fail."]
    {
        assert!(built.out.contains(line), "{line}: {}", built.out);
    }

    let good = desk.say(&["check", "--build", "--on", "good"]);
    assert_eq!((good.code, good.out.as_str()), (0, "good  builds\n\nAll 1 pass.\n"), "{}", good.err);
}

#[test]
fn build_prints_where_systems_are() {
    let desk = Desk::new();
    desk.deployment(&[("one", ""), ("two", "")]);
    let said = desk.say(&["build", "--on", "t*"]);
    assert_eq!(said.code, 0, "{}", said.err);
    let path = said.out.trim().strip_prefix("two /nix/store/").unwrap();
    assert!(Path::new("/nix/store").join(path).join("bin/switch-to-configuration").exists());
    assert!(said.err.contains("[two] building") && said.err.contains("[two] built"), "{}", said.err);
}

#[test]
fn a_selector_that_means_no_node_names_the_nodes_there_are() {
    let desk = Desk::new();
    desk.deployment(&[("db1", ""), ("web1", "")]);
    let said = desk.say(&["build", "--on", "wbe1"]);
    assert_eq!(said.code, 1);
    assert_eq!(said.err, "error: no node matches \"wbe1\"; the nodes are db1, web1\n");
}

#[test]
fn a_deployment_that_is_broken_as_a_whole_is_named_with_the_reason() {
    let desk = Desk::new();
    desk.write("deployment.nix", "{ nodes = ");
    let said = desk.say(&["check"]);
    assert_eq!(said.code, 1);
    assert!(said.err.contains("syntax error"), "{}", said.err);
    let said = desk.say(&["check", "--file", "gone.nix"]);
    assert!(said.err.starts_with("error: cannot open the deployment gone.nix"), "{}", said.err);
    desk.deployment(&[]);
    let said = desk.say(&["check"]);
    assert_eq!((said.code, said.err.as_str()), (1, "error: ./deployment.nix declares no nodes\n"));
}

#[test]
fn a_release_of_another_version_is_refused() {
    let desk = Desk::new();
    for (text, complaint) in [
        ("{\"version\": 99}", "has version 99, this program understands 1"),
        ("{}", "is not a release"),
        ("hello", "is not a release"),
    ] {
        desk.write("release.json", text);
        let said = desk.say(&["deploy", "--release", "release.json"]);
        assert_eq!(said.code, 1);
        assert!(said.err.contains(complaint), "{}", said.err);
    }
}

#[test]
fn init_writes_once_and_says_what_it_found() {
    let desk = Desk::new();
    let said = desk.say(&["init"]);
    assert!(
        said.err.contains("holds none of deployment.nix, flake.nix, hive.nix, network.nix, nixops.nix"),
        "{}",
        said.err
    );
    desk.deployment(&[]);
    let said = desk.say(&["init"]);
    assert!(said.err.ends_with("`git init` first\n"), "{}", said.err);
    assert!(said.err.contains("is not in a Git repository"), "{}", said.err);
    git2::Repository::init_opts(desk.path(), git2::RepositoryInitOptions::new().initial_head("trunk"))
        .unwrap();
    let said = desk.say(&["init"]);
    assert_eq!(said.code, 0, "{}", said.err);
    insta::assert_snapshot!(said.out, @r"
    Found deployment.nix (driftless) on branch trunk of HERE.
    It declares no nodes yet.
    Wrote HERE/driftless.toml.

    Next:
      driftless check                         evaluate every node
      driftless --config driftless.toml run   follow the branch
    ");
    let written = fs::read_to_string(desk.path().join("driftless.toml")).unwrap();
    assert!(written.contains("branch = \"trunk\"") && written.contains("deployment = \"deployment.nix\""));
    let again = desk.say(&["init"]);
    assert_eq!(again.code, 1);
    assert!(again.err.contains("exists already"), "{}", again.err);
    assert_eq!(fs::read_to_string(desk.path().join("driftless.toml")).unwrap(), written);
}

#[test]
fn init_refuses_a_flake_that_no_controller_could_follow() {
    let desk = Desk::new();
    git2::Repository::init(desk.path()).unwrap();
    fs::create_dir(desk.path().join("machines")).unwrap();
    desk.write("machines/flake.nix", "{ outputs = _: { }; }");
    let said = desk.say(&["init", "--from", "machines"]);
    assert_eq!(said.code, 1);
    assert!(said.err.contains("a controller follows a flake only at the top"), "{}", said.err);
    assert!(!desk.path().join("machines/driftless.toml").exists());
}

#[test]
fn a_plan_of_nodes_that_do_not_answer_is_not_in_sync() {
    let desk = Desk::new();
    // Reserved for documentation and refused at once here: nothing listens on port 1.
    desk.deployment(&[("gone", "")]);
    let text = fs::read_to_string(desk.path().join("deployment.nix")).unwrap();
    desk.write(
        "deployment.nix",
        &text.replace("nodes.gone = {", "nodes.gone = { host = \"root@127.0.0.1\"; port = 1;"),
    );
    let said = desk.say(&["plan", "--detailed-exitcode"]);
    assert_eq!(said.code, 2, "{}{}", said.out, said.err);
    assert!(said.out.contains("gone  hold") && said.out.contains("Connection refused"), "{}", said.out);
    assert_eq!(desk.say(&["plan"]).code, 0);
}
