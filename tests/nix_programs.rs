//! The nix programs as the controller asks them: real Nix over small deployments, the small nixpkgs of `tests/nixpkgs`.

mod evaluation;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use driftless::config::{Bytes, EvalConfig, NixConfig};
use driftless::model::name::NodeName;
use driftless::model::node::NodeSpec;
use driftless::nix::{Deployment, Evaluated, Nix, NixError, Place};
use tempfile::TempDir;
use tokio::sync::mpsc;

const BASE: &str = "boot.isContainer = true; system.stateVersion = \"24.05\";";

/// A deployment file, a state directory and the nix programs.
struct World {
    folder: TempDir,
    config: NixConfig,
    eval: EvalConfig,
}

impl World {
    fn new(deployment: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("deployment.nix"), deployment).unwrap();
        let project = Path::new(env!("CARGO_MANIFEST_DIR"));
        let options = [
            ("build-users-group", ""),
            ("sandbox", "false"),
            ("substitute", "false"),
            ("experimental-features", "nix-command flakes"),
        ];
        let config = NixConfig {
            build_timeout: Duration::from_secs(60),
            nix_path: Some(format!("nixpkgs={}", project.join("tests/nixpkgs").display())),
            options: options.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
            ..NixConfig::default()
        };
        let eval = EvalConfig {
            workers: 2,
            chunk: Some(5),
            timeout: Duration::from_secs(60),
            ..EvalConfig::default()
        };
        Self { folder, config, eval }
    }

    /// Nodes in our format, each with the body of its configuration.
    fn nodes(nodes: &[(&str, &str)]) -> Self {
        Self::new(&Self::text(nodes))
    }

    fn text(nodes: &[(&str, &str)]) -> String {
        let nodes: String = nodes
            .iter()
            .map(|(name, body)| {
                format!("nodes.{name} = {{ configuration = {{ pkgs, ... }}: {{ {BASE} {body} }}; }};\n")
            })
            .collect();
        let entry = Path::new(env!("CARGO_MANIFEST_DIR"));
        format!(
            "import {} {{ }} ({{ ... }}: {{ defaults = {{ ... }}: {{ nixpkgs = <nixpkgs>; }}; {nodes} }})",
            entry.join("nix").display()
        )
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn nix(&self) -> Nix {
        Nix::new(&self.config, &self.path("state")).unwrap().evaluating(&self.eval)
    }

    fn deployment(&self) -> Deployment {
        Deployment {
            place: Place::File(self.path("deployment.nix")),
            cache_key: None,
            top: Some(self.folder.path().canonicalize().unwrap()),
            read_as: None,
        }
    }

    fn committed(&self, tree: &str) -> Deployment {
        Deployment { cache_key: Some(tree.into()), ..self.deployment() }
    }

    async fn spec(&self, node: &str) -> NodeSpec {
        let mut all = evaluate(&self.nix(), &self.deployment(), &[node]).await;
        spec(all.remove(&name(node)).unwrap())
    }
}

type Answers = BTreeMap<NodeName, Result<Evaluated, NixError>>;

fn name(text: &str) -> NodeName {
    text.parse().unwrap()
}

fn spec(answer: Result<Evaluated, NixError>) -> NodeSpec {
    match answer.unwrap_or_else(|error| panic!("{}", chain(&error))) {
        Evaluated::Node(spec) => *spec,
        Evaluated::Disabled => panic!("disabled"),
        Evaluated::NotDeployable(why) => panic!("{why:?}"),
    }
}

fn chain(error: &NixError) -> String {
    let mut text = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(error) = next {
        text += &format!(": {error}");
        next = error.source();
    }
    text
}

async fn evaluate(nix: &Nix, deployment: &Deployment, nodes: &[&str]) -> Answers {
    let (out, mut results) = mpsc::channel(1);
    let nodes: BTreeSet<NodeName> = nodes.iter().map(|node| name(node)).collect();
    let collect = async {
        let mut all = Answers::new();
        while let Some((name, answer)) = results.recv().await {
            assert!(all.insert(name, answer).is_none(), "a node was sent twice");
        }
        all
    };
    tokio::join!(nix.evaluate(deployment, nodes, out), collect).1
}

