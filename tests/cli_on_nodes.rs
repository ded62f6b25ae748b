//! The verbs that go to nodes, without a controller, as a `./result` script runs them: the real program, lab nodes.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use assert_cmd::Command;
use driftless_lab::{Fault, Lab, Node, System};
use serde_json::{Value, json};

/// A switch that waits for all of its deadlines takes half a minute.
const DEADLINE: Duration = Duration::from_secs(180);

/// Lab nodes, and a directory with a configuration and releases for them.
struct Fleet {
    nodes: Vec<Node>,
    folder: tempfile::TempDir,
    _lab: Lab,
}

/// What the program did.
#[derive(Debug)]
struct Said {
    code: i32,
    out: String,
    err: String,
}

impl Fleet {
    fn new(names: &[&str], first: &str) -> Self {
        let lab = Lab::start().unwrap();
        let nodes = lab.nodes(names, first).unwrap();
        let folder = tempfile::Builder::new().prefix("dl").tempdir_in("/tmp").unwrap();
        let configuration = format!(
            "[source]\nurl = \"/nowhere\"\n[ssh]\nidentity_file = {:?}\n[serve]\nsocket = {:?}\n",
            lab.identity().display().to_string(),
            folder.path().join("control.sock").display().to_string()
        );
        fs::write(folder.path().join("driftless.toml"), configuration).unwrap();
        Self { nodes, folder, _lab: lab }
    }

    /// Writes a release that gives each node its system, as `nix-build deployment.nix` does.
    fn release(&self, systems: &[&str]) -> PathBuf {
        let nodes: serde_json::Map<String, Value> = self
            .nodes
            .iter()
            .zip(systems)
            .map(|(node, system)| {
                let spec = json!({
                    "drv": format!("{system}.drv"),
                    "toplevel": system,
                    "system": "x86_64-linux",
                    "host": format!("root@{}", node.address()),
                    "hostKeys": [node.host_key()],
                    "hasFastConnection": true,
                    "switchTimeout": 30,
                    "successTimeout": 8,
                    "healthTimeout": 8,
                });
                (node.name().to_owned(), spec)
            })
            .collect();
        let path = self.folder.path().join("release.json");
        let manifest = json!({ "version": 1, "format": "driftless", "nodes": nodes });
        fs::write(&path, manifest.to_string()).unwrap();
        path
    }

    fn say(&self, arguments: &[&str]) -> Said {
        let output = Command::new(env!("CARGO_BIN_EXE_driftless"))
            .args(["--config", "driftless.toml"])
            .args(arguments)
            .current_dir(self.folder.path())
            .env_remove("RUST_LOG")
            .env("USER", "alice")
            .env_remove("SUDO_USER")
            .env("STATE_DIRECTORY", self.folder.path().join("state"))
            .env("XDG_RUNTIME_DIR", self.folder.path())
            .env(
                "NIX_CONFIG",
                "build-users-group =\nsandbox = false\nsubstitute = false\nexperimental-features = nix-command flakes",
            )
            .timeout(DEADLINE)
            .write_stdin("")
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Said {
            code: output.status.code().unwrap_or(-1),
            out: text(&output.stdout),
            err: text(&output.stderr),
        }
    }
}

