//! Others who switch the same nodes: a second controller, and a person. Nobody acts twice at once or fights for ever.

use std::fs;
use std::process::{Child, Command, Stdio};

use super::*;

/// A second controller, with a state directory of its own.
struct Rival(Child);

impl Rival {
    fn start(fleet: &Fleet, branch: &str) -> Self {
        let dir = fleet.dir().join("rival");
        fs::create_dir_all(&dir).unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let text = fleet
            .config_text(&fleet.repository().display().to_string())
            .replace(&fleet.address(), &format!("127.0.0.1:{port}"))
            .replace("r/control.sock", "rival/control.sock")
            .replace("poll = ", &format!("branch = \"{branch}\"\npoll = "));
        fs::write(dir.join("driftless.toml"), text).unwrap();
        let log = fs::File::create(dir.join("log")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_driftless"));
        command.args(["run", "--config"]).arg(dir.join("driftless.toml"));
        fleet.environment(&mut command);
        command.env("STATE_DIRECTORY", dir.join("state")).env("RUNTIME_DIRECTORY", &dir);
        Self(command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap())
    }
}

impl Drop for Rival {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        let _ = self.0.wait();
    }
}

#[test]
fn two_controllers_and_a_person_on_the_same_nodes_neither_act_twice_at_once_nor_fight_for_ever() {
    let mut fleet = fleet(&["n1", "n2"]);
    let first = commit(&fleet, "first", |_| format!("{} configuration.lab.faults.slow = 1;", patient("one")));
    let rival = Rival::start(&fleet, "main");
    fleet.start().unwrap();
    fleet.wait_in_sync(&first, SOON).unwrap();
    assert_eq!((switches(&fleet, "n1"), switches(&fleet, "n2")), (1, 1), "one of the two did it");
    let release = fleet.dir().join("rival/state/release.json");
    // A person at the same time: what wins is one of the two, whole, and the other says why not.
    let person = fleet.driftless(&["rollback", "--on", "n2", "--reason", "mine"]).unwrap();
    assert!(person.success(), "{person:?}");
    drop(rival);
    assert!(release.exists());

    // Now they want different things of n1.
    fleet.git(&["checkout", "-q", "-b", "rival"]).unwrap();
    commit(&fleet, "theirs", |_| patient("theirs"));
    fleet.git(&["checkout", "-q", "main"]).unwrap();
    let _rival = Rival::start(&fleet, "rival");
    let contested = |seen: &Value| {
        is(&seen["nodes"]["n1"], "hold", "backoff")
            && seen["nodes"]["n1"]["why"].as_str().unwrap().contains("another controller")
    };
    fleet.wait("the fight is noticed", SOON, contested).unwrap();
    let seen = fleet.snapshot().unwrap();
    let journal = seen["nodes"]["n1"]["observation"]["state"]["journal"].as_array().unwrap();
    assert!(journal.len() <= 8, "{journal:#?}");
    assert!(journal.iter().all(|entry| entry["outcome"] != "failed"), "{journal:#?}");
}
