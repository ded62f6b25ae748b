//! What only shows from inside: how many processes an answer costs, and what an evaluator may know.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use futures_util::future::join_all;
use tempfile::TempDir;
use tokio::sync::mpsc;

use super::*;
use crate::model::name::NodeName;
use crate::model::store_path::StorePath;

const DEPLOYMENT: &str = r#"{ driftless.manifest = {
  format = "driftless"; names = [ "a" "b" ]; rollout = { };
  node = name:
    let system = derivation { inherit name; system = "x86_64-linux"; builder = "/bin/sh"; args = [ "-c" "echo > $out" ]; };
    in { drv = builtins.unsafeDiscardStringContext system.drvPath; toplevel = system.outPath; inherit (system) system; host = name; };
}; }"#;

/// A deployment of two nodes, and programs that count how often they are started.
struct Counted {
    folder: TempDir,
    nix: Nix,
    deployment: Deployment,
}

impl Counted {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let programs = folder.path().join("programs");
        fs::create_dir(&programs).unwrap();
        for program in ["nix", "nix-instantiate", "nix-store"] {
            let log = folder.path().join("started");
            let found = std::env::split_paths(&std::env::var_os("PATH").unwrap())
                .map(|path| path.join(program))
                .find(|path| path.exists())
                .unwrap();
            let script =
                format!("#!/bin/sh\necho {program} >> {}\nexec {} \"$@\"\n", log.display(), found.display());
            fs::write(programs.join(program), script).unwrap();
            fs::set_permissions(programs.join(program), fs::Permissions::from_mode(0o755)).unwrap();
        }
        let file = folder.path().join("deployment.nix");
        fs::write(&file, DEPLOYMENT).unwrap();
        let nix = Self::nix(folder.path(), programs);
        let deployment =
            Deployment { place: Place::File(file), cache_key: Some("tree".into()), top: None, read_as: None };
        Self { folder, nix, deployment }
    }

    fn nix(folder: &Path, programs: PathBuf) -> Nix {
        let path = std::env::var_os("PATH").unwrap();
        let search = std::iter::once(programs).chain(std::env::split_paths(&path));
        Nix {
            search: Some(std::env::join_paths(search).unwrap()),
            ..Nix::new(&NixConfig::default(), &folder.join("state")).unwrap()
        }
    }

    /// As after a restart.
    fn again(&self) -> Nix {
        Self::nix(self.folder.path(), self.folder.path().join("programs"))
    }

    fn started(&self) -> usize {
        fs::read_to_string(self.folder.path().join("started")).unwrap_or_default().lines().count()
    }

    async fn everything(&self, nix: &Nix) -> Vec<(NodeName, Evaluated)> {
        let names = nix.names(&self.deployment).await.unwrap();
        let (out, mut results) = mpsc::channel(2);
        nix.evaluate(&self.deployment, names.nodes, out).await;
        let mut all = Vec::new();
        while let Some((name, answer)) = results.recv().await {
            all.push((name, answer.unwrap()));
        }
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }
}

#[tokio::test]
async fn an_unchanged_commit_costs_no_process_even_after_a_restart() {
    let counted = Counted::new();
    let first = counted.everything(&counted.nix).await;
    assert_eq!(first.len(), 2);
    let cost = counted.started();
    assert!(cost >= 3, "names, nodes, roots: {cost}");
    assert_eq!(counted.everything(&counted.again()).await, first);
    assert_eq!(counted.started(), cost);
}

#[tokio::test]
async fn a_cached_derivation_that_was_collected_is_evaluated_again() {
    let counted = Counted::new();
    let first = counted.everything(&counted.nix).await;
    let cost = counted.started();
    let cache = fs::read_dir(counted.folder.path().join("state/cache")).unwrap().next().unwrap().unwrap();
    let file = cache.path().join("nodes/b.json");
    let text = fs::read_to_string(&file).unwrap();
    let Evaluated::Node(spec) = &first[1].1 else { panic!("b is enabled") };
    let gone = "0".repeat(32);
    let hash = spec.drv.as_str()[11..43].to_owned();
    fs::write(&file, text.replace(&hash, &gone).replace(spec.toplevel.hash(), &gone)).unwrap();
    assert_eq!(counted.everything(&counted.again()).await, first);
    assert_eq!(counted.started(), cost + 1, "one evaluation of b");
}

#[tokio::test]
async fn a_half_written_cache_entry_is_no_entry() {
    let counted = Counted::new();
    let first = counted.everything(&counted.nix).await;
    let cache = fs::read_dir(counted.folder.path().join("state/cache")).unwrap().next().unwrap().unwrap();
    for file in ["names.json", "nodes/a.json"] {
        fs::write(cache.path().join(file), "{\"version\":").unwrap();
    }
    assert_eq!(counted.everything(&counted.again()).await, first);
}