#[test]
fn a_person_deploys_looks_runs_something_and_goes_back() {
    let first = System::new("first").build().unwrap();
    let second = System::new("second").build().unwrap();
    let fleet = Fleet::new(&["web1", "web2"], &first);
    let release = fleet.release(&[&second, &second]);
    let release = release.to_str().unwrap();

    let planned = fleet.say(&["plan", "--release", release, "--detailed-exitcode"]);
    assert_eq!(planned.code, 2, "{planned:?}");
    assert!(fleet.nodes.iter().all(|node| node.running().unwrap() == first), "a plan changes nothing");

    let deployed = fleet.say(&["deploy", "--release", release]);
    assert_eq!(deployed.code, 0, "{deployed:?}");
    assert!(deployed.out.contains("web1  deployed"), "{deployed:?}");
    for stage in ["[web1] building", "[web1] connecting", "[web2] testing", "[web2] deployed"] {
        assert!(deployed.err.contains(stage), "{stage}: {deployed:?}");
    }
    assert!(fleet.nodes.iter().all(|node| node.running().unwrap() == second));
    assert!(fleet.nodes.iter().all(|node| node.boot_default().unwrap() == second));

    let again = fleet.say(&["deploy", "--release", release]);
    assert!(again.code == 0 && again.out.contains("web1  in sync"), "{again:?}");
    let planned = fleet.say(&["plan", "--release", release, "--detailed-exitcode"]);
    assert_eq!(planned.code, 0, "{planned:?}");
    let status = fleet.say(&["status", "--release", release]);
    assert!(
        status.out.contains("web1  in sync") && status.out.contains("2 of 2 nodes in sync"),
        "{status:?}"
    );
    let report = fleet.say(&["report", "--release", release]);
    assert_eq!(report.out, "Nothing to report: all 2 nodes are what Git says.\n", "{report:?}");

    let ran = fleet.say(&[
        "exec",
        "--release",
        release,
        "--on",
        "web2",
        "--",
        "sh",
        "-c",
        "cat /etc/hostname; exit 3",
    ]);
    assert_eq!(
        (ran.code, ran.out.as_str(), ran.err.as_str()),
        (1, "[web2] web2\n", "error: web2: exit code 3\n")
    );

    // A switch that only makes it the boot default again is not what brought it: a rollback goes behind that.
    let unpersist = format!("nix-env -p /nix/var/nix/profiles/system --set {first}");
    fleet.nodes[1].enter(&unpersist).unwrap().ok().unwrap();
    let persisted = fleet.say(&["deploy", "--release", release, "--on", "web2"]);
    assert_eq!(persisted.code, 0, "{persisted:?}");
    let back = fleet.say(&["rollback", "--release", release, "--on", "web2"]);
    assert_eq!(back.code, 0, "{back:?}");
    assert_eq!(fleet.nodes[1].running().unwrap(), first);
    assert_eq!(fleet.nodes[0].running().unwrap(), second);
    let history = fleet.say(&["history", "--release", release, "--on", "web2", "--format", "json"]);
    let history: Value = serde_json::from_str(&history.out).unwrap();
    let systems: Vec<&str> =
        history["web2"].as_array().unwrap().iter().map(|entry| entry["system"].as_str().unwrap()).collect();
    assert_eq!(systems, [&first, &second, &second], "newest first");
    assert!(history["web2"][0]["asker"].as_str().unwrap().starts_with("alice@"));
    let held = fleet.say(&["status", "--release", release, "--on", "web2"]);
    assert!(held.out.contains("rolled back by hand"), "the pin says why: {held:?}");
    let planned = fleet.say(&["plan", "--release", release, "--on", "web2"]);
    assert!(planned.out.contains("web2  deploy"), "a pin keeps no person off: {planned:?}");
}

#[test]
fn a_failed_deployment_says_which_node_why_and_what_to_type_next() {
    let first = System::new("first").build().unwrap();
    let good = System::new("good").build().unwrap();
    let bad = System::new("bad").fault(Fault::ActivationFails).build().unwrap();
    let fleet = Fleet::new(&["good", "bad"], &first);
    let release = fleet.release(&[&good, &bad]);
    let release = release.to_str().unwrap();

    let deployed = fleet.say(&["deploy", "--release", release]);
    assert_eq!(deployed.code, 1, "{deployed:?}");
    assert!(
        deployed.out.contains("good  deployed") && deployed.out.contains("bad   rolled back"),
        "{deployed:?}"
    );
    let complaint = "error: bad rolled back: activation failed";
    assert!(
        deployed.err.contains(complaint) && deployed.err.contains("see `driftless logs bad`"),
        "{deployed:?}"
    );
    assert_eq!(fleet.nodes[0].running().unwrap(), good);
    assert_eq!(fleet.nodes[1].running().unwrap(), first);

    let logs = fleet.say(&["logs", "bad", "--release", release]);
    assert!(logs.code == 0 && logs.out.contains("driftless:"), "{logs:?}");
    let status = fleet.say(&["status", "--release", release]);
    assert!(
        status.out.contains("bad   rolled back") && status.out.contains("driftless retry bad"),
        "{status:?}"
    );
    let report = fleet.say(&["report", "--release", release, "--format", "markdown"]);
    assert!(report.out.contains("## bad") && !report.out.contains("## good"), "{report:?}");
    let retried = fleet.say(&["retry", "bad", "--release", release]);
    assert_eq!(retried.code, 0, "{retried:?}");
    let planned = fleet.say(&["plan", "--release", release, "--on", "bad"]);
    assert!(planned.out.contains("bad   deploy"), "{planned:?}");
}

