//! From here to where it runs: builders, signatures, binary caches, nodes that build for themselves. Real Nix on all sides.

mod target;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use driftless::config::NixConfig;
use driftless::model::node::NodeSpec;
use driftless::model::store_path::StorePath;
use driftless::nix::{CopyFault, CopyTarget, Nix, NixError, Publication, Substitute};
use driftless_lab::{Lab, Node, Setup, Sudo, System, User};

use crate::beginning::{NIX_CONFIG, built};

/// A signing key, a cache, and the nix programs with a state directory.
struct World {
    dir: tempfile::TempDir,
    public_key: String,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let [secret, public] = ["secret", "public"].map(|name| dir.path().join(name));
        let made = Command::new("nix-store")
            .args(["--generate-binary-cache-key", "fleet-1"])
            .args([&secret, &public])
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        Self { public_key: std::fs::read_to_string(public).unwrap().trim().to_owned(), dir }
    }

    fn key(&self) -> PathBuf {
        self.dir.path().join("secret")
    }

    /// With these lines under `[nix]`, as they are written in driftless.toml.
    fn nix(&self, lines: &str) -> Nix {
        let mut config: NixConfig = toml::from_str(lines).unwrap();
        for (name, value) in [("build-users-group", ""), ("sandbox", "false"), ("substitute", "false")] {
            config.options.insert(name.into(), value.into());
        }
        Nix::new(&config, &self.dir.path().join("state")).unwrap()
    }

    fn signing(&self, more: &str) -> Nix {
        self.nix(&format!("signing_key_file = \"{}\"\n{more}", self.key().display()))
    }
}

/// New paths, each referring to `shared` and to one of its own. Other ones in every test and run.
fn systems(test: &str, count: usize) -> Vec<StorePath> {
    let tag = format!("{test}-{}-{}", std::process::id(), jiff::Timestamp::now().as_nanosecond());
    let expression = format!(
        r#"let
             make = name: refers: derivation {{
               inherit name refers; system = builtins.currentSystem; builder = "/bin/sh"; PATH = "/usr/bin:/bin";
               args = [ "-euc" "echo $name {tag} $refers > $out; head -c 300000 /dev/urandom >> $out" ];
             }};
             shared = make "shared" [ ];
           in builtins.genList (i: make "system-${{toString i}}" [ shared (make "own-${{toString i}}" [ ]) ]) {count}"#
    );
    built(&expression).lines().map(|line| line.parse().unwrap()).collect()
}

/// What a cache has: for each compressed file the text of the narinfo that names it.
fn contents(cache: &Path) -> BTreeMap<String, String> {
    let files = std::fs::read_dir(cache).into_iter().flatten().flatten().map(|entry| entry.path());
    let infos = files.filter(|path| path.extension().is_some_and(|ext| ext == "narinfo"));
    infos
        .map(|path| {
            let text = std::fs::read_to_string(path).unwrap();
            let url = text.lines().find_map(|line| line.strip_prefix("URL: ")).unwrap().to_owned();
            (url, text)
        })
        .collect()
}

#[tokio::test]
async fn what_nodes_share_is_compressed_and_signed_once_however_many_ask_at_a_time() {
    let world = World::new();
    let cache = world.dir.path().join("cache");
    let url = format!("file://{}", cache.display());
    let nix = world.signing(&format!("cache = {{ url = \"{url}\" }}"));
    let systems = systems("shared", 8);
    let publications = systems.iter().map(|system| {
        let (nix, system) = (nix.clone(), system.clone());
        tokio::spawn(async move { nix.publish(&[system]).await })
    });
    for publication in publications.collect::<Vec<_>>() {
        assert_eq!(publication.await.unwrap(), Publication::Done);
    }
    let first = contents(&cache);
    assert_eq!(first.len(), 8 + 8 + 1, "each path once: {first:?}");
    let as_it_should_be =
        |text: &String| text.contains("\nSig: fleet-1:") && text.contains("\nCompression: zstd");
    assert!(first.values().all(as_it_should_be), "{first:?}");
    let written = |path: &str| std::fs::metadata(cache.join(path)).unwrap().modified().unwrap();
    let times: Vec<_> = first.keys().map(|path| written(path)).collect();
    assert_eq!(nix.publish(&systems).await, Publication::Done);
    assert_eq!(times, first.keys().map(|path| written(path)).collect::<Vec<_>>(), "nothing is written again");
}

