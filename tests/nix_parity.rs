//! What nixus has, option by option: deployments as a nixus user writes them, evaluated by real `nix-instantiate`.
//!
//! With the small nixpkgs of `tests/nixpkgs`, and again with the real one that `DRIFTLESS_TEST_NIXPKGS` names. Reaches no node.

use std::fs;
use std::path::Path;
use std::process::Output;

use serde_json::{Value, json};

use crate::nix_library::{BASE, Deployment, every_nixpkgs, our_nixpkgs, parsed, project, refused, stderr};

/// Two nodes with what every configuration needs, and in a file of its own what is said of them.
fn two_nodes(nixpkgs: &Path, body: &str) -> Deployment {
    let deployment = Deployment::ours(nixpkgs, "imports = [ ./nodes.nix ./part.nix ];");
    deployment.write(
        "nodes.nix",
        &format!("{{ defaults.configuration = {{ {BASE} }}; nodes = {{ web = {{ }}; db = {{ }}; }}; }}"),
    );
    deployment.write("part.nix", &format!("{{ config, lib, nixus, ... }}: {{ {body} }}"));
    deployment
}

/// What an expression over the deployment `d` and its configurations `c` is.
fn ask(deployment: &Deployment, expression: &str) -> Value {
    parsed(&asked(deployment, expression))
}

fn asked(deployment: &Deployment, expression: &str) -> Output {
    let whole = format!(
        "let d = import ./deployment.nix; c = builtins.mapAttrs (_: node: node.configuration) d.config.nodes; in {expression}"
    );
    deployment
        .command("nix-instantiate")
        .args(["--eval", "--strict", "--json", "--read-write-mode", "--expr", &whole])
        .output()
        .unwrap()
}

const ACCESS: &str = r#"
    ssh.access.web = {
      hostKeys.ed25519 = "ssh-ed25519 WEB";
      hostNames = [ "web.example.org" "web" ];
      keys.deploy = { publicKey = "ssh-ed25519 DEPLOY\n"; hasAccessTo = { db.root = true; web.root = true; db.nobody = false; }; };
      keys.dump = { publicKey = "ssh-ed25519 DUMP"; hasAccessTo.db.dump = true; };
    };
    ssh.access.db.hostKeys = { a = "ssh-ed25519 DB"; b = "ssh-rsa DB"; };
    nodes.db.configuration.users.users.dump = { isSystemUser = true; group = "dump"; };
    nodes.db.configuration.users.groups.dump = { };
"#;

#[test]
fn one_description_lets_keys_in_and_makes_hosts_known() {
    for nixpkgs in every_nixpkgs() {
        let deployment = two_nodes(&nixpkgs, ACCESS);
        let found = ask(
            &deployment,
            "builtins.mapAttrs (_: node: {
               known = builtins.mapAttrs (_: host: { inherit (host) hostNames publicKey; }) node.programs.ssh.knownHosts;
               root = node.users.users.root.openssh.authorizedKeys.keys or [ ];
               dump = node.users.users.dump.openssh.authorizedKeys.keys or [ ];
               nobody = node.users.users.nobody.openssh.authorizedKeys.keys or [ ];
             }) c",
        );
        assert_eq!(
            found,
            json!({
                "db": { "known": {}, "root": ["ssh-ed25519 DEPLOY"], "dump": ["ssh-ed25519 DUMP"], "nobody": [] },
                "web": {
                    "known": {
                        "db-a": { "hostNames": ["db"], "publicKey": "ssh-ed25519 DB" },
                        "db-b": { "hostNames": ["db"], "publicKey": "ssh-rsa DB" },
                        "web-ed25519": { "hostNames": ["web", "web.example.org", "localhost"], "publicKey": "ssh-ed25519 WEB" },
                    },
                    "root": ["ssh-ed25519 DEPLOY"], "dump": [], "nobody": [],
                },
            })
        );
        assert_eq!(deployment.nodes().as_object().unwrap().len(), 2, "and both have a system");
    }
}

/// A network with db as its server; `further` is added to it.
fn vpn(further: &str) -> String {
    format!(
        r#"
        nodes.db.configuration.networking.public.ipv4 = "192.0.2.1";
        vpn.networks.home = {{
          backend = "wireguard"; subnet = "10.9.0.0/24";
          server = {{ node = "db"; subnetIp = "10.9.0.1"; wireguard = {{ publicKey = "S="; privateKeyFile = "/s"; }}; }};
          clients.web = {{ subnetIp = "10.9.0.2"; wireguard = {{ publicKey = "W="; privateKeyFile = "/w"; }}; }};
        }};
        {further}"#
    )
}

