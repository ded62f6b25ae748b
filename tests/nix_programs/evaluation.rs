//! Evaluation of a fleet with real Nix: results that stream, the memory that is shared, what is read, what may be known.

use std::io::{ErrorKind, Write};

use assert_cmd::Command;
use driftless::nix::Order;

use super::*;

/// A pipe that a node's evaluation reads, and that it waits for until somebody writes.
struct Gate(PathBuf);

impl Gate {
    fn new(world: &World) -> Self {
        let path = world.path("gate");
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        Self(path)
    }

    fn module(&self) -> String {
        format!("environment.etc.x.text = builtins.readFile {};", self.0.display())
    }

    /// Lets one evaluation through that waits here; returns when it does.
    async fn open(&self) {
        let path = self.0.clone();
        let write = move || fs::OpenOptions::new().write(true).open(&path).unwrap().write_all(b"open");
        // Nix may open it, look at what it is and close it before it reads.
        let until_read = move || while write().is_err_and(|error| error.kind() == ErrorKind::BrokenPipe) {};
        tokio::task::spawn_blocking(until_read).await.unwrap();
    }
}

#[tokio::test]
async fn the_first_nodes_are_built_while_others_are_still_evaluated() {
    let mut world = World::nodes(&[]);
    let gate = Gate::new(&world);
    let text = World::text(&[("fast", ""), ("slow", &gate.module())]);
    fs::write(world.path("deployment.nix"), text).unwrap();
    world.eval.chunk = Some(1);
    let (nix, deployment) = (world.nix(), world.deployment());
    let (out, mut results) = mpsc::channel(1);
    let meanwhile = async {
        let (first, answer) = results.recv().await.unwrap();
        assert_eq!(first, name("fast"));
        let spec = spec(answer);
        nix.realise(&first, &spec, &world.path("roots/fast")).await.unwrap();
        assert!(Path::new(spec.toplevel.as_str()).exists());
        gate.open().await;
        let (second, answer) = results.recv().await.unwrap();
        (second, answer.map(drop).map_err(|error| chain(&error)))
    };
    let nodes = BTreeSet::from([name("fast"), name("slow")]);
    let ((), last) = tokio::join!(nix.evaluate(&deployment, nodes, out), meanwhile);
    assert_eq!(last, (name("slow"), Ok(())));
}

/// Keeps some 750 MiB until the end.
const LARGE: &str = "environment.etc.large.text = let all = builtins.genList (i: [ i ]) 6000000; in \
                     builtins.seq (builtins.foldl' (sum: each: sum + builtins.length each) 0 all) (toString (builtins.length all));";

#[tokio::test]
async fn a_node_that_wants_more_than_its_share_has_all_of_the_memory_to_itself_and_is_known_for_it() {
    let mut world = World::nodes(&[("a", ""), ("large", LARGE), ("z", "")]);
    world.eval.memory = Some(Bytes(1160 << 20));
    world.eval.workers = 3;
    let mut fleet = evaluate(&world.nix(), &world.deployment(), &["a", "large", "z"]).await;
    assert!(matches!(fleet.remove(&name("large")).unwrap(), Ok(Evaluated::Node(_))), "{fleet:?}");
    assert!(fleet.values().all(Result::is_ok), "{fleet:?}");
    let known = fs::read_to_string(world.path("state/evaluated/large.json")).unwrap();
    let known: serde_json::Value = serde_json::from_str(&known).unwrap();
    assert!(known["too_little"].as_u64().unwrap() < 800 << 20, "{known}");
    assert!(known["allocated"].as_u64().unwrap() > 300 << 20, "{known}");

    world.eval.memory = Some(Bytes(400 << 20));
    let all = evaluate(&world.nix(), &world.deployment(), &["a", "large"]).await;
    let error = all[&name("large")].as_ref().unwrap_err();
    assert!(matches!(error, NixError::EvaluationMemory { .. }), "{}", chain(error));
    assert!(error.to_string().starts_with("large does not evaluate within 400 MiB"), "{error}");
    assert!(all[&name("a")].is_ok());
}

