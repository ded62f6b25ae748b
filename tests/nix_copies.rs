//! Copies to real nodes: real sshd, real Nix on both sides, real faults. Needs what the lab needs.

use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use driftless::config::NixConfig;
use driftless::model::store_path::StorePath;
use driftless::nix::{CopyFault, CopyProgress, CopyTarget, Nix, NixError, Substitute};
use driftless_lab::{Lab, Node, Setup, Sudo, System, User};
use tempfile::TempDir;

use crate::beginning::{NIX_CONFIG, built};

/// A lab, and the nix programs with a state directory.
struct World {
    lab: Lab,
    system: String,
    state: TempDir,
    config: NixConfig,
}

impl World {
    fn new() -> Self {
        let options = [("build-users-group", ""), ("sandbox", "false"), ("substitute", "false")];
        Self {
            lab: Lab::start().unwrap(),
            system: System::new("copies").build().unwrap(),
            state: tempfile::tempdir().unwrap(),
            config: NixConfig {
                options: options.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
                copy_stall: Duration::from_secs(60),
                ..NixConfig::default()
            },
        }
    }

    fn nix(&self) -> Nix {
        Nix::new(&self.config, self.state.path()).unwrap()
    }

    fn node(&self, setup: &Setup) -> Node {
        self.lab.node_with("n1", &self.system, setup).unwrap()
    }

    fn target(&self, host: &str) -> CopyTarget {
        CopyTarget {
            host: host.into(),
            ssh_options: vec!["-F".into(), self.lab.ssh_config().display().to_string()],
            escalation: Vec::new(),
            substitute: Substitute::Never,
        }
    }

    async fn copy(&self, target: &CopyTarget, path: &StorePath) -> Result<CopyProgress, NixError> {
        let last = Mutex::new(CopyProgress::default());
        self.nix().copy(target, std::slice::from_ref(path), |now| *last.lock().unwrap() = now).await?;
        Ok(last.into_inner().unwrap())
    }
}

/// A path with `count` others that it refers to, `bytes` each; another one in every test and run.
fn paths(test: &str, count: u32, bytes: u32) -> StorePath {
    let tag = format!("{test}-{}-{}", std::process::id(), jiff::Timestamp::now().as_nanosecond());
    let expression = format!(
        r#"let
             make = name: script: refers: derivation {{
               inherit name refers; system = builtins.currentSystem; builder = "/bin/sh"; PATH = "/usr/bin:/bin";
               args = [ "-euc" script ];
             }};
             part = i: make "part-${{toString i}}" "echo {tag}-${{toString i}} > $out; head -c {bytes} /dev/urandom >> $out" [ ];
           in make "{test}" "echo $refers > $out" (builtins.genList part {count})"#
    );
    built(&expression).trim().parse().unwrap()
}

fn has(node: &Node, path: &StorePath) -> bool {
    node.ssh(["nix-store", "--query", "--requisites", path.as_str()]).unwrap().success()
}

fn fault(outcome: Result<CopyProgress, NixError>) -> (CopyFault, String) {
    let error = outcome.expect_err("the copy must fail");
    let text = error.to_string();
    let NixError::Copy { fault, .. } = error else { panic!("{text}") };
    (fault, text)
}