const WIREGUARD: &str = "builtins.mapAttrs (_: node: builtins.mapAttrs (_: i: {
       inherit (i) address listenPort privateKeyFile;
       peers = map (p: { inherit (p) publicKey allowedIPs endpoint persistentKeepalive; }) i.peers;
     }) node.networking.wg-quick.interfaces) c";

#[test]
fn one_description_makes_a_network_of_a_server_and_its_clients() {
    for nixpkgs in every_nixpkgs() {
        let deployment = two_nodes(&nixpkgs, &vpn(""));
        let peer = |key: &str, ips: &str, endpoint: Value, alive: Value| json!([{ "publicKey": key, "allowedIPs": [ips], "endpoint": endpoint, "persistentKeepalive": alive }]);
        assert_eq!(
            ask(&deployment, WIREGUARD),
            json!({
                "db": { "nixus-home": { "address": ["10.9.0.1/24"], "listenPort": 51820, "privateKeyFile": "/s",
                    "peers": peer("W=", "10.9.0.2/32", Value::Null, Value::Null) } },
                "web": { "nixus-home": { "address": ["10.9.0.2/24"], "listenPort": null, "privateKeyFile": "/w",
                    "peers": peer("S=", "10.9.0.0/24", json!("192.0.2.1:51820"), json!(25)) } },
            })
        );
        let server = ask(
            &deployment,
            "[ c.db.networking.firewall.allowedUDPPorts c.db.boot.kernel.sysctl.\"net.ipv4.conf.nixus-home.forwarding\"
               c.db.networking.nat.enable ]",
        );
        assert_eq!(server, json!([[51820], true, false]));
        assert_eq!(deployment.nodes().as_object().unwrap().len(), 2, "and both have a system");
    }
}