#[tokio::test]
async fn what_was_learned_of_a_node_can_be_lost_or_rubbish() {
    let world = World::nodes(&[("a", ""), ("b", "")]);
    evaluate(&world.nix(), &world.deployment(), &["a", "b"]).await;
    fs::write(world.path("state/evaluated/a.json"), "{\"allocated\": \"much").unwrap();
    fs::remove_file(world.path("state/evaluated/b.json")).unwrap();
    let all = evaluate(&world.nix(), &world.deployment(), &["a", "b"]).await;
    assert!(all.values().all(Result::is_ok), "{all:?}");
    assert!(fs::read_to_string(world.path("state/evaluated/a.json")).unwrap().contains("\"allocated\":"));
}

#[tokio::test]
async fn the_files_that_a_nodes_evaluation_reads_are_remembered() {
    let mut world = World::nodes(&[]);
    world.eval.chunk = Some(1);
    let text =
        World::text(&[("db", "imports = [ ./hosts/db.nix ];"), ("web", "imports = [ ./hosts/web.nix ];")]);
    fs::write(world.path("deployment.nix"), text).unwrap();
    fs::create_dir_all(world.path("hosts/files")).unwrap();
    fs::write(world.path("hosts/files/index.html"), "hello").unwrap();
    fs::write(world.path("hosts/db.nix"), "{ }").unwrap();
    fs::write(world.path("hosts/web.nix"), "{ environment.etc.x.text = \"${./files}\"; }").unwrap();
    let nix = world.nix();
    evaluate(&nix, &world.deployment(), &["db", "web"]).await;
    assert_eq!(nix.reads(&name("web")), None, "what nothing determines cannot be compared");
    evaluate(&nix, &world.committed("tree"), &["db", "web"]).await;
    let paths = |node: &str| {
        let reads = nix.reads(&name(node)).unwrap();
        assert_eq!(reads.of, "tree");
        // Our own Nix files are beside them here.
        reads.paths.into_iter().filter(|path| !path.starts_with("state/")).collect::<Vec<_>>()
    };
    assert_eq!(paths("db"), ["deployment.nix", "hosts/db.nix"]);
    assert_eq!(paths("web"), ["deployment.nix", "hosts/files", "hosts/web.nix"]);
    // A work tree that somebody tries in between does not make it forgotten.
    evaluate(&nix, &world.deployment(), &["db", "web"]).await;
    assert_eq!(paths("db"), ["deployment.nix", "hosts/db.nix"]);
    world.eval.affected_first = false;
    assert_eq!(world.nix().reads(&name("db")), None);
}

#[tokio::test]
async fn the_order_changes_when_a_node_is_evaluated_and_nothing_else() {
    let mut world = World::nodes(&[("a", ""), ("b", ""), ("c", "")]);
    world.eval.workers = 1;
    let order = Order(vec![[name("c")].into(), [name("a"), name("b")].into()]);
    let (nix, deployment) = (world.nix(), world.committed("tree"));
    let (out, mut results) = mpsc::channel(4);
    nix.evaluate(&deployment, order, out).await;
    let mut came = Vec::new();
    let mut all = Answers::new();
    while let Some((name, answer)) = results.recv().await {
        came.push(name.clone());
        all.insert(name, answer);
    }
    assert_eq!(came[0], name("c"));
    let usual = evaluate(&nix, &world.deployment(), &["a", "b", "c"]).await;
    for (name, answer) in usual {
        assert_eq!(spec(answer), spec(all.remove(&name).unwrap()));
    }
}

/// The program with what a person's environment has, without a configuration of this machine.
fn driftless(world: &World) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_driftless"));
    command.current_dir(world.folder.path()).timeout(Duration::from_secs(120));
    command.env("DRIFTLESS_CONFIG", world.path("driftless.toml")).env("STATE_DIRECTORY", world.path("state"));
    fs::write(
        world.path("driftless.toml"),
        format!("[source]\nurl = \"x\"\n[nix]\nnix_path = \"{}\"\n", world.config.nix_path.clone().unwrap()),
    )
    .unwrap();
    let settings = "build-users-group =\nsandbox = false\nsubstitute = false";
    command.env("NIX_CONFIG", settings);
    command
}

