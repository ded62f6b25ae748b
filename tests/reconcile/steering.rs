//! What people say to a running controller: it holds, also when the controller forgets it; it ends when they say so; and
//! nonsense is refused in words.

use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};

use super::*;

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// Says something that has to be heard.
fn say(fleet: &Fleet, words: &[&str]) -> String {
    let said = fleet.driftless(words).unwrap();
    assert!(said.success(), "{words:?}: {}{}\n{}", said.stdout, said.stderr, fleet.log());
    said.stdout
}

/// Says something that has to be refused.
fn refused(fleet: &Fleet, code: i32, words: &[&str]) -> String {
    let said = fleet.driftless(words).unwrap();
    assert_eq!(said.code, Some(code), "{words:?}: {}{}", said.stdout, said.stderr);
    said.stderr
}

fn is_text(fleet: &Fleet, name: &str, text: &str) -> bool {
    fleet.nodes[name].enter("cat /etc/lab-text").unwrap().stdout.trim() == text
}

fn marks(seen: &Value, name: &str) -> usize {
    seen["nodes"][name]["observation"]["state"]["suspended"].as_array().map_or(0, Vec::len)
}

#[test]
fn a_suspended_node_is_left_alone_also_by_a_controller_that_has_lost_its_state() {
    let mut fleet = fleet(&["web1", "web2"]);
    let first = commit(&fleet, "first", |_| text("one"));
    fleet.start().unwrap();
    fleet.wait_in_sync(&first, SOON).unwrap();
    let said = say(&fleet, &["suspend", "web*", "--reason", "disk\tswap", "--for", "2h"]);
    assert!(said.starts_with("suspended web1, web2 until 20"), "{said}");
    let seen = fleet.snapshot().unwrap();
    assert_eq!(seen["nodes"]["web1"]["suspended"]["reason"], "disk swap", "it counts when it is answered");
    let status = say(&fleet, &["status"]);
    assert!(status.contains("in sync (suspended)") && status.contains("Suspended: web*"), "{status}");
    let metrics = fleet.get("/metrics").unwrap();
    assert!(metrics.contains("driftless_node_suspended{node=\"web1\"} 1"), "{metrics}");

    // One of the two goes on; the other one stays.
    let said = say(&fleet, &["resume", "web2"]);
    assert!(said.starts_with("resumed web2; web1 stays suspended"), "{said}");
    commit(&fleet, "second", |_| text("two"));
    let has_second = |seen: &Value| {
        is(&seen["nodes"]["web1"], "hold", "suspended")
            && seen["nodes"]["web2"]["state"] == "in-sync"
            && seen["nodes"]["web2"]["runningRevision"] == seen["nodes"]["web2"]["desiredRevision"]
            && marks(seen, "web1") == 1
            && marks(seen, "web2") == 0
    };
    fleet.wait("web2 has it, and web1 a mark", SOON, has_second).unwrap();
    assert!(is_text(&fleet, "web1", "one") && is_text(&fleet, "web2", "two"));

    assert_eq!(fleet.stop().unwrap(), Some(0), "{}", fleet.log());
    std::fs::remove_dir_all(fleet.state()).unwrap();
    fleet.start().unwrap();
    let seen = fleet
        .wait("the successor knows by the mark", SOON, |seen| {
            seen["ready"] == "ready" && is(&seen["nodes"]["web1"], "hold", "suspended")
        })
        .unwrap();
    assert!(seen["intent"]["suspensions"].as_object().unwrap().is_empty(), "{seen:#}");
    let passes = seen["passes"].as_u64();
    fleet.wait("some passes are over", SOON, |seen| seen["passes"].as_u64() > passes.map(|n| n + 8)).unwrap();
    assert!(is_text(&fleet, "web1", "one"));
    let status = say(&fleet, &["status"]);
    assert!(status.contains("known by the marks on them"), "{status}");

    let said = say(&fleet, &["resume", "web1"]);
    assert!(said.starts_with("resumed web1 (20"), "{said}");
    fleet
        .wait("web1 has it too, and no mark", SOON, |seen| {
            seen["nodes"]["web1"]["state"] == "in-sync" && marks(seen, "web1") == 0
        })
        .unwrap();
    assert!(is_text(&fleet, "web1", "two"));
    assert!(!fleet.nodes["web1"].path("/var/lib/driftless-node/suspended").exists());
}