#[tokio::test]
async fn a_cache_that_is_down_is_waited_for_once_and_a_key_that_is_none_is_named() {
    let world = World::new();
    let system = systems("down", 1);
    // Nobody listens on the port of discard(9).
    let nix = world.nix("cache = { url = \"http://127.0.0.1:9\" }");
    let began = Instant::now();
    let Publication::Failed(said) = nix.publish(&system).await else { panic!("nobody is there") };
    println!("{said}\nafter {:?}", began.elapsed());
    assert!(said.starts_with("cannot push to the binary cache http://127.0.0.1:9"), "{said}");
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    let began = Instant::now();
    assert_eq!(nix.publish(&system).await, Publication::Failed(said));
    assert!(
        began.elapsed() < Duration::from_millis(100),
        "the next node does not wait: {:?}",
        began.elapsed()
    );

    std::fs::write(world.key(), "fleet-1:nonsense").unwrap();
    let Publication::Failed(said) = world.signing("").publish(&system).await else { panic!("no key") };
    assert!(said.contains("is no signing key") && !said.contains("nonsense"), "{said}");
    let error = world.signing("").check_signing_key().unwrap_err();
    assert!(matches!(error, NixError::Key { .. }), "{error}");
    assert_eq!(world.nix("").publish(&system).await, Publication::NotAsked);
}

#[test]
fn a_controller_does_not_start_with_a_key_that_it_cannot_use() {
    let world = World::new();
    let dir = world.dir.path();
    for (key, words) in [
        ("none", ["cannot read the signing key", "correct nix.signing_key_file"]),
        ("public", ["it is the public key", "nix-store --generate-binary-cache-key"]),
    ] {
        let config = format!(
            "[source]\nurl = \"{0}\"\n[nix]\nsigning_key_file = \"{0}/{key}\"\n[serve]\nsocket = \"{0}/r/control.sock\"\n",
            dir.display()
        );
        std::fs::write(dir.join("driftless.toml"), config).unwrap();
        let run = Command::new(env!("CARGO_BIN_EXE_driftless"))
            .args(["run", "--config"])
            .arg(dir.join("driftless.toml"))
            .env("STATE_DIRECTORY", dir.join("state"))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&run.stderr);
        assert!(!run.status.success(), "{said}");
        assert!(words.iter().all(|word| said.contains(word)), "{said}");
    }
}

/// A node that trusts the key of `world`, and nobody who logs in but root.
fn node(lab: &Lab, world: &World) -> Node {
    let setup = Setup {
        users: vec![User { name: "deploy".into(), sudo: Sudo::Never }],
        nix_conf: vec![
            "require-sigs = true".into(),
            "trusted-users = root".into(),
            "substitute = true".into(),
            "substituters = file:///var/cache/fleet".into(),
            format!("trusted-public-keys = {}", world.public_key),
        ],
        ..Setup::default()
    };
    lab.node_with("n1", &System::new("shipping").build().unwrap(), &setup).unwrap()
}

fn target(lab: &Lab, host: &str, substitute: Substitute) -> CopyTarget {
    let ssh_options = vec!["-F".into(), lab.ssh_config().display().to_string()];
    CopyTarget { host: host.into(), ssh_options, escalation: vec!["sudo".into()], substitute }
}