#[test]
fn a_push_copies_and_switches_nothing_and_a_node_that_is_away_stops_nobody() {
    let first = System::new("first").build().unwrap();
    let second = System::new("second").build().unwrap();
    let fleet = Fleet::new(&["here", "away"], &first);
    let release = fleet.release(&[&second, &second]);
    let release = release.to_str().unwrap();
    fleet.nodes[1].stop_sshd().unwrap();

    let pushed = fleet.say(&["push", "--release", release]);
    assert_eq!(pushed.code, 1, "{pushed:?}");
    assert!(pushed.out.contains("here  copied") && pushed.out.contains("away  failed"), "{pushed:?}");
    assert!(pushed.err.contains("error: away failed: cannot connect to"), "{pushed:?}");
    assert_eq!(fleet.nodes[0].running().unwrap(), first);
    assert!(fleet.nodes[0].enter(&format!("test -e {second}")).unwrap().success());
    let status = fleet.say(&["status", "--release", release]);
    assert!(status.out.contains("away  unreachable"), "{status:?}");
}

#[test]
fn a_node_goes_back_to_a_system_that_is_no_longer_here() {
    // A text of its own: the system is deleted from a store that other tests use.
    let text = format!("gone-{}", std::process::id());
    let first = System::new(&text).build().unwrap();
    let second = System::new("second").build().unwrap();
    let fleet = Fleet::new(&["web1"], &first);
    let release = fleet.release(&[&second]);
    let release = release.to_str().unwrap();
    let deployed = fleet.say(&["deploy", "--release", release]);
    assert_eq!(deployed.code, 0, "{deployed:?}");
    let deleted =
        std::process::Command::new("nix-store").args(["--delete", "--ignore-liveness", &first]).output();
    assert!(deleted.unwrap().status.success() && !std::path::Path::new(&first).exists());

    let back = fleet.say(&["rollback", "--release", release, "--on", "*"]);
    assert_eq!(back.code, 0, "{back:?}");
    assert_eq!(fleet.nodes[0].running().unwrap(), first);
}

#[test]
fn a_system_that_only_a_reboot_can_start_is_rebooted_into_and_kept_if_it_is_well() {
    let first = System::new("first").build().unwrap();
    let only_by_reboot = |text: &str| System::new(text).init_interface("3");
    let good = only_by_reboot("good").build().unwrap();
    let bad = only_by_reboot("bad").fault(Fault::PanicAtBoot).build().unwrap();
    let fleet = Fleet::new(&["good", "bad"], &first);
    let release = fleet.release(&[&good, &bad]);
    let release = release.to_str().unwrap();

    let refused = fleet.say(&["deploy", "--release", release, "--on", "good"]);
    assert_eq!(refused.code, 1, "{refused:?}");
    let status = fleet.say(&["status", "--release", release, "--on", "good"]);
    assert!(status.out.contains("`driftless deploy --on good --goal boot`"), "{status:?}");

    let staged = fleet.say(&["deploy", "--release", release, "--on", "good", "--goal", "boot"]);
    assert!(staged.code == 0 && staged.out.contains("good  staged"), "{staged:?}");
    assert_eq!(fleet.nodes[0].loader_default().unwrap(), first);
    let status = fleet.say(&["status", "--release", release, "--on", "good"]);
    assert!(status.out.contains("good  held") && status.out.contains("boots it once"), "{status:?}");

    let deployed = fleet.say(&["deploy", "--release", release, "--goal", "boot", "--reboot"]);
    assert_eq!(deployed.code, 1, "{deployed:?}");
    assert!(
        deployed.out.contains("good  deployed") && deployed.out.contains("bad   did not boot"),
        "{deployed:?}"
    );
    assert_eq!([0, 1].map(|n| fleet.nodes[n].running().unwrap()), [good.clone(), first.clone()]);
    assert_eq!([0, 1].map(|n| fleet.nodes[n].loader_default().unwrap()), [good.clone(), first.clone()]);
    let status = fleet.say(&["status", "--release", release]);
    assert!(status.out.contains("did not come up when it was to be booted once"), "{status:?}");
    let back = fleet.say(&["rollback", "--release", release, "--on", "good"]);
    assert!(back.err.contains("only a reboot can start this system"), "{back:?}");
}