#[test]
fn a_node_that_was_out_of_reach_gets_its_mark_and_loses_it_when_it_returns() {
    let mut fleet = fleet(&["web1"]);
    let first = commit(&fleet, "first", |_| text("one"));
    fleet.start().unwrap();
    fleet.wait_in_sync(&first, SOON).unwrap();
    let away = |fleet: &mut Fleet| {
        fleet.nodes["web1"].power_off().unwrap();
        fleet.wait("it is away", SOON, |seen| seen["nodes"]["web1"]["state"] == "unreachable").unwrap();
    };
    away(&mut fleet);
    say(&fleet, &["suspend", "web1", "--reason", "disk swap"]);
    fleet.nodes["web1"].start().unwrap();
    fleet.wait("it is marked", SOON, |seen| marks(seen, "web1") == 1).unwrap();
    away(&mut fleet);
    say(&fleet, &["resume", "--all"]);
    fleet.nodes["web1"].start().unwrap();
    let back = |seen: &Value| seen["nodes"]["web1"]["state"] == "in-sync" && marks(seen, "web1") == 0;
    let seen = fleet.wait("it has no mark", SOON, back).unwrap();
    assert!(seen["nodes"]["web1"]["suspended"].is_null(), "{seen:#}");
}

#[test]
fn what_cannot_be_read_keeps_the_controller_from_acting_until_a_person_says_resume() {
    let mut fleet = fleet(&["n1"]);
    let before = fleet.nodes["n1"].running().unwrap();
    commit(&fleet, "first", |_| text("one"));
    std::fs::create_dir_all(fleet.state()).unwrap();
    let file = fleet.state().join("intent.json");
    std::fs::write(&file, "{\"version\": 1, \"suspensi").unwrap();
    fleet.start().unwrap();
    let seen = fleet.wait("n1 is held", SOON, |seen| is(&seen["nodes"]["n1"], "hold", "suspended")).unwrap();
    let why = seen["nodes"]["n1"]["why"].as_str().unwrap();
    assert!(why.contains("suspended by driftless") && why.contains("intent.json is damaged"), "{why}");
    let said = refused(&fleet, 1, &["suspend", "n1", "--reason", "x"]);
    assert!(said.contains("say `driftless resume` first"), "{said}");
    assert!(say(&fleet, &["status"]).contains("Only observing:"));
    assert_eq!((marks(&seen, "n1"), fleet.nodes["n1"].running().unwrap()), (0, before));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "{\"version\": 1, \"suspensi");

    say(&fleet, &["resume"]);
    fleet.wait("it goes on", SOON, |seen| seen["nodes"]["n1"]["state"] == "in-sync").unwrap();
    assert!(is_text(&fleet, "n1", "one"));
    let aside: Vec<String> = std::fs::read_dir(fleet.state())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with("intent.json.unreadable-"))
        .collect();
    assert_eq!(aside.len(), 1, "{aside:?}");
}

#[test]
fn a_wave_waits_for_a_person_who_approves_exactly_what_was_shown() {
    let mut fleet = fleet(&["db1", "web1"]);
    let first = commit(&fleet, "first", |_| text("one"));
    fleet.start().unwrap();
    fleet.wait_in_sync(&first, SOON).unwrap();
    assert!(refused(&fleet, 1, &["approve"]).contains("nothing waits for approval"));
    let waves = "rollout.waves = [ { on = \"web1\"; } { on = \"*\"; approval = true; } ];";
    let deployment = fleet.deployment(waves, |_| text("two"));
    fleet.commit("second", &[("deployment.nix", &deployment)]).unwrap();
    let seen = fleet
        .wait("db1 waits for approval", SOON, |seen| is(&seen["nodes"]["db1"], "hold", "approval"))
        .unwrap();
    let hash = seen["nodes"]["db1"]["decision"]["hold"]["hash"].as_str().unwrap().to_owned();
    let status = say(&fleet, &["status"]);
    assert!(status.contains(&format!("`driftless approve --hash {hash}`")), "{status}");
    let asked = refused(&fleet, 1, &["approve", "--wave", "2"]);
    assert!(asked.contains("give --yes"), "{asked}");
    let other = refused(&fleet, 1, &["approve", "--hash", "ffffffffffff", "--yes"]);
    assert!(other.contains("what waits:") && other.contains(&hash), "{other}");
    assert!(is_text(&fleet, "db1", "one"));
    let said = say(&fleet, &["approve", "db1", "--yes"]);
    assert!(said.contains("wave 2 waits for approval") && said.contains("approved wave 2"), "{said}");
    fleet.wait("db1 has it", SOON, |seen| seen["nodes"]["db1"]["state"] == "in-sync").unwrap();
    assert!(is_text(&fleet, "db1", "two"));
}