#[test]
fn neither_evaluators_nor_builders_get_credentials_from_the_environment() {
    let builder = "echo \"agent: $SSH_AUTH_SOCK, token: $GITHUB_TOKEN, key: $AWS_SECRET_ACCESS_KEY, plain: $PLAIN\" >&2; exit 1";
    let variables = "[ \"SSH_AUTH_SOCK\" \"GITHUB_TOKEN\" \"AWS_SECRET_ACCESS_KEY\" \"PLAIN\" ]";
    let node = format!(
        "environment.etc.x.text = builtins.trace (map builtins.getEnv {variables}) (toString (derivation {{ \
           name = \"curious\"; system = \"x86_64-linux\"; builder = \"/bin/sh\"; args = [ \"-c\" {builder:?} ]; impureEnvVars = {variables}; \
           outputHashMode = \"flat\"; outputHashAlgo = \"sha256\"; outputHash = \"{}\"; }}));",
        "0".repeat(64)
    );
    let world = World::nodes(&[("web", &node)]);
    let mut command = driftless(&world);
    command.args(["check", "--build", "--file", "deployment.nix"]);
    command.env("SSH_AUTH_SOCK", "/secret/agent").env("GITHUB_TOKEN", "secret-token");
    command.env("AWS_SECRET_ACCESS_KEY", "secret-key").env("PLAIN", "seen");
    let said = command.output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
    assert!(text.contains("agent: , token: , key: , plain: seen"), "{text}");
    assert!(!text.contains("secret"), "{text}");
}

#[test]
fn a_deployment_sees_no_credentials_when_it_asks_for_them() {
    let node = "networking.hostName = assert builtins.getEnv \"GITHUB_TOKEN\" == \"\" && builtins.getEnv \"SSH_AUTH_SOCK\" == \"\" \
                && builtins.getEnv \"PLAIN\" == \"seen\"; \"web\";";
    let world = World::nodes(&[("web", node)]);
    let mut command = driftless(&world);
    command.args(["check", "--file", "deployment.nix"]);
    command.env("SSH_AUTH_SOCK", "/secret/agent").env("GITHUB_TOKEN", "secret-token").env("PLAIN", "seen");
    command.assert().success();
}

#[test]
fn show_trace_shows_the_way_to_an_error_and_is_silent_without_one() {
    let node = "networking.hostName = let deep = n: if n == 0 then throw \"the cable is cut\" else deep (n - 1); in deep 3;";
    let world = World::nodes(&[("db", ""), ("web", node)]);
    let said = |flags: &[&str]| {
        let mut command = driftless(&world);
        command.args(["check", "--file", "deployment.nix"]).args(flags);
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let (short, long) = (said(&[]), said(&["--show-trace"]));
    for text in [&short, &long] {
        assert!(text.contains("error: the cable is cut") && text.contains("1 of 2 fail."), "{text}");
    }
    assert!(!short.contains("while"), "{short}");
    assert!(long.matches("… ").count() > 3 && long.contains("deployment.nix:"), "{long}");
    assert!(!long.contains("evaluating file"), "{long}");
}

#[tokio::test]
async fn an_option_of_the_wrong_type_names_file_and_node_and_stops_nobody_else() {
    let world = World::nodes(&[("db", ""), ("web", "imports = [ ./web.nix ];")]);
    fs::write(world.path("web.nix"), "{ networking.hostName = 5; }").unwrap();
    let all = evaluate(&world.nix(), &world.deployment(), &["db", "web"]).await;
    let error = all[&name("web")].as_ref().unwrap_err().to_string();
    assert!(error.starts_with("web does not evaluate:\nerror: "), "{error}");
    assert!(
        error.contains("`networking.hostName' is not of type") && error.contains("web.nix': 5"),
        "{error}"
    );
    assert!(all[&name("db")].is_ok());
}