#[tokio::test]
async fn an_evaluator_that_the_kernel_kills_takes_no_other_node_along() {
    let counted = Counted::new();
    // Out of memory as seen from here: SIGKILL whenever b is evaluated.
    let program = counted.folder.path().join("programs/nix-instantiate");
    let script = fs::read_to_string(&program).unwrap();
    let killed = "case \"$*\" in *'\"b\"'*) kill -KILL $$;; esac\nexec ";
    fs::write(&program, script.replace("exec ", killed)).unwrap();
    let one_at_a_time = counted.again().evaluating(&EvalConfig { workers: 1, ..EvalConfig::default() });
    let (out, mut results) = mpsc::channel(2);
    let nodes = BTreeSet::from(["a", "b"].map(|name| name.parse().unwrap()));
    one_at_a_time.evaluate(&counted.deployment, nodes, out).await;
    let mut outcomes = Vec::new();
    while let Some((name, answer)) = results.recv().await {
        outcomes.push((name.to_string(), answer.map(drop).map_err(|error| error.to_string())));
    }
    outcomes.sort();
    assert_eq!(
        outcomes,
        [("a".into(), Ok(())), ("b".into(), Err("the evaluation of b was cut short".into()))]
    );
}

#[test]
fn only_the_newest_deployments_are_remembered() {
    let counted = Counted::new();
    let names = crate::model::manifest::Names {
        version: 1,
        format: "driftless".into(),
        nodes: BTreeSet::new(),
        rollout: Default::default(),
        unsupported: Vec::new(),
    };
    for tree in 0..30 {
        let deployment = Deployment { cache_key: Some(tree.to_string()), ..counted.deployment.clone() };
        counted.nix.cache(&deployment).unwrap().keep_names(&names);
    }
    assert_eq!(fs::read_dir(counted.folder.path().join("state/cache")).unwrap().count(), 20);
    let newest = Deployment { cache_key: Some("29".into()), ..counted.deployment.clone() };
    assert!(counted.nix.cache(&newest).unwrap().names().is_some());
}

#[test]
fn an_evaluator_reads_no_password_file_and_takes_no_settings_from_flakes() {
    let counted = Counted::new();
    let command = counted.nix.evaluator();
    let arguments: Vec<_> = command.as_std().get_args().map(|each| each.to_string_lossy()).collect();
    assert!(arguments.windows(2).any(|pair| pair == ["netrc-file", "/dev/null"]), "{arguments:?}");
    let last = arguments.windows(2).rfind(|pair| pair[0] == "accept-flake-config");
    assert_eq!(last.unwrap()[1], "false", "whatever the configuration says");
}

#[test]
fn builders_are_told_to_builds_alone_and_a_copy_to_a_node_compresses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let config = "builders = \"ssh-ng://b1 x86_64-linux\"\nsigning_key_file = \"/k\"\ncache = { url = \"s3://b?region=x\" }";
    let nix = Nix::new(&toml::from_str(config).unwrap(), folder.path()).unwrap();
    let line = |command: &tokio::process::Command| {
        let words = command.as_std().get_args().map(OsStr::to_string_lossy).collect::<Vec<_>>();
        words.join(" ")
    };
    let builds = line(&nix.realisation());
    assert!(builds.contains("--option builders ssh-ng://b1 x86_64-linux"), "{builds}");
    assert!(builds.contains("--option builders-use-substitutes true"), "{builds}");
    for others in [line(&nix.evaluator()), line(&nix.program("nix"))] {
        assert!(!others.contains("b1") && !others.contains("/k") && !others.contains("s3:"), "{others}");
    }
    let target = CopyTarget {
        host: "n1".into(),
        ssh_options: vec!["-S".into(), "/s".into()],
        escalation: Vec::new(),
        substitute: Substitute::Never,
    };
    let copies = line(&nix.copy_command(copy::Protocol::Daemon, &target, &[]));
    assert!(copies.contains("--to ssh-ng://n1 ") && !copies.contains("compress"), "{copies}");
    let cache = nix.cache_url(nix.config.cache.as_ref().unwrap());
    assert_eq!(cache, "s3://b?region=x&compression=zstd&secret-key=/k");
}

/// Systems of one library, a middle of it each, and whatever else is said; built, by the store's real programs.
fn built(folder: &Path, unique: &str, systems: usize) -> Vec<StorePath> {
    let text = r#"let
        build = name: refs: derivation { inherit name; system = "x86_64-linux"; builder = "/bin/sh";
          args = [ "-c" "echo $out ${toString refs} > $out" ]; };
        library = derivation { name = "library-UNIQUE"; system = "x86_64-linux"; builder = "/bin/sh"; PATH = "/bin:/usr/bin";
          args = [ "-c" "mkdir -p $out/empty $out/many; cd $out; echo hi > run; chmod +x run; ln -s ../run many/link; echo 12345678 > 8; seq FILES | (cd many; xargs touch)" ]; };
        system = number: build "system-${toString number}" [ library (build "middle-${toString number}" [ library ]) ];
      in builtins.genList system SYSTEMS"#;
    let file = folder.join("systems.nix");
    // Too many to look at, and too few.
    let text = text.replace("FILES", if systems > 2 { "2100" } else { "3" });
    fs::write(&file, text.replace("UNIQUE", unique).replace("SYSTEMS", &systems.to_string())).unwrap();
    said(std::process::Command::new("nix-build").arg("--no-out-link").arg(file))
}