#[test]
fn what_was_said_to_a_controller_that_did_not_run_is_found_when_it_starts() {
    let mut fleet = fleet(&["n1"]);
    commit(&fleet, "first", |_| text("one"));
    let said = say(&fleet, &["suspend", "n1", "--reason", "not yet"]);
    assert!(said.contains("No controller runs here; the next one finds it"), "{said}");
    assert!(refused(&fleet, 1, &["override", "*", "--reason", "x", "--for", "1h"]).contains("no controller"));
    assert!(refused(&fleet, 1, &["approve"]).contains("no controller is running"));
    assert!(refused(&fleet, 1, &["status", "--watch"]).contains("no controller is running"));
    fleet.start().unwrap();
    fleet.wait("n1 is held", SOON, |seen| is(&seen["nodes"]["n1"], "hold", "suspended")).unwrap();
    fleet.stop().unwrap();
    say(&fleet, &["resume", "n1"]);
    fleet.start().unwrap();
    fleet.wait("it goes on", SOON, |seen| seen["nodes"]["n1"]["state"] == "in-sync").unwrap();
}

#[test]
fn nonsense_is_refused_in_words_and_acting_over_http_takes_the_token() {
    let mut fleet = fleet(&["n1"]);
    let first = commit(&fleet, "first", |_| text("one"));
    fleet.start().unwrap();
    fleet.wait_in_sync(&first, SOON).unwrap();
    assert!(
        refused(&fleet, 1, &["suspend", "n9", "--reason", "x"])
            .contains("no node matches \"n9\"; the nodes are n1")
    );
    assert!(refused(&fleet, 1, &["suspend", "n1", "--reason", " "]).contains("a reason is needed"));
    assert!(refused(&fleet, 64, &["suspend", "n1"]).contains("--reason"));
    assert!(
        refused(&fleet, 64, &["suspend", "n1", "--reason", "x", "--for", "-1h"])
            .contains("not a time to come")
    );
    let past = ["suspend", "n1", "--reason", "x", "--until", "2020-01-01 08:00"];
    assert!(refused(&fleet, 64, &past).contains("in the past"));
    assert!(refused(&fleet, 1, &["override", "n1", "--reason", "x"]).contains("--for"));
    assert!(
        refused(&fleet, 1, &["override", "n1", "--reason", "x", "--for", "30d"]).contains("more than 7 days")
    );
    assert!(refused(&fleet, 1, &["resume", "n1"]).contains("not suspended: n1"));
    assert!(refused(&fleet, 1, &["resume"]).contains("resume what?"));
    assert!(refused(&fleet, 1, &["resume", "--id", "20261122T120000Z-00000001"]).contains("not suspended"));

    let suspend = "{\"on\":\"n1\",\"reason\":\"over HTTP\",\"by\":\"ci\"}";
    let (code, said) = post(&fleet, "suspend", &[], suspend);
    assert!(code == 403 && said.contains("serve.token_file"), "{code} {said}");
    fleet.stop().unwrap();
    let token = fleet.dir().join("token");
    std::fs::write(&token, format!("{TOKEN}\n")).unwrap();
    let config = std::fs::read_to_string(fleet.config_file()).unwrap();
    let config = format!("{config}token_file = \"{}\"\n", token.display());
    std::fs::write(fleet.config_file(), config).unwrap();
    fleet.start().unwrap();
    std::thread::sleep(Duration::from_millis(300));
    assert!(!fleet.lives().unwrap(), "a token that everybody may read");
    assert!(fleet.log().contains("may read the token"), "{}", fleet.log());
    let _ = fleet.kill();
    std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o600)).unwrap();
    fleet.start().unwrap();
    fleet.wait_in_sync(&first, SOON).unwrap();

    let bearer = format!("Authorization: Bearer {TOKEN}");
    let wrong = format!("Authorization: Bearer {}", TOKEN.replace('0', "1"));
    let large = format!("{{\"on\":\"n1\",\"reason\":\"{}\"}}", "x".repeat(1 << 20));
    let plain = "Content-Type: text/plain";
    for (what, headers, document, expected) in [
        ("suspend", vec![], suspend, 401),
        ("suspend", vec![wrong.as_str()], suspend, 401),
        ("suspend", vec![&bearer, plain], suspend, 415),
        ("suspend", vec![&bearer], large.as_str(), 413),
        ("suspend", vec![&bearer, "Transfer-Encoding: chunked"], &large, 413),
        ("suspend", vec![&bearer], "{", 400),
        ("suspend", vec![&bearer], "{\"on\":\"n1\",\"reason\":\"x\",\"typo\":1}", 400),
        ("suspend", vec![&bearer], "{\"on\":\"n1\",\"reason\":\"\"}", 400),
        (
            "suspend",
            vec![&bearer],
            "{\"on\":\"n1\",\"reason\":\"x\",\"until\":\"2020-01-01T00:00:00Z\"}",
            400,
        ),
        ("suspend", vec![&bearer], "{\"on\":\"n9\",\"reason\":\"x\"}", 404),
        ("resume", vec![&bearer], "{\"on\":\"n1\"}", 404),
        ("approve", vec![&bearer], "{\"hash\":\"ffffffffffff\"}", 409),
        ("approve", vec![&bearer], "{\"hash\":\"FFFF\"}", 400),
        ("dance", vec![&bearer], "{}", 404),
        ("suspend", vec![&bearer], suspend, 200),
        (
            "override",
            vec![&bearer],
            "{\"on\":\"n1\",\"reason\":\"x\",\"until\":\"2020-01-01T00:00:00Z\"}",
            400,
        ),
    ] {
        let (code, said) = post(&fleet, what, &headers, document);
        assert_eq!(code, expected, "{what} {headers:?}: {said}");
        assert!(expected == 200 || said.contains("\"error\""), "{said}");
    }
    let intent: Value = serde_json::from_str(&fleet.get("/api/v1/intent").unwrap()).unwrap();
    let suspensions = intent["suspensions"].as_object().unwrap();
    assert_eq!(suspensions.values().next().unwrap()["by"], "ci over HTTP", "{intent:#}");
    assert_eq!(suspensions.len(), 1);
    assert_eq!(fleet.stop().unwrap(), Some(0));
}