#[test]
fn a_gateway_takes_everything_a_client_that_is_off_takes_no_part_and_ipv6_works_too() {
    let gateway = vpn(
        "vpn.networks.home.server = { internetGateway = true; internetGatewayInterface = \"eth0\"; };
         nodes.spare = { }; vpn.networks.home.clients.spare = { enable = false; subnetIp = \"10.9.0.3\"; wireguard = { publicKey = \"X=\"; privateKeyFile = \"/x\"; }; };
         vpn.networks.off = { enable = false; server.node = \"nobody\"; };
         vpn.networks.six = {
           interface = \"six\"; subnet = \"fd00:9::/64\";
           server = { node = \"web\"; port = 7; subnetIp = \"fd00:9::1\"; wireguard = { publicKey = \"S=\"; privateKeyFile = \"/s\"; }; };
           clients.db = { subnetIp = \"fd00:9::2\"; wireguard = { publicKey = \"W=\"; privateKeyFile = \"/w\"; }; };
         };
         nodes.web.configuration.networking.public.ipv6 = \"2001:db8::7\";",
    );
    for nixpkgs in every_nixpkgs() {
        let deployment = two_nodes(&nixpkgs, &gateway);
        let found = ask(&deployment, WIREGUARD);
        assert_eq!(found["web"]["nixus-home"]["peers"][0]["allowedIPs"], json!(["0.0.0.0/0"]));
        assert_eq!(found["db"]["nixus-home"]["peers"].as_array().unwrap().len(), 1);
        assert_eq!(found["spare"], json!({}));
        assert_eq!(found["web"]["six"]["peers"][0]["allowedIPs"], json!(["fd00:9::2/128"]));
        assert_eq!(found["db"]["six"]["peers"][0]["endpoint"], "[2001:db8::7]:7");
        let nat = ask(
            &deployment,
            "{ inherit (c.db.networking.nat) enable externalInterface internalInterfaces; }",
        );
        assert_eq!(
            nat,
            json!({ "enable": true, "externalInterface": "eth0", "internalInterfaces": ["nixus-home"] })
        );
    }
}

#[test]
fn public_addresses_are_facts_that_other_nodes_can_ask_for() {
    for nixpkgs in every_nixpkgs() {
        let deployment = two_nodes(
            &nixpkgs,
            "nodes.web.configuration.networking.public.ipv6 = \"2001:db8::7\";
             nodes.db.configuration = { nodes, ... }: { environment.etc.peer.text = nodes.web.networking.public.ipv6; };",
        );
        let found = ask(
            &deployment,
            "[ c.web.networking.public.hasIpv4 c.web.networking.public.hasIpv6 c.db.networking.public.hasIpv6 c.db.environment.etc.peer.text ]",
        );
        assert_eq!(found, json!([false, true, false, "2001:db8::7"]));
    }
}

/// A zone on db; `records` and `further` are added.
fn zone(records: &str, further: &str) -> String {
    format!(
        r#"
        dns.zones."example.org" = {{
          primaryNode = "db"; ttl = 300;
          soa = {{ master = "ns.example.org."; email = "host.master@example.org"; serial = 7; refresh = 1; retry = 2; expire = 3; negativeTtl = 4; }};
        }};
        dns.records = {{ "example.org.".NS = "ns.example.org."; "ns.example.org.".A = "192.0.2.1"; {records} }};
        {further}"#
    )
}

#[test]
fn records_go_into_the_zone_with_the_longest_name_and_the_zone_to_its_node() {
    let long = "y".repeat(300);
    let records = format!(
        r#"
        "example.org." = {{
          MX = [ "mail" {{ preference = 5; domain = "mx.example.net."; ttl = 60; }} ];
          TXT = [ "say \"a\\b\"" {{ text = "{long}"; }} ];
          CAA = [ "ca.example.net" {{ tag = "iodef"; value = "mailto:x@example.org"; flags.issuerCritical = true; }} ];
          AAAA = {{ address = "2001:db8::1"; }};
        }};
        "_x._tcp.example.org.".SRV = {{ port = 80; target = "www"; }};
        "www.b.example.org.".CNAME = "example.org.";
        "www.example.org.".A = config.nodes.web.configuration.networking.public.ipv4;
        "elsewhere.test.".A = {{ address = "192.0.2.9"; zone = "example.org"; }};
        "in.a.b.example.org.".A = "192.0.2.3";
        "#
    );
    let further = r#"
        nodes.web.configuration.networking.public.ipv4 = "192.0.2.2";
        dns.zones."a.b.example.org" = { primaryNode = "web"; ttl = 9; soa = { master = "m."; email = "e."; refresh = 1; retry = 1; expire = 1; negativeTtl = 1; }; };
    "#;
    for nixpkgs in every_nixpkgs() {
        let deployment = two_nodes(&nixpkgs, &zone(&records, further));
        let found = ask(
            &deployment,
            "builtins.mapAttrs (_: z: map (r: \"${r.name} ${toString r.ttl} ${r.type} ${r.data}\") z.records) d.config.dns.zones",
        );
        let inner: Vec<&str> =
            found["a.b.example.org"].as_array().unwrap().iter().map(|r| r.as_str().unwrap()).collect();
        assert_eq!(
            inner,
            ["a.b.example.org. 9 SOA m. e. @SERIAL@ 1 1 1 1", "in.a.b.example.org. 9 A 192.0.2.3"]
        );
        let outer: Vec<&str> =
            found["example.org"].as_array().unwrap().iter().map(|r| r.as_str().unwrap()).collect();
        let text = format!("example.org. 300 TXT \"{}\" \"{}\"", "y".repeat(255), "y".repeat(45));
        for line in [
            r"example.org. 300 SOA ns.example.org. host\.master.example.org. 7 1 2 3 4",
            "example.org. 300 NS ns.example.org.",
            "example.org. 300 MX 10 mail",
            "example.org. 60 MX 5 mx.example.net.",
            r#"example.org. 300 TXT "say \"a\\b\"""#,
            &text,
            r#"example.org. 300 CAA 0 issue "ca.example.net""#,
            r#"example.org. 300 CAA 128 iodef "mailto:x@example.org""#,
            "example.org. 300 AAAA 2001:db8::1",
            "_x._tcp.example.org. 300 SRV 0 100 80 www",
            "www.b.example.org. 300 CNAME example.org.",
            "www.example.org. 300 A 192.0.2.2",
            "elsewhere.test. 300 A 192.0.2.9",
        ] {
            assert!(outer.contains(&line), "no {line:?} in {outer:#?}");
        }
        let served = ask(
            &deployment,
            "builtins.mapAttrs (_: node: [ (map (z: z.name) (builtins.attrValues node.services.bind.zones)) node.networking.firewall.allowedTCPPorts or [ ] ]) c",
        );
        assert_eq!(served["db"], json!([["example.org"], [53]]));
        assert_eq!(served["web"], json!([["a.b.example.org"], [53]]));
    }
}

#[test]
fn a_zone_file_is_checked_when_it_is_built() {
    let build = |records: &str| {
        two_nodes(&our_nixpkgs(), &zone(records, ""))
            .command("nix-build")
            .args([
                "--no-out-link",
                "--expr",
                "(import ./deployment.nix).config.dns.zones.\"example.org\".zonefile",
            ])
            .output()
            .unwrap()
    };
    let good = build("");
    assert!(good.status.success(), "{}", stderr(&good));
    let file = String::from_utf8(good.stdout).unwrap();
    assert!(file.trim().ends_with("-example.org.zone"));
    assert!(fs::read_to_string(file.trim()).unwrap().contains("ns.example.org. 300 IN A 192.0.2.1\n"));
    let two_at_once = "\"www.example.org.\" = { CNAME = \"example.org.\"; TXT = \"and more\"; };";
    refused(&build(two_at_once), &["www.example.org: CNAME and other data", "not loaded due to errors"]);
    refused(&build("\"mail.example.org.\".MX = \"two words\";"), &["extra input text", "example.org.zone"]);
}

/// A deployment whose mistake is in `part.nix`: `fails` are the nodes that it concerns, and the others evaluate.
fn mistaken(part: &str, fails: &[&str], words: &[&str]) {
    for nixpkgs in every_nixpkgs() {
        let deployment = two_nodes(&nixpkgs, part);
        deployment.write(
            "deployment.nix",
            &fs::read_to_string(deployment.path().join("deployment.nix"))
                .unwrap()
                .replace("./nodes.nix", "./nodes.nix { nodes.other = { }; }"),
        );
        assert_eq!(deployment.names()["nodes"], json!(["db", "other", "web"]), "{part}");
        for node in ["db", "other", "web"] {
            let output = deployment.only(&[node]);
            if fails.contains(&node) {
                let words: Vec<&str> = words.iter().copied().chain(["part.nix"]).collect();
                refused(&output, &words);
            } else {
                assert!(output.status.success(), "{node} with {part}: {}", stderr(&output));
            }
        }
    }
}

const EVERYBODY: [&str; 3] = ["db", "other", "web"];

#[test]
fn a_mistaken_access_names_option_node_and_file_and_fails_only_who_takes_part() {
    mistaken(
        "ssh.access.wbe.hostKeys.a = \"ssh-ed25519 A\";",
        &EVERYBODY,
        &["ssh.access.wbe", "'wbe' is no node", "there are: db, other, web"],
    );
    mistaken(
        "ssh.access.web.keys.k = { publicKey = \"ssh-ed25519 A\"; hasAccessTo.bd.root = true; };",
        &EVERYBODY,
        &["ssh.access.web.keys.k.hasAccessTo.bd", "'bd' is no node"],
    );
    mistaken(
        "ssh.access.web.keys.k = { publicKey = \"ssh-ed25519 A\"; hasAccessTo.db.root = true; };",
        &["web"],
        &[
            "ssh.access.web.keys.k.hasAccessTo.db",
            "node web cannot know whom it talks to",
            "ssh.access.db.hostKeys is empty",
        ],
    );
    mistaken(
        "ssh.access.db.hostKeys.a = \"ssh-ed25519 A\"; ssh.access.web.keys.k = { publicKey = \"ssh-ed25519 A\"; hasAccessTo.db.bbo = true; };",
        &["db"],
        &["ssh.access.web.keys.k.hasAccessTo.db.bbo", "node db declares no user 'bbo'"],
    );
    mistaken(
        "nodes.db.configuration.services.openssh.enable = true; ssh.access.db.hostKeys.a = \"ssh-ed25519 A\"; ssh.access.web.keys.k = { publicKey = \"ssh-rsa A\\nssh-rsa B\"; hasAccessTo.db.root = true; };",
        &["db"],
        &["ssh.access.web.keys.k.publicKey", "public key on one line"],
    );
}

/// A network of web and db in which one thing is different.
fn network(different: &str) -> String {
    vpn(&format!("imports = [ {{ vpn.networks.home = {{ {different} }}; }} ];"))
}

#[test]
fn a_mistaken_network_names_option_node_and_file_and_fails_only_who_takes_part() {
    let both = ["db", "web"];
    mistaken(
        &network("server.node = lib.mkForce \"dbb\";"),
        &EVERYBODY,
        &["vpn.networks.home.server.node", "'dbb' is no node"],
    );
    mistaken(
        &network(
            "clients.wbe = { subnetIp = \"10.9.0.9\"; wireguard = { publicKey = \"X=\"; privateKeyFile = \"/x\"; }; };",
        ),
        &EVERYBODY,
        &["vpn.networks.home.clients.wbe", "'wbe' is no node"],
    );
    mistaken(
        &network("clients.web.subnetIp = lib.mkForce \"10.8.0.2\";"),
        &both,
        &["vpn.networks.home.clients.web.subnetIp", "10.8.0.2 of node web is not in the subnet 10.9.0.0/24"],
    );
    mistaken(
        &network("clients.web.subnetIp = lib.mkForce \"10.9.0.1\";"),
        &both,
        &["vpn.networks.home.clients.web.subnetIp", "10.9.0.1 of node web is also the address of node db"],
    );
    mistaken(
        &network("clients.web.subnetIp = lib.mkForce \"10.9.0.300\";"),
        &both,
        &["vpn.networks.home.clients.web.subnetIp", "IPv4 or IPv6 address"],
    );
    mistaken(
        &network("clients.web.internetGateway = true;"),
        &both,
        &[
            "vpn.networks.home.clients.web.internetGateway",
            "node web is to reach the internet through node db",
        ],
    );
    mistaken(
        &network("server.internetGateway = true;"),
        &both,
        &["vpn.networks.home.server", "node db is to be an internet gateway", "internetGatewayInterface"],
    );
    mistaken(&network("interface = \"much-too-long-for-linux\";"), &both, &["vpn.networks.home", "15 bytes"]);
    mistaken(
        &network("clients.web.wireguard.privateKeyFile = lib.mkForce ./part.nix;"),
        &["web"],
        &["vpn.networks.home.clients.web.wireguard.privateKeyFile", "the store"],
    );
    mistaken(
        &vpn("").replace("nodes.db.configuration.networking.public.ipv4 = \"192.0.2.1\";", ""),
        &["web"],
        &["vpn.networks.home.server.node", "node db has no `networking.public.ipv4`"],
    );
    mistaken(
        "nodes.db.configuration = { config, ... }: { networking.public.ipv4 = \"192.0.2.1/24\"; environment.etc.a.text = config.networking.public.ipv4; };",
        &["db"],
        &["networking.public.ipv4", "IPv4 address"],
    );
}

#[test]
fn a_mistaken_zone_names_option_node_and_file_and_fails_only_who_takes_part() {
    mistaken(
        &zone("", "imports = [ { dns.zones.\"example.org\".primaryNode = lib.mkForce \"dbb\"; } ];"),
        &EVERYBODY,
        &[
            "dns.zones.example.org.primaryNode".replace("example.org", "\"example.org\"").as_str(),
            "'dbb' is no node",
        ],
    );
    mistaken(
        &zone("\"www.example.net.\".A = \"192.0.2.1\";", ""),
        &EVERYBODY,
        &["dns.records.\"www.example.net.\"", "no zone has this domain; there are: example.org"],
    );
    mistaken(
        &zone("\"www.example.org\".A = \"192.0.2.1\";", ""),
        &EVERYBODY,
        &["dns.records.\"www.example.org\"", "does not end with a dot"],
    );
    mistaken(
        &zone("\"www.example.org.\".A = { address = \"192.0.2.1\"; zone = \"example.net\"; };", ""),
        &["db"],
        &["dns.records.\"www.example.org.\".A", "there is no zone 'example.net'", "node db"],
    );
    for (record, word) in [("A = \"192.0.2\"", "IPv4 address"), ("AAAA = \"192.0.2.1\"", "IPv6 address")] {
        let checked = format!(
            "{} nodes.db.configuration.environment.etc.zone.text = toString (map (r: r.data) config.dns.zones.\"example.org\".records);",
            zone(&format!("\"www.example.org.\".{record};"), "")
        );
        mistaken(&checked, &["db"], &["dns.records.\"www.example.org.\"", word]);
    }
}

#[test]
fn a_broken_node_does_not_keep_the_others_from_a_description_that_asks_it() {
    for nixpkgs in every_nixpkgs() {
        let deployment = two_nodes(
            &nixpkgs,
            &zone(
                "\"www.example.org.\".A = config.nodes.broken.configuration.networking.public.ipv4;",
                "nodes.broken.configuration = throw \"it is broken\";",
            ),
        );
        assert_eq!(deployment.names()["nodes"], json!(["broken", "db", "web"]));
        assert!(deployment.only(&["web"]).status.success());
        refused(&deployment.only(&["broken"]), &["it is broken"]);
    }
}

/// The hooks of web: name and point, in order.
fn hooks(deployment: &Deployment) -> Vec<(String, String)> {
    let web = parsed(&deployment.only(&["web"]))["nodes"]["web"].take();
    let text = |hook: &Value, key: &str| hook[key].as_str().unwrap().to_owned();
    web["hooks"].as_array().unwrap().iter().map(|hook| (text(hook, "name"), text(hook, "at"))).collect()
}

fn phases(nixpkgs: &Path, phases: &str) -> Deployment {
    two_nodes(
        nixpkgs,
        &format!("nodes.web = {{ lib, config, name, ... }}: {{ deployScriptPhases = {{ {phases} }}; }};"),
    )
}

#[test]
fn phases_become_hooks_in_the_order_that_was_asked_for() {
    for nixpkgs in every_nixpkgs() {
        let deployment = phases(
            &nixpkgs,
            "z-first = lib.dag.entryBefore [ \"copy-closure\" ] \"1\";
             b-late = lib.dag.entryAfter [ \"switch\" \"c-late\" ] \"6\";
             c-late = lib.dag.entryAfter [ \"switch\" ] \"5\";
             anywhere = lib.dag.entryAnywhere \"3\";
             keys = lib.dag.entryBetween [ \"copy-closure\" ] [ \"secrets\" ] \"2\";
             last-before = lib.dag.entryBetween [ \"secrets\" \"anywhere\" ] [ \"switch\" ] \"4\";
             plain = { data = \"7\"; after = [ \"b-late\" ]; };",
        );
        let found = hooks(&deployment);
        let found: Vec<(&str, &str)> = found.iter().map(|(name, at)| (name.as_str(), at.as_str())).collect();
        let position = |wanted: &str| found.iter().position(|(name, _)| *name == wanted).unwrap();
        let at = |wanted: &str| found[position(wanted)].1;
        assert_eq!(
            ["z-first", "keys", "anywhere", "last-before", "c-late", "b-late", "plain"].map(at),
            [
                "before-copy",
                "before-secrets",
                "before-switch",
                "before-switch",
                "after-switch",
                "after-switch",
                "after-switch"
            ]
        );
        assert!(position("anywhere") < position("last-before"));
        assert!(position("c-late") < position("b-late") && position("b-late") < position("plain"));
    }
}

#[test]
fn definitions_of_one_phase_are_joined_and_its_script_has_all_it_needs() {
    let deployment = phases(
        &our_nixpkgs(),
        "check = lib.mkMerge [ (lib.dag.entryBefore [ \"switch\" ] \"echo ${name} $HOST\") { data = \"echo ${nixus.pkgs.hello}\"; } ];",
    );
    let web = parsed(&deployment.only(&["web"]))["nodes"]["web"].take();
    let built = deployment
        .command("nix-store")
        .args(["--realise", web["hooks"][0]["drv"].as_str().unwrap()])
        .output()
        .unwrap();
    assert!(built.status.success(), "{}", stderr(&built));
    let script = fs::read_to_string(web["hooks"][0]["script"].as_str().unwrap()).unwrap();
    assert!(script.contains("set -euo pipefail") && script.contains("echo web $HOST\n"), "{script}");
    let needed = script.lines().find_map(|line| line.strip_prefix("echo /nix/store")).unwrap();
    assert!(Path::new(&format!("/nix/store{needed}")).exists(), "{needed}");
}

#[test]
fn phases_that_cannot_be_ordered_are_named() {
    for nixpkgs in every_nixpkgs() {
        for (text, words) in [
            (
                "a = lib.dag.entryAfter [ \"b\" ] \"\"; b = lib.dag.entryAfter [ \"a\" ] \"\";",
                ["nodes.web.deployScriptPhases is a circle", "a after b, b after a"],
            ),
            (
                "a = lib.dag.entryBetween [ \"switch\" ] [ \"copy-closure\" ] \"\";",
                ["nodes.web.deployScriptPhases is a circle", "switch"],
            ),
            (
                "drain = lib.dag.entryBefore [ \"swich\" ] \"\";",
                [
                    "nodes.web.deployScriptPhases.drain is to come before or after 'swich'",
                    "there are: copy-closure, drain, secrets, switch",
                ],
            ),
            (
                "switch = lib.dag.entryAnywhere \"\";",
                ["nodes.web.deployScriptPhases.switch", "a step of driftless itself and cannot be replaced"],
            ),
            ("a = \"text\";", ["nodes.web.deployScriptPhases.a", "part.nix"]),
        ] {
            let deployment = phases(&nixpkgs, text);
            refused(&deployment.only(&["web"]), &words);
            assert!(deployment.only(&["db"]).status.success());
        }
    }
}

#[test]
fn the_ordering_itself_is_offered_as_in_nixus() {
    let body = format!(
        "nodes.web = {{ lib, ... }}: {{
           tags = map (entry: \"${{entry.name}}${{toString entry.data}}\")
             (lib.dag.topoSort {{ a = lib.dag.entryAfter [ \"b\" \"gone\" ] 1; b = lib.dag.entryAnywhere 2; }}).result;
           configuration = {{ lib, ... }}: {{
             {BASE}
             environment.etc.cycle.text = toString (map (entry: entry.name) (lib.dag.topoSort {{ a = lib.dag.entryAfter [ \"a\" ] 1; }}).cycle);
           }};
         }};"
    );
    for nixpkgs in every_nixpkgs() {
        let deployment = Deployment::ours(&nixpkgs, &body);
        assert_eq!(deployment.nodes()["web"]["tags"], json!(["b2", "a1"]));
        assert_eq!(ask(&deployment, "c.web.environment.etc.cycle.text"), "a");
    }
}

#[test]
fn a_flakes_configuration_may_have_hooks_too_and_a_result_of_nixus_keeps_its_own() {
    let entry = project().display();
    let flake = format!(
        "let lib = import <nixpkgs/lib>; evaluated = import <nixpkgs/nixos/lib/eval-config.nix> {{ system = \"x86_64-linux\"; modules = [
           {entry}/nix/modules/nixos.nix {{ {BASE} driftless.deployScriptPhases.drain = {{ before = [ \"switch\" ]; data = \"true\"; }}; }} ]; }};
         in {{ nixosConfigurations.web = evaluated; }}"
    );
    let nixus = format!(
        "let evaluated = import <nixpkgs/nixos/lib/eval-config.nix> {{ system = \"x86_64-linux\"; modules = [ {{ {BASE} }} ]; }};
           entry = data: {{ inherit data; before = [ \"switch\" ]; after = [ ]; }};
         in {{ config.nodes.web = {{ enabled = true; host = \"web\"; configuration = evaluated.config // {{ _pkgs = evaluated.pkgs; }};
           deployScriptPhases = {{ drain = entry \"true\"; copy-closure = entry \"nixus's own\"; switch = {{ data = \"\"; before = [ ]; after = [ ]; }}; }}; }}; }}"
    );
    for nixpkgs in every_nixpkgs() {
        for text in [&flake, &nixus] {
            let deployment = Deployment::file(&nixpkgs, text);
            assert_eq!(hooks(&deployment), [("drain".to_owned(), "before-switch".to_owned())]);
        }
    }
}

/// A deployment in a folder of its own, and everything a nixus user has around it.
fn seed(nixpkgs: &Path, entry: &str) -> Deployment {
    let deployment = Deployment::file(Path::new("/nonexistent"), "import ./nix/fleet.nix");
    for folder in ["nix", "hosts/node1"] {
        fs::create_dir_all(deployment.path().join(folder)).unwrap();
    }
    std::os::unix::fs::symlink(nixpkgs, deployment.path().join("nix/nixos-unstable")).unwrap();
    deployment.write("hosts/node1/configuration.nix", &format!("{{ lib, pkgs, config, nodes, name, ... }}: {{ networking.hostName = lib.mkDefault name; {BASE} }}"));
    deployment.write(
        "nix/fleet.nix",
        &format!(
            "let {entry} in
             nixus ({{ config, ... }}: {{
               defaults = {{ ... }}: {{ nixpkgs = ../nix/nixos-unstable; }};
               nodes.node1 = {{ lib, config, ... }}: {{
                 host = \"root@node1.example.org\";
                 configuration = ../hosts/node1/configuration.nix;
               }};
               nodes.node2 = {{ lib, config, ... }}: {{
                 host = \"root@${{config.configuration.networking.hostName}}.example.org\";
                 configuration = {{ nodes, ... }}: {{ imports = [ ../hosts/node1/configuration.nix ]; environment.etc.first.text = nodes.node1.networking.hostName; }};
               }};
             }})"
        ),
    );
    deployment
}

#[test]
fn a_deployment_in_the_form_of_nixus_works_as_it_is_written() {
    for nixpkgs in every_nixpkgs() {
        let call = format!("nixus = import {} {{ nixpkgs = {}; }};", project().display(), nixpkgs.display());
        let deployment = seed(&nixpkgs, &call);
        let nodes = deployment.nodes();
        assert_eq!(nodes["node1"]["host"], "root@node1.example.org");
        assert_eq!(nodes["node2"]["host"], "root@node2.example.org");
        assert!(nodes["node1"]["toplevel"].as_str().unwrap().contains("-nixos-system-node1-"));
    }
}

#[test]
fn a_copy_that_niv_has_pinned_is_imported_like_any_other() {
    for nixpkgs in every_nixpkgs() {
        let call = "sources = import ./sources.nix; nixus = import \"${sources.driftless}/default.nix\" { nixpkgs = sources.nixpkgs; };";
        let deployment = seed(&nixpkgs, call);
        // As niv does: what is pinned is a path in the store.
        deployment.write(
            "nix/sources.nix",
            &format!(
                "{{ nixpkgs = {}; driftless = builtins.path {{ name = \"source\"; path = {}; filter = path: _: baseNameOf path == \"default.nix\" || builtins.match \".*/nix(/.*)?\" path != null; }}; }}",
                nixpkgs.display(),
                project().display()
            ),
        );
        assert_eq!(deployment.nodes()["node1"]["host"], "root@node1.example.org");
    }
}

#[test]
fn the_arguments_of_nixus_are_all_there() {
    for nixpkgs in every_nixpkgs() {
        let deployment = Deployment::file(
            &nixpkgs,
            &format!(
                "import {} {{ deploySystem = \"aarch64-linux\"; libOverlay = self: super: {{ tagOf = name: \"t-${{name}}\"; hasDag = super ? dag; }}; }}
                 ({{ config, lib, nixus, options, ... }}: {{
                   defaults = {{ name, lib, pkgs, ... }}: {{ tags = [ (lib.tagOf name) pkgs.stdenv.hostPlatform.system ]; configuration = {{ lib, ... }}: {{ nixpkgs.system = \"x86_64-linux\"; networking.hostName = lib.tagOf name; {BASE} }}; }};
                   nodes = {{ web = {{ }}; db.tags = [ (if lib.hasDag then \"dag\" else \"none\") nixus.pkgs.stdenv.hostPlatform.system ((nixus.extendLib lib).tagOf \"x\") ]; }};
                 }})",
                project().display()
            ),
        );
        let mut nodes = deployment.nodes();
        let tags = |node: &mut Value| {
            let mut tags: Vec<String> = serde_json::from_value(node["tags"].take()).unwrap();
            tags.sort();
            tags
        };
        assert_eq!(tags(&mut nodes["web"]), ["t-web", "x86_64-linux"]);
        assert_eq!(tags(&mut nodes["db"]), ["aarch64-linux", "dag", "t-db", "t-x", "x86_64-linux"]);
        let scripts = ask(
            &deployment,
            "[ (d.web == d.config.nodes.web.deployScript) (d.drvPath == d.config.deployScript.drvPath) d.web.type (d.config.nodes.web.configuration ? _pkgs) ]",
        );
        assert_eq!(scripts, json!([true, true, "derivation", true]));
    }
}

#[test]
fn a_module_that_extends_every_node_is_a_default_like_any_other() {
    let module = "defaults = { config, ... }: {
           options.shelf = lib.mkOption { type = lib.types.int; default = 1; };
           config.tags = [ \"shelf-${toString config.shelf}\" ];
           config.configuration = { config, ... }: {
             options.rack = lib.mkOption { type = lib.types.str; };
             config.environment.etc.rack.text = config.rack;
           };
         };
         nodes = { web = { shelf = 7; configuration.rack = \"r1\"; }; db.configuration = { rack = \"r2\"; }; };";
    for nixpkgs in every_nixpkgs() {
        let deployment = two_nodes(&nixpkgs, module);
        let nodes = deployment.nodes();
        assert_eq!([&nodes["web"]["tags"], &nodes["db"]["tags"]], [&json!(["shelf-7"]), &json!(["shelf-1"])]);
        assert_eq!(ask(&deployment, "[ c.web.environment.etc.rack.text c.db.rack ]"), json!(["r1", "r2"]));
    }
}
