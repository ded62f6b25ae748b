//! Each example: what becomes of it.

use serde_json::{Value, json};

use super::{Repository, every_nixpkgs, our_nixpkgs, settings};

/// Asserts that a node has these values.
fn has(node: &Value, expected: Value) {
    for (key, value) in expected.as_object().unwrap() {
        assert_eq!(&node[key], value, "{key}");
    }
}

#[test]
fn a_colmena_hive_is_deployed_as_it_is() {
    for nixpkgs in every_nixpkgs() {
        let hive = Repository::example(&nixpkgs, "colmena", "hive.nix");
        let names = hive.names();
        assert_eq!(
            (&names["format"], &names["nodes"]),
            (&json!("colmena"), &json!(["db", "laptop", "web1", "web2"]))
        );
        assert_eq!(settings(&names["unsupported"]), ["meta.allowApplyAll = false", "meta.machinesFile"]);
        let nodes = hive.nodes();
        has(
            &nodes["web1"],
            json!({
                "host": "deploy@web1.example.org", "port": 2222, "tags": ["web", "canary"],
                "privilegeEscalationCommand": ["doas"], "hasFastConnection": false, "onDrift": "heal",
                "sshOptions": {
                    "ProxyJump": "bastion.example.org", "ServerAliveInterval": "5", "IdentityFile": "/run/keys/deploy",
                },
            }),
        );
        let file = hive.path().join("keys/tls.key").display().to_string();
        has(
            &nodes["web1"]["secrets"]["tls.key"],
            json!({ "source": { "file": file }, "user": "nginx", "mode": "0400" }),
        );
        let backup =
            json!({ "source": { "command": ["pass", "show", "backup"] }, "user": "root", "mode": "0600" });
        has(&nodes["db"]["secrets"]["backup"], backup);
        assert_eq!(nodes["web2"]["secrets"], json!({}));
        has(
            &nodes["web2"],
            json!({ "host": "root@web2", "port": null, "onDrift": "report", "privilegeEscalationCommand": ["sudo", "-H", "--"] }),
        );
        assert_eq!(settings(&nodes["web2"]["unsupported"]), ["deployment.replaceUnknownProfiles = false"]);
        has(&nodes["db"], json!({ "host": "192.0.2.20", "tags": ["db"] }));
        has(&nodes["laptop"], json!({ "host": null }));
        assert!(
            nodes["laptop"]["toplevel"].as_str().unwrap().contains("-nixos-system-t480-"),
            "a list of modules"
        );
    }
}

#[test]
fn what_a_hive_gives_its_nodes_arrives_there() {
    for nixpkgs in every_nixpkgs() {
        let hive = Repository::example(&nixpkgs, "colmena", "hive.nix");
        let built = hive.say(&["build", "--file", "hive.nix", "--on", "web*"]);
        assert_eq!(built.code, 0, "{}", built.err);
        let etc = |node: &str, file: &str| {
            let line = built.out.lines().find(|line| line.starts_with(node)).unwrap();
            std::fs::read_to_string(format!("{}/etc/{file}", line.split(' ').next_back().unwrap())).unwrap()
        };
        assert_eq!(etc("web1", "motd"), "made by the overlay", "meta.nixpkgs");
        assert_eq!(etc("web2", "domain"), "example.net", "meta.nodeSpecialArgs");
        assert_eq!(etc("web2", "peer"), "web1", "the argument nodes");
        assert_eq!(etc("web1", "web.keys"), "/var/keys/tls.key", "the options of keys");
        assert_eq!(etc("web1", "hostname").trim(), "web1", "defaults");
    }
}

#[test]
fn a_flakes_hive_is_deployed_whether_made_or_only_written() {
    for nixpkgs in every_nixpkgs() {
        let made = Repository::flake(&nixpkgs, "colmena-hive");
        let written = Repository::flake(&nixpkgs, "colmena-flake");
        assert_eq!(made.names()["format"], "colmena-hive", "it comes before the older output");
        assert_eq!(written.names()["format"], "colmena");
        let nodes = made.nodes();
        let ours = written.nodes();
        assert_eq!(nodes["host-a"], ours["host-a"], "Colmena's evaluation and ours give the same");
        assert_eq!(nodes["host-b"]["secrets"], ours["host-b"]["secrets"]);
        has(
            &nodes["host-b"]["secrets"]["backup"],
            json!({ "source": { "command": ["pass", "show", "backup"] } }),
        );
        has(&nodes["host-a"], json!({ "host": "root@host-a", "tags": ["edge"] }));
        has(&nodes["host-b"], json!({ "host": "luser@somehost.example.org", "port": 1234 }));
        assert_eq!(settings(&nodes["host-b"]["unsupported"]), ["deployment.keys.token"]);
    }
}