/// Acts over HTTP: the status, and what was said.
fn post(fleet: &Fleet, what: &str, headers: &[&str], document: &str) -> (u16, String) {
    let body = fleet.dir().join("body");
    std::fs::write(&body, document).unwrap();
    let mut curl = Command::new("curl");
    curl.args(["-sS", "-m", "20", "-w", "\n%{http_code}", "-X", "POST", "-H", "Expect:"]);
    if !headers.iter().any(|header| header.starts_with("Content-Type")) {
        curl.args(["-H", "Content-Type: application/json"]);
    }
    for header in headers {
        curl.args(["-H", header]);
    }
    curl.arg("--data-binary").arg(format!("@{}", body.display()));
    let said = curl.arg(format!("http://{}/api/v1/intent/{what}", fleet.address())).output().unwrap();
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    let (said, code) = text.rsplit_once('\n').unwrap_or_else(|| panic!("{text}"));
    (code.parse().unwrap(), said.to_owned())
}

#[test]
fn whoever_watches_sees_each_change_until_he_has_seen_enough() {
    let mut fleet = fleet(&["n1"]);
    let first = commit(&fleet, "first", |_| text("one"));
    fleet.start().unwrap();
    fleet.wait_in_sync(&first, SOON).unwrap();
    let out = fleet.dir().join("watched");
    let mut command = Command::new(env!("CARGO_BIN_EXE_driftless"));
    command.args(["status", "--watch", "--config"]).arg(fleet.config_file()).current_dir(fleet.repository());
    fleet.environment(&mut command);
    let file = std::fs::File::create(&out).unwrap();
    let mut watching = command.stdin(Stdio::null()).stdout(file).spawn().unwrap();
    let seen = |words: &str| {
        let deadline = std::time::Instant::now() + SOON;
        while !std::fs::read_to_string(&out).unwrap().contains(words) {
            assert!(std::time::Instant::now() < deadline, "{}", std::fs::read_to_string(&out).unwrap());
            std::thread::sleep(Duration::from_millis(100));
        }
    };
    seen("n1: in sync\n");
    say(&fleet, &["suspend", "n1", "--reason", "disk swap"]);
    seen("n1: in sync (suspended)");
    fleet.stop().unwrap();
    seen("no controller is running");
    let id = watching.id().to_string();
    assert!(Command::new("kill").args(["-INT", &id]).status().unwrap().success());
    assert_eq!(watching.wait().unwrap().code(), Some(0));
}
