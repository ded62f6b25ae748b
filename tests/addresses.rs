//! Deployments that move a node: another port, address or host key. Work goes to where the node answered last, contact to
//! where it is declared; whatever fails, the node stays within reach.

use std::process::Command;
use std::time::Duration;

use driftless_lab::{Fleet, Lab, Setup, System};
use serde_json::Value;

use crate::beginning::fleet_of;

const SOON: Duration = Duration::from_secs(60);

/// How a node is declared, and what its system makes of it.
#[derive(Clone)]
struct Place {
    host: String,
    port: u16,
    key: String,
    activation: String,
}

/// Where sshd listens from the next activation on.
fn listen(port: u16) -> String {
    format!("echo Port {port} >/etc/ssh/sshd_config.d/port.conf; systemctl restart sshd")
}

/// The only address from the next activation on.
fn live_at(address: &str) -> String {
    let gateway = format!("{}.1", address.rsplit_once('.').unwrap().0);
    format!(
        "printf '%s\\n' 'addr replace {address}/24 dev eth0' 'route replace default via {gateway}' >/run/lab-network; \
         ip addr flush dev eth0 scope global; ip -batch /run/lab-network"
    )
}

/// The host key from the next activation on.
fn be(key: &str) -> String {
    format!("install -m 600 /etc/ssh/{key} /etc/ssh/ssh_host_ed25519_key; systemctl restart sshd")
}

/// A neighbour of a node's address; nobody else's, because a lab numbers its nodes from 10.
fn neighbour(address: &str, number: u8) -> String {
    format!("{}.{number}", address.rsplit_once('.').unwrap().0)
}

struct World {
    fleet: Fleet,
    /// Public halves of the keys in /etc/ssh of every node.
    other_key: String,
}

impl World {
    fn new(names: &[&str]) -> Self {
        let lab = Lab::start().unwrap();
        let first = System::new("installed").build().unwrap();
        let (private, public) = key_pair();
        let setup = Setup { files: vec![("/etc/ssh/other".into(), private)], ..Setup::default() };
        let nodes = std::thread::scope(|scope| {
            let boot = |name| lab.node_with(name, &first, &setup).unwrap();
            let booting: Vec<_> = names.iter().map(|name| scope.spawn(move || boot(name))).collect();
            booting.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
        });
        for node in &nodes {
            node.enter("cp /etc/ssh/ssh_host_ed25519_key /etc/ssh/first").unwrap().ok().unwrap();
        }
        Self { fleet: fleet_of(&lab, nodes), other_key: public }
    }

    fn address(&self, name: &str) -> String {
        self.fleet.nodes[name].address().to_string()
    }

    /// Where a node is when the lab starts.
    fn at_first(&self, name: &str, activation: String) -> Place {
        let key = self.fleet.nodes[name].host_key().to_owned();
        Place { host: format!("root@{}", self.address(name)), port: 22, key, activation }
    }

    fn commit(&self, message: &str, places: &[(&str, &Place, &str)]) -> String {
        let mut text = "import <driftless> { } ({ lib, ... }: {\n  defaults = { name, ... }: {\n    hasFastConnection = true; \
                        switchTimeout = 30; successTimeout = lib.mkDefault 30; healthTimeout = 60;\n    \
                        configuration.networking.hostName = name;\n  };\n"
            .to_owned();
        for (name, Place { host, port, key, activation }, more) in places {
            text += &format!(
                "  nodes.{name} = {{\n    host = \"{host}\"; port = {port}; hostKeys = [ \"{key}\" ]; {more}\n    \
                 configuration.lab.text = \"{message}\";\n    \
                 configuration.system.activationScripts.way = ''\n{activation}\n'';\n  }};\n"
            );
        }
        text += "})\n";
        self.fleet.commit(message, &[("deployment.nix", &text)]).unwrap()
    }

    fn in_sync(&mut self, commit: &str) {
        let seen = self.fleet.wait_in_sync(commit, SOON).unwrap();
        for (name, node) in seen["nodes"].as_object().unwrap() {
            assert!(node["observation"]["elsewhere"].is_null(), "{name}: {node:#}");
        }
    }