#[tokio::test]
async fn a_node_takes_signed_paths_from_anybody_and_cached_ones_from_the_cache() {
    let (lab, world) = (Lab::start().unwrap(), World::new());
    let node = node(&lab, &world);
    let [unsigned, signed, cached] =
        systems("signed", 3).try_into().unwrap_or_else(|_| panic!("three systems"));
    let has =
        |path: &StorePath| node.ssh(["nix-store", "--check-validity", path.as_str()]).unwrap().success();

    // Neither trusted nor root: what is not signed is refused, and sudo is no way around that.
    let deploy = target(&lab, "deploy@n1", Substitute::Never);
    let plain = CopyTarget { escalation: Vec::new(), ..deploy.clone() };
    let error = world.nix("").copy(&plain, &[unsigned], |_| {}).await.unwrap_err();
    assert!(matches!(error, NixError::Copy { fault: CopyFault::Signature, .. }), "{error}");
    assert!(error.to_string().contains("nix.signing_key_file"), "{error}");

    let nix = world.signing("");
    assert_eq!(nix.publish(std::slice::from_ref(&signed)).await, Publication::Done);
    nix.copy(&deploy, std::slice::from_ref(&signed), |_| {}).await.unwrap();
    assert!(has(&signed));

    let cache = format!("cache = {{ url = \"file://{}\" }}", node.path("/var/cache/fleet").display());
    let nix = world.signing(&cache);
    assert_eq!(nix.publish(std::slice::from_ref(&cached)).await, Publication::Done);
    let mut from_here = 0;
    let deploy = CopyTarget { substitute: Substitute::OnDestination, ..deploy };
    nix.copy(&deploy, std::slice::from_ref(&cached), |now| from_here = now.paths_total).await.unwrap();
    assert!(has(&cached));
    assert_eq!(from_here, 0, "the node has it from its cache");
}

#[tokio::test]
async fn a_builder_builds_for_the_machine_that_deploys_and_a_node_for_itself() {
    let (lab, world) = (Lab::start().unwrap(), World::new());
    let node = node(&lab, &world);
    let host_key = Command::new("sh")
        .args(["-c", "printf %s \"$1\" | base64 -w0", "sh", node.host_key()])
        .output()
        .unwrap();
    let line = format!(
        "ssh-ng://root@{} x86_64-linux {} 1 1 - - {}",
        node.address(),
        lab.identity().display(),
        String::from_utf8(host_key.stdout).unwrap().trim()
    );
    let nix = world.nix(&format!("builders = [{line:?}]\noptions = {{ max-jobs = \"0\" }}"));
    let drv = derivation("built-elsewhere", "cat /proc/sys/kernel/hostname > $out");
    let out = output(&drv);
    let spec: NodeSpec =
        serde_json::from_value(serde_json::json!({ "drv": drv, "toplevel": out, "system": "x86_64-linux" }))
            .unwrap();
    nix.realise(&"web".parse().unwrap(), &spec, &world.dir.path().join("root")).await.unwrap();
    let said = std::fs::read_to_string(&out).unwrap();
    assert_eq!(said.trim(), "n1");

    // By a user whom the node trusts in nothing, and who is no root.
    let deploy = target(&lab, "deploy@n1", Substitute::Never);
    let good = derivation("built-there", "cat /proc/sys/kernel/hostname > $out");
    let nix = world.nix("");
    nix.build_on(&deploy, &[good.parse().unwrap()], |_| {}).await.unwrap();
    let out = output(&good);
    assert!(!Path::new(&out).exists());
    assert_eq!(node.ssh(["cat", &out]).unwrap().stdout.trim(), "n1");
    let bad = derivation("broken-there", "echo it went wrong; exit 3");
    let error = nix.build_on(&deploy, &[bad.parse().unwrap()], |_| {}).await.unwrap_err();
    let said = error.to_string();
    assert!(matches!(&error, NixError::RemoteBuild { failed, .. } if failed.as_str() == bad), "{error:?}");
    assert!(said.contains("does not build on deploy@n1") && said.contains("it went wrong"), "{said}");
    node.stop_sshd().unwrap();
    let error = nix.build_on(&deploy, &[bad.parse().unwrap()], |_| {}).await.unwrap_err();
    assert!(error.may_pass(), "{error}");
}

/// A new derivation: its path.
fn derivation(name: &str, script: &str) -> String {
    let tag = jiff::Timestamp::now().as_nanosecond();
    let expression = format!(
        "derivation {{ name = \"{name}\"; system = \"x86_64-linux\"; builder = \"/bin/sh\"; PATH = \"/usr/bin:/bin\"; \
         args = [ \"-euc\" \": {tag}; {script}\" ]; }}"
    );
    let made = Command::new("nix-instantiate")
        .args(["-E", &expression])
        .env("NIX_CONFIG", NIX_CONFIG)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    String::from_utf8(made.stdout).unwrap().trim().to_owned()
}

fn output(drv: &str) -> String {
    let said =
        Command::new("nix-store").args(["--query", drv]).env("NIX_CONFIG", NIX_CONFIG).output().unwrap();
    String::from_utf8(said.stdout).unwrap().trim().to_owned()
}