/// Whether any process has `text` on its command line.
fn running(text: &Path) -> bool {
    let text = text.to_string_lossy().into_owned();
    fs::read_dir("/proc").unwrap().flatten().any(|process| {
        fs::read(process.path().join("cmdline"))
            .is_ok_and(|line| String::from_utf8_lossy(&line).contains(&text))
    })
}

/// Killed processes are gone as soon as the kernel has taken them down.
async fn assert_ends(text: &Path) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while running(text) {
        assert!(Instant::now() < deadline, "the evaluator lives on");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn names_are_listed_although_a_node_is_broken() {
    let world = World::nodes(&[("web", ""), ("db", "x = throw \"never\";")]);
    let names = world.nix().names(&world.deployment()).await.unwrap();
    assert_eq!(names.nodes, [name("db"), name("web")].into());
    assert_eq!(names.format, "driftless");
}

#[tokio::test]
async fn one_broken_node_among_five_stands_alone_with_its_own_error() {
    let broken = ("c", "system.nope.nope = (throw \"the cable is cut\");");
    let mut world = World::nodes(&[("a", ""), ("b", ""), broken, ("d", ""), ("e", "")]);
    world.eval.workers = 1;
    let nix = world.nix();
    let mut all = evaluate(&nix, &world.deployment(), &["a", "b", "c", "d", "e"]).await;
    assert_eq!(all.len(), 5);
    let error = all.remove(&name("c")).unwrap().unwrap_err();
    assert!(matches!(error, NixError::Evaluation { .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.starts_with("c does not evaluate:\nerror: "), "{text}");
    for (name, answer) in all {
        assert_eq!(spec(answer).host.as_deref(), Some(name.as_str()));
    }
}

#[tokio::test]
async fn a_syntax_error_is_the_deployments_and_says_where() {
    let world = World::new("{ a = 1; b = ; }");
    let error = world.nix().names(&world.deployment()).await.unwrap_err().to_string();
    assert!(error.starts_with("the deployment does not evaluate:\nerror: syntax error"), "{error}");
    assert!(error.contains("deployment.nix:1:14"), "{error}");
}

#[tokio::test]
async fn a_missing_attribute_is_named_first() {
    let world = World::nodes(&[("web", "environment.etc.x.text = pkgs.no-such-package.name;")]);
    let all = evaluate(&world.nix(), &world.deployment(), &["web"]).await;
    let error = all[&name("web")].as_ref().unwrap_err().to_string();
    assert!(
        error.starts_with("web does not evaluate:\nerror: attribute 'no-such-package' missing"),
        "{error}"
    );
}

#[tokio::test]
async fn a_deployment_file_that_is_not_there_is_an_error_with_its_path() {
    let world = World::new("");
    fs::remove_file(world.path("deployment.nix")).unwrap();
    let error = world.nix().names(&world.deployment()).await.unwrap_err().to_string();
    // "No such file or directory" in Nix 2.8, "does not exist" in 2.26.
    assert!(error.contains("error: ") && error.contains("deployment.nix"), "{error}");
}

#[tokio::test]
async fn a_node_that_the_deployment_lacks_is_its_own_error() {
    let world = World::nodes(&[("web", "")]);
    let all = evaluate(&world.nix(), &world.deployment(), &["web", "gone"]).await;
    assert!(all[&name("web")].is_ok());
    let error = all[&name("gone")].as_ref().unwrap_err().to_string();
    assert!(error.contains("has no node 'gone'"), "{error}");
}

/// Would run for days, without recursion that Nix could notice.
const ENDLESS: &str = "builtins.foldl' (a: b: a + b) 0 (builtins.concatMap (i: builtins.genList (j: i + j) 100000) (builtins.genList (x: x) 100000))";

#[tokio::test]
async fn an_endless_evaluation_is_killed_and_blamed() {
    let endless = format!("environment.etc.x.text = toString ({ENDLESS});");
    let mut world = World::nodes(&[("web", ""), ("loop", &endless)]);
    world.eval.timeout = Duration::from_secs(3);
    let all = evaluate(&world.nix(), &world.deployment(), &["web", "loop"]).await;
    assert!(all[&name("web")].is_ok());
    let error = all[&name("loop")].as_ref().unwrap_err();
    assert!(matches!(error, NixError::EvaluationCut { .. }), "{error}");
    assert!(chain(error).contains("did not end within 3 s"), "{}", chain(error));
    assert_ends(world.folder.path()).await;
}

#[tokio::test]
async fn dropping_an_evaluation_ends_its_process() {
    let world = World::nodes(&[("loop", &format!("environment.etc.x.text = toString ({ENDLESS});"))]);
    let nix = world.nix();
    let deployment = world.deployment();
    let (out, _results) = mpsc::channel(1);
    let evaluation = nix.evaluate(&deployment, BTreeSet::from([name("loop")]), out);
    let started = async {
        while !running(&world.path("deployment.nix")) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        () = evaluation => panic!("it is endless"),
        () = started => {}
    }
    assert_ends(world.folder.path()).await;
}

#[tokio::test]
async fn an_evaluation_that_eats_memory_is_ended_alone_and_says_what_to_do() {
    let hog = "environment.etc.hog.text = toString (builtins.length (builtins.foldl' (a: i: a ++ [ i a ]) [ ] \
               (builtins.genList (i: i) 100000)));";
    let mut world = World::nodes(&[("hog", hog), ("web", "")]);
    world.eval.memory = Some(Bytes(300 << 20));
    let all = evaluate(&world.nix(), &world.deployment(), &["hog", "web"]).await;
    let error = chain(all[&name("hog")].as_ref().unwrap_err());
    assert!(
        error.starts_with("hog does not evaluate within 300 MiB") && error.contains("`eval.memory`"),
        "{error}"
    );
    assert!(matches!(all[&name("web")], Ok(Evaluated::Node(_))));
}

#[tokio::test]
async fn a_disabled_node_is_told_as_such() {
    let world = World::nodes(&[("web", "")]);
    let text = fs::read_to_string(world.path("deployment.nix")).unwrap();
    fs::write(world.path("deployment.nix"), text.replace("nodes.web = {", "nodes.web = { enabled = false;"))
        .unwrap();
    let all = evaluate(&world.nix(), &world.deployment(), &["web"]).await;
    assert!(matches!(all[&name("web")], Ok(Evaluated::Disabled)));
}

#[tokio::test]
async fn an_unchanged_commit_is_not_evaluated_again_even_after_a_restart() {
    let world = World::nodes(&[("a", ""), ("b", "x.y = throw \"broken\";")]);
    let first = evaluate(&world.nix(), &world.committed("tree1"), &["a", "b"]).await;
    let names = world.nix().names(&world.committed("tree1")).await.unwrap();
    fs::write(world.path("deployment.nix"), "this is no Nix any more").unwrap();
    let nix = world.nix();
    assert_eq!(nix.names(&world.committed("tree1")).await.unwrap(), names);
    let again = evaluate(&nix, &world.committed("tree1"), &["a", "b"]).await;
    assert_eq!(first[&name("a")].as_ref().unwrap(), again[&name("a")].as_ref().unwrap());
    let error = again[&name("b")].as_ref().unwrap_err().to_string();
    assert!(error.contains("undefined variable"), "failures are not remembered: {error}");
    assert!(nix.names(&world.committed("tree2")).await.is_err(), "another tree is another deployment");
    assert!(nix.names(&world.deployment()).await.is_err(), "what nothing determines is not cached");
}

#[tokio::test]
async fn a_flake_is_evaluated_by_its_url() {
    let world = World::new("");
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    let eval = project.join("tests/nixpkgs/nixos/lib/eval-config.nix");
    fs::create_dir(world.path("flake")).unwrap();
    let text = format!(
        "{{ outputs = _: {{ nixosConfigurations.web = import {} {{ system = \"x86_64-linux\"; modules = [ {{ {BASE} }} ]; }}; }}; }}",
        eval.display()
    );
    fs::write(world.path("flake/flake.nix"), text).unwrap();
    let url = format!("path:{}", world.path("flake").display());
    let deployment = Deployment { place: Place::Flake { url }, cache_key: None, top: None, read_as: None };
    let nix = world.nix();
    assert_eq!(nix.names(&deployment).await.unwrap().format, "flake");
    let mut all = evaluate(&nix, &deployment, &["web"]).await;
    assert_eq!(spec(all.remove(&name("web")).unwrap()).host.as_deref(), Some("web"));
}

#[tokio::test]
async fn a_built_system_is_rooted_and_its_closure_is_known() {
    let world = World::nodes(&[("web", "environment.etc.hello.text = \"${pkgs.hello}\";")]);
    let (nix, spec) = (world.nix(), world.spec("web").await);
    let drv_root = world.path("state/gcroots/web/drv");
    assert_eq!(fs::read_link(&drv_root).unwrap(), Path::new(spec.drv.as_str()));

    let root = world.path("state/gcroots/web/system");
    nix.realise(&name("web"), &spec, &root).await.unwrap();
    nix.realise(&name("web"), &spec, &root).await.unwrap();
    assert_eq!(fs::read_link(&root).unwrap(), Path::new(spec.toplevel.as_str()));
    let registered = |root: &Path| {
        fs::read_dir("/nix/var/nix/gcroots/auto")
            .unwrap()
            .flatten()
            .any(|auto| fs::read_link(auto.path()).is_ok_and(|target| target == root))
    };
    assert!(registered(&root) && registered(&drv_root));

    let closure = nix.requisites(&spec.toplevel).await.unwrap();
    assert_eq!(closure.last().unwrap(), &spec.toplevel, "what is referred to comes first");
    let sizes = nix.sizes(&spec.toplevel, &closure).await.unwrap();
    assert!(closure.len() > 1 && sizes.iter().all(|each| each.nar_bytes > 0), "{sizes:?}");
}

#[tokio::test]
async fn the_root_of_a_derivation_follows_its_node_and_nix_follows_the_root() {
    let world = World::nodes(&[("web", "")]);
    let nix = world.nix();
    let root = world.path("state/gcroots/web/drv");
    for text in ["one", "two", "three"] {
        let first = fs::read_to_string(world.path("deployment.nix")).unwrap();
        let more = format!("{{ pkgs, ... }}: {{ environment.etc.{text}.text = \"{text}\";");
        fs::write(world.path("deployment.nix"), first.replace("{ pkgs, ... }: {", &more)).unwrap();
        let mut all = evaluate(&nix, &world.deployment(), &["web"]).await;
        let drv = spec(all.remove(&name("web")).unwrap()).drv;
        assert_eq!(fs::read_link(&root).unwrap(), Path::new(drv.as_str()));
        let roots = Command::new("nix-store").args(["--query", "--roots", drv.as_str()]).output().unwrap();
        let roots = String::from_utf8_lossy(&roots.stdout).into_owned();
        assert!(roots.contains(root.to_str().unwrap()), "{text}: {roots}");
    }
}

#[tokio::test]
async fn paths_that_go_along_are_built_and_rooted_too() {
    let world = World::nodes(&[("web", "")]);
    let text = fs::read_to_string(world.path("deployment.nix")).unwrap();
    let along = "nodes.web = { closurePaths = [ (import <nixpkgs> { }).hello (builtins.path { path = ./deployment.nix; name = \"source\"; }) ];";
    fs::write(world.path("deployment.nix"), text.replace("nodes.web = {", along)).unwrap();
    let (nix, spec) = (world.nix(), world.spec("web").await);
    assert_eq!((spec.closure_paths.len(), spec.closure_drvs.len()), (2, 1));
    let root = world.path("roots/web");
    nix.realise(&name("web"), &spec, &root).await.unwrap();
    let rooted: BTreeSet<PathBuf> =
        ["web-closure", "web-closure-2"].map(|each| fs::read_link(root.with_file_name(each)).unwrap()).into();
    assert_eq!(rooted, spec.closure_paths.iter().map(|path| PathBuf::from(path.as_str())).collect());
}

#[tokio::test]
async fn a_failing_build_shows_the_log_of_what_failed_and_stops_nobody() {
    let fails =
        "environment.etc.x.text = \"${pkgs.runCommand \"unlucky\" { } \"echo the oven is cold; exit 7\"}\";";
    let world = World::nodes(&[("web", fails), ("db", "")]);
    let (nix, web, db) = (world.nix(), world.spec("web").await, world.spec("db").await);
    let (web_name, db_name) = (name("web"), name("db"));
    let (web_root, db_root) = (world.path("roots/web"), world.path("roots/db"));
    let (failed, built) =
        tokio::join!(nix.realise(&web_name, &web, &web_root), nix.realise(&db_name, &db, &db_root));
    built.unwrap();
    let error = failed.unwrap_err();
    let NixError::Build { failed, log, .. } = &error else { panic!("{}", chain(&error)) };
    assert!(failed.as_str().ends_with("-unlucky.drv"), "{failed}");
    assert_eq!(log.0.last().unwrap(), "the oven is cold");
    assert!(error.to_string().starts_with("web: /nix/store/"), "{error}");
    assert!(!web_root.exists());
}

#[tokio::test]
async fn two_nodes_with_one_system_build_it_once() {
    let world = World::nodes(&[("web", "")]);
    let built = world.path("built");
    let note = format!(
        "nodes.web = {{ closurePaths = [ ((import <nixpkgs> {{ }}).runCommand \"shared\" {{ }} \"echo once >> {}; sleep 0.3; echo > $out\") ];",
        built.display()
    );
    let text = fs::read_to_string(world.path("deployment.nix")).unwrap();
    fs::write(world.path("deployment.nix"), text.replace("nodes.web = {", &note)).unwrap();
    let (nix, spec) = (world.nix(), world.spec("web").await);
    let (one, two) = (name("one"), name("two"));
    let (root_one, root_two) = (world.path("roots/one"), world.path("roots/two"));
    let (first, second) =
        tokio::join!(nix.realise(&one, &spec, &root_one), nix.realise(&two, &spec, &root_two));
    first.unwrap();
    second.unwrap();
    assert_eq!(fs::read_to_string(built).unwrap(), "once\n");
}

#[tokio::test]
async fn a_build_that_hangs_is_killed() {
    let mut world = World::nodes(&[(
        "web",
        "environment.etc.x.text = \"${pkgs.runCommand \"sleepy\" { } \"exec sleep 3210\"}\";",
    )]);
    world.config.build_timeout = Duration::from_secs(2);
    let spec = world.spec("web").await;
    let error = world.nix().realise(&name("web"), &spec, &world.path("roots/web")).await.unwrap_err();
    assert!(chain(&error).contains("did not end within 2 s"), "{}", chain(&error));
    assert_ends(Path::new("3210")).await;
}

#[tokio::test]
async fn another_output_than_announced_is_refused() {
    let world = World::nodes(&[("web", "")]);
    let mut spec = world.spec("web").await;
    spec.toplevel = "/nix/store/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-other".parse().unwrap();
    let error = world.nix().realise(&name("web"), &spec, &world.path("roots/web")).await.unwrap_err();
    assert!(matches!(error, NixError::WrongOutput { .. }), "{error}");
}
