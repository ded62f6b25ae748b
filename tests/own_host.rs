//! `host = "localhost"`: the same switch without SSH, by a driftless that runs on the node itself.

use std::fs;

use driftless_lab::{Fault, Lab, Node, Setup, System};
use serde_json::json;

/// A node with the program on it, and what it says when it deploys a release of itself.
struct OwnHost {
    machine: Node,
    _lab: Lab,
}

impl OwnHost {
    fn new(first: &str) -> Self {
        let lab = Lab::start().unwrap();
        // An unoptimised driftless is big.
        let setup = Setup { var_bytes: 512 << 20, ..Setup::default() };
        let machine = lab.node_with("n1", first, &setup).unwrap();
        let program = machine.path("/var/driftless");
        fs::copy(env!("CARGO_BIN_EXE_driftless"), program).unwrap();
        Self { machine, _lab: lab }
    }

    /// Deploys a system that is in the node's own store already, as a build on the node would leave it.
    fn deploy(&self, system: &str) -> driftless_lab::Output {
        self.machine.receive(system).unwrap();
        let spec = json!({
            "drv": format!("{system}.drv"), "toplevel": system, "system": "x86_64-linux", "host": "localhost",
            "switchTimeout": 20, "successTimeout": 8, "healthTimeout": 8,
        });
        let manifest = json!({ "version": 1, "format": "driftless", "nodes": { "n1": spec } });
        fs::write(self.machine.path("/var/release.json"), manifest.to_string()).unwrap();
        let deploy = "cd /var && STATE_DIRECTORY=/var/state HOME=/root /var/driftless deploy --release /var/release.json";
        self.machine.enter(deploy).unwrap()
    }
}

#[test]
fn a_host_deploys_to_itself_without_ssh() {
    let first = System::new("first").build().unwrap();
    let host = OwnHost::new(&first);
    host.machine.stop_sshd().unwrap();
    let second = System::new("second").build().unwrap();
    let said = host.deploy(&second);
    assert!(said.success(), "{said:?}");
    assert_eq!(host.machine.running().unwrap(), second);
    assert_eq!(host.machine.loader_default().unwrap(), second);
}

#[test]
fn a_host_that_breaks_itself_rolls_back() {
    let first = System::new("first").build().unwrap();
    let host = OwnHost::new(&first);
    let said = host.deploy(&System::new("bad").fault(Fault::UnitFails).build().unwrap());
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.stderr.contains("lab-broken.service"), "{said:?}");
    assert_eq!(host.machine.running().unwrap(), first);
}