    fn logs(&self) -> String {
        let log = |node: &driftless_lab::Node| {
            let logs =
                "cat /var/lib/driftless-node/switches/*/log /var/lib/driftless-node/switches/*/summary";
            format!(
                "{}: {}\n",
                node.name(),
                node.enter(logs).map_or_else(|e| e.to_string(), |said| said.stdout)
            )
        };
        self.fleet.nodes.values().map(log).collect()
    }
}

fn key_pair() -> (String, String) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("key");
    let made =
        Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&file).status().unwrap();
    assert!(made.success());
    let public = std::fs::read_to_string(file.with_extension("pub")).unwrap();
    let public = public.split(' ').take(2).collect::<Vec<_>>().join(" ");
    (std::fs::read_to_string(&file).unwrap(), public)
}

/// Whether anybody answers SSH there.
fn answers(address: &str, port: u16) -> bool {
    let scan =
        Command::new("ssh-keyscan").args(["-T", "5", "-p", &port.to_string(), address]).output().unwrap();
    !scan.stdout.is_empty()
}

#[test]
fn a_commit_moves_nodes_to_another_port_address_or_host_key_and_a_wrong_one_leaves_them_in_reach() {
    let mut world = World::new(&["port", "place", "key"]);
    let port = world.at_first("port", listen(22));
    let place = world.at_first("place", live_at(&world.address("place")));
    let key = world.at_first("key", be("first"));
    let first = world.commit("first", &[("port", &port, ""), ("place", &place, ""), ("key", &key, "")]);
    world.fleet.start().unwrap();
    world.in_sync(&first);

    let moved_to = neighbour(&world.address("place"), 250);
    let moved_port = Place { port: 2222, activation: listen(2222), ..port.clone() };
    let moved_place =
        Place { host: format!("root@{moved_to}"), activation: live_at(&moved_to), ..place.clone() };
    let moved_key = Place { key: world.other_key.clone(), activation: be("other"), ..key.clone() };
    let moved = world
        .commit("moved", &[("port", &moved_port, ""), ("place", &moved_place, ""), ("key", &moved_key, "")]);
    world.in_sync(&moved);
    assert!(!answers(&world.address("port"), 22) && answers(&world.address("port"), 2222));
    assert!(!answers(&world.address("place"), 22) && answers(&moved_to, 22));

    // A slip of the pen in each: the systems move to where nobody looks for them, or stay.
    let (wanted, really) = (neighbour(&moved_to, 251), neighbour(&moved_to, 252));
    let lost_port = Place { port: 3333, activation: listen(4444), ..moved_port.clone() };
    let lost_place =
        Place { host: format!("root@{wanted}"), activation: live_at(&really), ..moved_place.clone() };
    let lost_key = Place { key: key_pair().1, ..moved_key.clone() };
    let soon = "successTimeout = 8;";
    world.commit(
        "lost",
        &[("port", &lost_port, soon), ("place", &lost_place, soon), ("key", &lost_key, soon)],
    );
    let given_up = |seen: &Value| {
        ["port", "place", "key"].iter().all(|name| {
            let node = &seen["nodes"][name];
            node["decision"]["hold"]["kind"] == "given-up" && node["observation"]["elsewhere"].is_object()
        })
    };
    let seen = world.fleet.wait("each is given up and still in reach", SOON, given_up);
    let seen = seen.unwrap_or_else(|error| panic!("{error:#}\n{}", world.logs()));
    let why = |name: &str| seen["nodes"][name]["why"].as_str().unwrap().to_owned();
    let says = |name: &str, words: &[&str]| {
        let why = why(name);
        assert!(words.iter().all(|word| why.contains(word)), "{name}: {why}");
    };
    let lost = "lost contact after activation: no new login within 8 s over ";
    says("port", &[lost, " port 3333; started over ", " port 2222; retried on a new commit"]);
    says("place", &[lost, &wanted, &format!("; started over root@{moved_to}")]);
    says("key", &[lost, "host key …", &world.other_key[world.other_key.len() - 8..]]);

    // A successor finds them again, and people reach them where they are.
    world.fleet.kill().unwrap();
    world.fleet.start().unwrap();
    world.fleet.wait("the successor finds them", SOON, given_up).unwrap();
    for name in ["port", "place", "key"] {
        let logs = world.fleet.driftless(&["logs", name]).unwrap();
        assert!(logs.success() && logs.stdout.contains("no new login"), "{logs:?}");
    }

    // Both commits are reverted: back to where they came from, over the way that answers.
    world.fleet.git(&["checkout", "-q", &first, "--", "deployment.nix"]).unwrap();
    let back = world.fleet.commit("back", &[]).unwrap();
    world.in_sync(&back);
    assert!(answers(&world.address("port"), 22) && answers(&world.address("place"), 22));
}