fn said(command: &mut std::process::Command) -> Vec<StorePath> {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).lines().map(|line| line.parse().unwrap()).collect()
}

fn told_by_nix(question: &str, path: &StorePath) -> BTreeSet<StorePath> {
    said(std::process::Command::new("nix-store").args(["--query", question, path.as_str()]))
        .into_iter()
        .collect()
}

fn size_told_by_nix(path: &StorePath) -> u64 {
    let output =
        std::process::Command::new("nix-store").args(["--query", "--size", path.as_str()]).output().unwrap();
    String::from_utf8_lossy(&output.stdout).trim().parse().unwrap()
}

#[test]
fn the_size_of_an_archive_is_told_by_names_and_sizes_alone() {
    let folder = tempfile::tempdir().unwrap();
    let systems = built(folder.path(), &unique(folder.path()), 2);
    for path in told_by_nix("--requisites", &systems[0]) {
        let mut files = 100;
        assert_eq!(nar::size(&path, &mut files), Some(size_told_by_nix(&path)), "{path}");
        assert_eq!(nar::size(&path, &mut (99 - files)), None, "one file too many");
    }
}

fn unique(folder: &Path) -> String {
    folder.file_name().unwrap().to_string_lossy().replace('.', "")
}

#[tokio::test]
async fn systems_that_are_asked_for_together_cost_one_process_for_each_question() {
    let counted = Counted::new();
    let folder = counted.folder.path();
    let systems = built(folder, &unique(folder), 10);
    let closures = join_all(systems.iter().map(|system| counted.nix.requisites(system))).await;
    assert_eq!(counted.started(), 1, "ten closures");
    let closures: Vec<_> = closures.into_iter().map(Result::unwrap).collect();
    for (system, closure) in systems.iter().zip(&closures) {
        let set: BTreeSet<StorePath> = closure.iter().cloned().collect();
        assert_eq!(set, told_by_nix("--requisites", system));
        assert_eq!((set.len(), closure.last()), (closure.len(), Some(system)), "each once");
        for (at, path) in closure.iter().enumerate() {
            let mut references = told_by_nix("--references", path);
            references.remove(path);
            assert!(references.iter().all(|each| closure[..at].contains(each)), "{path} in {closure:?}");
        }
    }
    let wanted = systems.iter().zip(&closures);
    let sizes = join_all(wanted.clone().map(|(system, closure)| counted.nix.sizes(system, closure))).await;
    assert_eq!(counted.started(), 2, "and ten times sizes");
    for (closure, sizes) in closures.iter().zip(sizes) {
        let sizes = sizes.unwrap();
        assert!(closure.iter().eq(sizes.iter().map(|each| &each.path)), "in the order that was asked");
        for each in sizes {
            assert_eq!(each.nar_bytes, size_told_by_nix(&each.path), "{}", each.path);
        }
    }
    for (system, closure) in wanted {
        counted.nix.requisites(system).await.unwrap();
        counted.nix.sizes(system, closure).await.unwrap();
    }
    assert_eq!(counted.started(), 2, "what is known is not asked again");
}

#[tokio::test]
async fn a_path_that_the_store_lacks_spoils_nobody_elses_answer() {
    let counted = Counted::new();
    let folder = counted.folder.path();
    let systems = built(folder, &unique(folder), 2);
    // Collected just after it was seen.
    let gone: StorePath = format!("/nix/store/{}-gone-{}", "0".repeat(32), unique(folder)).parse().unwrap();
    let wanted = [&systems[0], &gone, &systems[1]];
    let mut closures = join_all(wanted.map(|system| counted.nix.ask_requisites(system))).await;
    let parts = [systems[0].clone(), gone.clone()];
    let sizes = join_all([
        counted.nix.sizes(&systems[0], &parts[..1]),
        counted.nix.sizes(&gone, &parts),
        counted.nix.sizes(&systems[1], &systems),
    ])
    .await;
    let error = closures.remove(1).unwrap_err();
    assert!(matches!(&error, NixError::Closure { path, .. } if *path == gone), "{error:?}");
    assert!(closures.into_iter().all(|closure| closure.unwrap().len() == 3));
    assert!(matches!(&sizes[1], Err(NixError::Closure { path, .. }) if *path == gone), "{sizes:?}");
    assert_eq!(sizes[0].as_ref().unwrap()[..], sizes[2].as_ref().unwrap()[..1]);
    let seen = counted.nix.requisites(&gone).await;
    assert!(matches!(&seen, Err(NixError::NotInStore { path }) if *path == gone), "{seen:?}");
}
