//! Nodes that build their own systems, under a controller, beside one that does not.

use std::path::Path;
use std::time::Duration;

use driftless_lab::Fleet;
use serde_json::Value;

use crate::beginning;

const SOON: Duration = Duration::from_secs(90);

fn is(node: &Value, decision: &str, kind: &str) -> bool {
    node["decision"]["decision"] == decision && node["decision"]["hold"]["kind"] == kind
}

#[test]
fn a_node_that_builds_its_own_system_fails_alone_and_a_cache_that_is_down_stops_nobody() {
    let mut fleet = beginning::fleet(&["own", "ours"]);
    let config = std::fs::read_to_string(fleet.config_file()).unwrap();
    let config = config.replace("[nix]\n", "[nix]\ncache = { url = \"http://127.0.0.1:9\" }\n");
    std::fs::write(fleet.config_file(), &config).unwrap();
    let tag = jiff::Timestamp::now().as_nanosecond();
    let commit = |fleet: &Fleet, message: &str, packages: &str| {
        let body = |name: &str| {
            format!(
                "buildOnTarget = {}; configuration = {{ pkgs, ... }}: {{ lab.text = \"{message} {tag}\"; {} }};",
                name == "own",
                if name == "own" { packages } else { "" }
            )
        };
        beginning::commit(fleet, message, body)
    };

    let one = commit(&fleet, "one", "");
    fleet.start().unwrap();
    let seen = fleet.wait_in_sync(&one, SOON).unwrap();
    let text = |fleet: &Fleet, name: &str| fleet.nodes[name].enter("cat /etc/lab-text").unwrap().stdout;
    assert!(text(&fleet, "own").starts_with("one"));
    let running = fleet.nodes["own"].running().unwrap();
    assert_eq!(fleet.nodes["own"].boot_default().unwrap(), running);
    assert!(!Path::new(&running).exists(), "it was built there, and nowhere else");
    let said = seen["source"]["publishError"].as_str().unwrap_or_default();
    assert!(said.contains("cannot push to the binary cache http://127.0.0.1:9"), "{seen:#}");
    let status = fleet.driftless(&["status"]).unwrap().stdout;
    assert!(status.contains("what was built last is not published, nodes get it from here"), "{status}");
    let built = fleet.driftless(&["build"]).unwrap();
    assert!(built.stdout.contains("ours /nix/store/") && !built.stdout.contains("own "), "{built:?}");

    let broken =
        "environment.systemPackages = [ (pkgs.runCommand \"broken-1\" { } \"echo it went wrong; exit 1\") ];";
    let two = commit(&fleet, "two", broken);
    let seen = fleet
        .wait("own does not build, ours goes on", SOON, |seen| {
            is(&seen["nodes"]["own"], "hold", "not-built")
                && seen["nodes"]["ours"]["state"] == "in-sync"
                && seen["nodes"]["ours"]["runningRevision"] == two[..7]
        })
        .unwrap();
    assert!(text(&fleet, "ours").starts_with("two"));
    let said = seen["nodes"]["own"]["decision"]["hold"]["error"].as_str().unwrap();
    assert!(said.contains("broken-1") && said.contains("it went wrong"), "{said}");
    assert_eq!(fleet.nodes["own"].running().unwrap(), running);

    let three = commit(&fleet, "three", "");
    fleet.wait_in_sync(&three, SOON).unwrap();
    assert!(text(&fleet, "own").starts_with("three"));
    let roots = fleet.nodes["own"].enter("ls /nix/var/nix/gcroots/driftless").unwrap().stdout;
    assert_eq!(roots.trim(), "", "roots end with their switches");
    assert_eq!(fleet.stop().unwrap(), Some(0), "{}", fleet.log());

    let cache = fleet.dir().join("cache");
    let url = format!("file://{}", cache.display());
    std::fs::write(fleet.config_file(), config.replace("http://127.0.0.1:9", &url)).unwrap();
    fleet.start().unwrap();
    let four = commit(&fleet, "four", "");
    let seen = fleet.wait_in_sync(&four, SOON).unwrap();
    assert!(seen["source"]["publishError"].is_null(), "{seen:#}");
    let is_cached = |name: &str| {
        let system = fleet.nodes[name].running().unwrap();
        let hash = system.strip_prefix("/nix/store/").unwrap().split('-').next().unwrap();
        cache.join(format!("{hash}.narinfo")).exists()
    };
    assert!(is_cached("ours") && !is_cached("own"), "what is built here is pushed, and nothing else");
}