#[test]
fn a_morph_network_is_deployed_as_it_is() {
    for nixpkgs in every_nixpkgs() {
        let network = Repository::example(&nixpkgs, "morph", "network.nix");
        let names = network.names();
        assert_eq!(
            (&names["format"], &names["nodes"]),
            (&json!("morph"), &json!(["db01", "image", "web01.example.org"]))
        );
        assert_eq!(settings(&names["unsupported"]), ["network.ordering", "network.nixConfig"]);
        let nodes = network.nodes();
        let web = &nodes["web01.example.org"];
        has(
            web,
            json!({ "host": "admin@web01.example.org", "port": 2222, "tags": ["web", "blue"], "hasFastConnection": false }),
        );
        let commands = web["healthChecks"]["commands"].as_object().unwrap();
        let names: Vec<&str> = commands.keys().map(String::as_str).collect();
        assert_eq!(names, ["front page", "front page (2)", "hello", "no failed units"], "none is lost");
        assert_eq!(
            commands["front page"],
            "curl --silent --show-error --fail --location --output /dev/null --max-time 5 --header 'Host: example.org' 'http://web01.example.org:80/'"
        );
        assert_eq!(
            commands["front page (2)"],
            "curl --silent --show-error --fail --location --output /dev/null --max-time 3 --insecure 'https://lb.example.org:443/health'"
        );
        let hello = commands["hello"].as_str().unwrap();
        assert!(
            hello.starts_with("timeout 10 sh -c '/nix/store/") && hello.contains("--greeting"),
            "{hello}"
        );
        let program = hello.split('\'').nth(1).unwrap().split(' ').next().unwrap();
        let package = program.strip_suffix("/bin/hello").unwrap();
        let built = network.say(&["build", "--file", "network.nix", "--on", "web01*"]);
        let system = built.out.trim().split(' ').next_back().unwrap();
        let closure =
            network.command("nix-store").args(["--query", "--requisites", system]).output().unwrap();
        assert!(
            super::text_of(&closure.stdout).contains(package),
            "what the checks run is sent along: {}",
            built.err
        );
        assert_eq!(
            settings(&web["unsupported"]),
            ["deployment.preDeployChecks", "deployment.secrets.\"tls.key\".action"]
        );
        let file = network.path().join("../secrets/tls.key").display().to_string();
        has(
            &web["secrets"]["tls.key"],
            json!({ "source": { "file": file }, "user": "nginx", "mode": "0400" }),
        );
        has(
            &nodes["db01"],
            json!({ "host": "192.0.2.21", "hasFastConnection": true, "port": null, "unsupported": [] }),
        );
        has(&nodes["image"], json!({ "host": null }));
    }
}

#[test]
fn the_words_of_a_morph_check_mean_what_they_meant_to_the_shell() {
    let network = Repository::example(&our_nixpkgs(), "morph", "network.nix");
    let nodes = network.nodes();
    let command = nodes["web01.example.org"]["healthChecks"]["commands"]["hello"].as_str().unwrap();
    let words = command.split_once("/bin/hello ").unwrap().1;
    let ran = std::process::Command::new("sh")
        .args(["-c", &format!("timeout 10 sh -c 'printf \"%s|\" {words}")])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&ran.stdout), "--greeting|it works|");
}

#[test]
fn a_nixops_network_is_deployed_where_its_machines_are_known() {
    for nixpkgs in every_nixpkgs() {
        let network = Repository::example(&nixpkgs, "nixops", "nixops.nix");
        let names = network.names();
        assert_eq!(
            (&names["format"], &names["nodes"]),
            (&json!("nixops"), &json!(["backend1", "cloud", "proxy"]))
        );
        let nodes = network.nodes();
        has(
            &nodes["proxy"],
            json!({
                "host": "deploy@192.0.2.30", "port": 2222, "hasFastConnection": true,
                "sshOptions": { "IdentitiesOnly": "yes" }, "privilegeEscalationCommand": ["sudo", "-H", "--"],
            }),
        );
        assert_eq!(
            settings(&nodes["proxy"]["unsupported"]),
            ["deployment.keys.token"],
            "its text is in the file"
        );
        has(&nodes["proxy"]["secrets"]["tls"], json!({ "source": { "file": "/etc/hostname" } }));
        has(
            &nodes["backend1"],
            json!({ "host": "root@192.0.2.31", "port": 2022, "privilegeEscalationCommand": ["doas"], "unsupported": [] }),
        );
        has(&nodes["cloud"], json!({ "host": null }));
        assert_eq!(settings(&nodes["cloud"]["unsupported"]), ["deployment.targetEnv = \"ec2\""]);
    }
}

#[test]
fn a_deploy_rs_flake_is_deployed_as_far_as_it_is_nixos() {
    for nixpkgs in every_nixpkgs() {
        let flake = Repository::flake(&nixpkgs, "deploy-rs");
        let names = flake.names();
        assert_eq!(
            (&names["format"], &names["nodes"]),
            (&json!("deploy-rs"), &json!(["db", "idle", "mac", "web"]))
        );
        let answer = flake.answer();
        let nodes = &answer["nodes"];
        has(
            &nodes["web"],
            json!({
                "host": "admin@web.example.org", "port": 2221, "sshOptions": { "IdentitiesOnly": "yes" },
                "hasFastConnection": true, "successTimeout": 45, "switchTimeout": 600,
                "privilegeEscalationCommand": ["sudo", "-u", "root"],
            }),
        );
        assert_eq!(settings(&nodes["web"]["unsupported"]), ["deploy.nodes.web.profiles.hello"]);
        has(
            &nodes["db"],
            json!({
                "host": "root@localhost", "hasFastConnection": false, "successTimeout": 60, "switchTimeout": 300,
                "privilegeEscalationCommand": ["doas", "-u", "root"],
            }),
        );
        assert_eq!(
            settings(&nodes["db"]["unsupported"]),
            [
                "magicRollback = false",
                "autoRollback = false",
                "interactiveSudo",
                "deploy.nodes.db.profiles.system.path"
            ]
        );
        let others = answer["notDeployable"].as_object().unwrap();
        assert_eq!(others.keys().collect::<Vec<_>>(), ["idle", "mac"]);
        assert_eq!(settings(&others["mac"]), ["deploy.nodes.mac", "deploy.nodes.mac.profiles.home"]);

        // The switch gets the system itself and not what deploy-rs wraps around it.
        let plain = super::parsed(&flake.manifest("nodes", &["--argstr", "format", "flake"]))["nodes"].take();
        for node in ["web", "db"] {
            assert_eq!(nodes[node]["toplevel"], plain[node]["toplevel"]);
            assert_eq!(nodes[node]["drv"], plain[node]["drv"]);
        }
    }
}
