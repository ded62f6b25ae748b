//! A hive on a real node: from an unedited repository to a machine that runs it.

use std::fs;
use std::time::Duration;

use crate::beginning::fleet;

#[test]
fn a_controller_keeps_a_node_equal_to_a_colmena_hive() {
    let mut fleet = fleet(&["n1"]);
    let known_hosts = fleet.dir().join("known_hosts");
    let node = &fleet.nodes["n1"];
    fs::write(&known_hosts, format!("{} {}\n", node.address(), node.host_key())).unwrap();
    let hive = |text: &str| {
        format!(
            "{{
               meta.nixpkgs = import <nixpkgs> {{ system = \"x86_64-linux\"; }};
               defaults = {{ name, ... }}: {{ networking.hostName = name; }};
               n1 = {{ imports = [ ./n1.nix ]; lab.text = \"{text}\"; }};
             }}"
        )
    };
    let key = fleet.dir().join("token");
    fs::write(&key, "the token").unwrap();
    let n1 = format!(
        "{{
           deployment.keys.token = {{ keyFile = \"{}\"; permissions = \"0440\"; }};
           systemd.services.reader = {{
             wantedBy = [ \"multi-user.target\" ]; requires = [ \"token-key.service\" ]; after = [ \"token-key.service\" ];
             serviceConfig = {{ Type = \"oneshot\"; RemainAfterExit = true; }}; script = \"test -s /run/keys/token\";
           }};
           deployment.targetHost = \"{}\";
           deployment.tags = [ \"web\" ];
           deployment.sshOptions = [ \"-o\" \"UserKnownHostsFile={}\" ];
         }}",
        key.display(),
        node.address(),
        known_hosts.display()
    );
    let url = fleet.repository().display().to_string();
    let config = fleet.config_text(&url).replace("poll =", "deployment = \"hive.nix\"\npoll =");
    fs::write(fleet.config_file(), config).unwrap();

    let commit = fleet.commit("first", &[("hive.nix", &hive("one")), ("n1.nix", &n1)]).unwrap();
    fleet.start().unwrap();
    let seen = fleet.wait_in_sync(&commit, Duration::from_secs(60)).unwrap();
    assert_eq!(seen["nodes"]["n1"]["spec"]["tags"][0], "web", "{seen:#}");
    let node = &fleet.nodes["n1"];
    assert_eq!(node.enter("cat /run/keys/token").unwrap().stdout, "the token");
    assert_eq!(node.enter("stat -L -c '%U %a' /run/keys/token").unwrap().stdout.trim(), "root 440");
    let commit = fleet.commit("second", &[("hive.nix", &hive("two"))]).unwrap();
    fleet.wait_in_sync(&commit, Duration::from_secs(60)).unwrap();
    assert_eq!(fleet.nodes["n1"].enter("cat /etc/lab-text").unwrap().stdout.trim(), "two");
}