#[tokio::test]
async fn a_closure_of_a_hundred_small_paths_arrives_through_a_kept_connection() {
    let world = World::new();
    let node = world.node(&Setup::default());
    let path = paths("hundred", 100, 1_000);
    let socket = world.lab.dir().join("kept");
    let mut kept = Command::new("ssh")
        .arg("-F")
        .arg(world.lab.ssh_config())
        .args(["-M", "-N", "-o", "ControlPersist=no", "-S"])
        .arg(&socket)
        .arg("n1")
        .spawn()
        .unwrap();
    let since = Instant::now();
    while !socket.exists() {
        assert!(since.elapsed() < Duration::from_secs(20), "no connection");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let mut target = world.target("n1");
    // Without the lab's configuration there is no way in but the socket.
    target.ssh_options = vec!["-F".into(), "none".into(), "-S".into(), socket.display().to_string()];
    let started = Instant::now();
    let last = world.copy(&target, &path).await.unwrap();
    println!("101 paths took {:?}", started.elapsed());
    assert!(has(&node, &path));
    assert_eq!((last.paths_done, last.paths_total), (101, 101));

    let again = world.copy(&target, &path).await.unwrap();
    assert_eq!(again.paths_done, 0, "nothing is copied twice");
    kept.kill().unwrap();
    kept.wait().unwrap();
}

#[tokio::test]
async fn a_node_without_a_daemon_gets_its_closure_by_the_legacy_protocol() {
    let world = World::new();
    // A command over SSH finds this one first.
    let missing = "#!/bin/sh\necho 'sh: nix-daemon: command not found' >&2; exit 127\n";
    let setup = Setup {
        bashrc: Some(
            "mkdir -p /run/early; printf '%s' \"$EARLY\" > /dev/null; PATH=/run/early:$PATH\n".into(),
        ),
        files: vec![("/root/nix-daemon".into(), missing.into())],
        ..Setup::default()
    };
    let node = world.node(&setup);
    node.enter("mkdir -p /run/early && install -m 755 /root/nix-daemon /run/early/nix-daemon")
        .unwrap()
        .ok()
        .unwrap();
    let path = paths("legacy", 3, 10);
    world.copy(&world.target("n1"), &path).await.unwrap();
    assert!(has(&node, &path));
}

#[tokio::test]
async fn a_wire_that_is_cut_in_the_middle_ends_the_copy_by_its_no_progress_deadline() {
    let mut world = World::new();
    world.config.copy_stall = Duration::from_secs(3);
    let node = world.node(&Setup::default());
    let path = paths("stall", 4, 30_000_000);
    let link = Mutex::new(Some(node.link()));
    let started = Instant::now();
    let outcome = world
        .nix()
        .copy(&world.target("n1"), std::slice::from_ref(&path), |now| {
            // 2.8 tells no bytes before the first path is through, so both count.
            if (now.bytes_sent > 1_000_000 || now.paths_done > 0)
                && let Some(link) = link.lock().unwrap().take()
            {
                link.cut().unwrap();
            }
        })
        .await;
    let took = started.elapsed();
    node.link().restore().unwrap();
    let error = outcome.expect_err("nothing can arrive");
    assert!(matches!(&error, NixError::Copy { fault: CopyFault::Stalled { .. }, .. }), "{error}");
    assert!(took < Duration::from_secs(30), "{took:?}");
}

#[tokio::test]
async fn a_login_shell_that_prints_a_banner_is_quoted() {
    let world = World::new();
    let setup = Setup { bashrc: Some("echo Welcome to the machine\n".into()), ..Setup::default() };
    let _node = world.node(&setup);
    let (fault, text) = fault(world.copy(&world.target("n1"), &paths("banner", 0, 0)).await);
    assert_eq!(fault, CopyFault::Banner { text: Some("Welcome to the machine".into()) }, "{text}");
}

#[tokio::test]
async fn a_node_that_does_not_listen_is_a_failed_connection() {
    let world = World::new();
    let node = world.node(&Setup::default());
    node.stop_sshd().unwrap();
    let (fault, text) = fault(world.copy(&world.target("n1"), &paths("refused", 0, 0)).await);
    assert_eq!(fault, CopyFault::Connection, "{text}");
    assert!(text.contains("Connection refused"), "{text}");
}

#[tokio::test]
async fn a_full_disk_of_the_node_is_named() {
    let world = World::new();
    // Not full before the copy: Nix's database could not even be opened then.
    let _node = world.node(&Setup { nix_bytes: 32 << 20, ..Setup::default() });
    let (fault, text) = fault(world.copy(&world.target("n1"), &paths("full", 2, 20_000_000)).await);
    assert_eq!(fault, CopyFault::NoSpace, "{text}");
}

#[tokio::test]
async fn an_untrusted_user_needs_signatures_and_escalation_does_without() {
    let world = World::new();
    let setup = Setup {
        users: vec![User { name: "deploy".into(), sudo: Sudo::WithoutPassword }],
        nix_conf: vec!["require-sigs = true".into(), "trusted-users = root".into()],
        ..Setup::default()
    };
    let node = world.node(&setup);
    let path = paths("signed", 1, 10);
    let mut target = world.target("deploy@n1");
    let (fault, text) = fault(world.copy(&target, &path).await);
    assert_eq!(fault, CopyFault::Signature, "{text}");
    target.escalation = vec!["sudo".into()];
    world.copy(&target, &path).await.unwrap();
    assert!(has(&node, &path));
}

#[tokio::test]
async fn what_the_nodes_own_cache_has_does_not_cross_the_wire() {
    let world = World::new();
    let setup = Setup {
        nix_conf: vec![
            "substitute = true".into(),
            "substituters = file:///var/cache/nearby".into(),
            "require-sigs = false".into(),
        ],
        ..Setup::default()
    };
    let node = world.node(&setup);
    let path = paths("nearby", 3, 1_000_000);
    let cache = format!("file://{}", node.path("/var/cache/nearby").display());
    let filled = Command::new("nix")
        .args(["--extra-experimental-features", "nix-command", "copy", "--to", &cache, path.as_str()])
        .env("NIX_CONFIG", NIX_CONFIG)
        .output()
        .unwrap();
    assert!(filled.status.success(), "{}", String::from_utf8_lossy(&filled.stderr));
    let mut target = world.target("n1");
    target.substitute = Substitute::OnDestination;
    let last = world.copy(&target, &path).await.unwrap();
    assert!(has(&node, &path));
    assert_eq!(last.paths_total, 0, "{last:?}");
}

#[tokio::test]
async fn a_node_whose_cache_is_out_of_reach_gets_its_closure_from_here() {
    let world = World::new();
    let setup = Setup {
        nix_conf: vec!["substitute = true".into(), "substituters = https://cache.invalid".into()],
        ..Setup::default()
    };
    let node = world.node(&setup);
    let path = paths("unreachable", 3, 10);
    let mut target = world.target("n1");
    target.substitute = Substitute::OnDestination;
    world.copy(&target, &path).await.unwrap();
    assert!(has(&node, &path));
}

#[tokio::test]
async fn this_machine_needs_no_copy_and_blanks_in_options_are_refused() {
    let state = tempfile::tempdir().unwrap();
    let nix = Nix::new(&NixConfig::default(), state.path()).unwrap();
    let path: StorePath = "/nix/store/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-x".parse().unwrap();
    let mut target = CopyTarget {
        host: "localhost".into(),
        ssh_options: vec!["-o".into(), "User nobody".into()],
        escalation: Vec::new(),
        substitute: Substitute::OnDestination,
    };
    nix.copy(&target, std::slice::from_ref(&path), |_| panic!("nothing to tell")).await.unwrap();
    target.host = "web".into();
    let error = nix.copy(&target, &[path], |_| {}).await.unwrap_err();
    assert!(matches!(error, NixError::SshOption { .. }), "{error}");
}