#[test]
fn a_successor_follows_a_node_that_moves_while_nobody_watches() {
    let mut world = World::new(&["early", "late"]);
    let early = world.at_first("early", live_at(&world.address("early")));
    let late = world.at_first("late", listen(22));
    let first = world.commit("first", &[("early", &early, ""), ("late", &late, "")]);
    world.fleet.start().unwrap();
    world.in_sync(&first);

    let address = neighbour(&world.address("early"), 250);
    let early = Place { host: format!("root@{address}"), activation: live_at(&address), ..early };
    let late = Place { port: 2222, activation: listen(2222), ..late };
    let waits = "configuration.lab.faults.gate = \"test\";";
    let gate = "healthChecks.commands.gate = \"test -e /run/open\";";
    let moved = world.commit("moved", &[("early", &early, waits), ("late", &late, gate)]);
    let phase = |seen: &Value, name: &str| seen["nodes"][name]["inFlight"]["stage"]["phase"].clone();
    world
        .fleet
        .wait("one is about to move and the other has", SOON, |seen| {
            phase(seen, "early") == "testing" && phase(seen, "late") == "health"
        })
        .unwrap();
    world.fleet.kill().unwrap();
    world.fleet.nodes["early"].open_gate().unwrap();
    world.fleet.start().unwrap();
    world.fleet.wait("the successor watches", SOON, |seen| phase(seen, "late") == "health").unwrap();
    world.fleet.nodes["late"].enter("touch /run/open").unwrap();
    world.in_sync(&moved);
    for node in world.fleet.nodes.values() {
        let switches = node.enter("ls /var/lib/driftless-node/switches | wc -l").unwrap();
        assert_eq!(switches.stdout.trim(), "2", "{}: {}", node.name(), world.logs());
    }
}

#[test]
fn a_person_moves_a_node_by_naming_where_it_is() {
    let world = World::new(&["n1"]);
    let moved = Place {
        port: 2222,
        key: world.other_key.clone(),
        activation: format!("{}; {}", listen(2222), be("other")),
        ..world.at_first("n1", String::new())
    };
    world.commit("moved", &[("n1", &moved, "")]);
    let deploy = |more: &[&str]| {
        let verb = ["deploy", "--file", "deployment.nix"];
        world.fleet.driftless(&[&verb, more].concat()).unwrap()
    };
    let address = world.address("n1");
    let alone = deploy(&[]);
    assert!(!alone.success() && alone.stderr.contains("cannot connect to"), "{alone:?}");
    // Its old key is in nobody's declaration: known_hosts has it.
    let unknown = deploy(&["--via", &address]);
    assert!(!unknown.success() && unknown.stderr.contains("the host key has changed"), "{unknown:?}");
    let known = world.fleet.dir().join("known_hosts");
    std::fs::write(&known, format!("{address} {}\n", world.fleet.nodes["n1"].host_key())).unwrap();
    let config = std::fs::read_to_string(world.fleet.config_file()).unwrap();
    let config = config.replace("[ssh]\n", &format!("[ssh]\nknown_hosts_file = \"{}\"\n", known.display()));
    std::fs::write(world.fleet.config_file(), config).unwrap();
    let done = deploy(&["--via", &address]);
    assert!(done.success() && done.stdout.contains("deployed"), "{done:?} {}", world.logs());
    let again = deploy(&[]);
    assert!(again.success() && again.stdout.contains("in sync"), "{again:?}");
}
