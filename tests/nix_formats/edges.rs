//! What is broken, ambiguous, misspelt or not supported in repositories of other tools.

use driftless::model::format::Format;
use serde_json::json;

use super::{Repository, every_nixpkgs, our_nixpkgs, parsed, refused, settings, text_of};

/// Every example with a part of it that a node can be broken at: (name, file or flake, where, part, the node).
const EXAMPLES: [(&str, Option<&str>, &str, &str, &str); 6] = [
    ("colmena", Some("hive.nix"), "hive.nix", "environment.etc.domain.text = domain;", "web2"),
    ("morph", Some("network.nix"), "network.nix", "deployment.targetHost = \"192.0.2.21\";", "db01"),
    ("nixops", Some("nixops.nix"), "nixops.nix", "environment.etc.hello.text =", "backend1"),
    ("colmena-flake", None, "flake.nix", "deployment.tags = [ \"edge\" ];", "host-a"),
    ("colmena-hive", None, "flake.nix", "deployment.tags = [ \"edge\" ];", "host-a"),
    ("deploy-rs", None, "flake.nix", "path = activate.nixos self.nixosConfigurations.web;", "web"),
];

fn example(nixpkgs: &std::path::Path, name: &str, file: Option<&'static str>) -> Repository {
    match file {
        Some(file) => Repository::example(nixpkgs, name, file),
        None => Repository::flake(nixpkgs, name),
    }
}

#[test]
fn a_broken_node_has_its_own_error_and_hinders_no_other_in_any_format() {
    for nixpkgs in every_nixpkgs() {
        for (name, file, at, part, node) in EXAMPLES {
            let repository = example(&nixpkgs, name, file);
            let good = repository.nodes();
            let (key, rest) = part.split_once(" = ").unwrap_or((part.trim_end_matches(" ="), "\"\";"));
            let broken = match rest {
                "\"\";" => format!("{key} = throw \"no such luck\" +"),
                _ => format!("{key} = throw \"no such luck\";"),
            };
            repository.edit(at, part, &broken);
            let checked = repository.check(&[]);
            for (other, spec) in good.as_object().unwrap() {
                let seen = &checked["nodes"][other];
                if other == node {
                    assert_eq!(seen["result"], "does not evaluate", "{name}: {seen}");
                    assert!(seen["error"].as_str().unwrap().contains("no such luck"), "{name}: {seen}");
                } else {
                    assert_eq!(seen["toplevel"], spec["toplevel"], "{name}: {other}: {seen}");
                }
            }
        }
    }
}

#[test]
fn names_are_listed_although_a_node_does_not_even_parse() {
    let hive = Repository::example(&our_nixpkgs(), "colmena", "hive.nix");
    hive.write("nodes/db.nix", "{ oops");
    assert_eq!(hive.names()["nodes"], json!(["db", "laptop", "web1", "web2"]));
    let network =
        Repository::of(&our_nixpkgs(), "x.nix", "{ network.pkgs = throw \"no packages\"; a = throw \"a\"; }");
    assert_eq!(network.names()["nodes"], json!(["a"]), "not even the packages are looked at");
}

#[test]
fn a_value_of_the_wrong_type_is_named_with_its_file_and_node() {
    let wrong = [
        (
            "colmena",
            Some("hive.nix"),
            "hive.nix",
            "deployment.tags = [ \"web\" ];",
            "deployment.tags = 5;",
            "web2",
            "deployment.tags",
        ),
        (
            "morph",
            Some("network.nix"),
            "network.nix",
            "targetPort = 2222;",
            "targetPort = \"22\";",
            "web01.example.org",
            "deployment.targetPort",
        ),
        (
            "nixops",
            Some("nixops.nix"),
            "physical.nix",
            "targetHost = \"192.0.2.31\";",
            "targetHost = 192;",
            "backend1",
            "deployment.targetHost",
        ),
        (
            "colmena-flake",
            None,
            "flake.nix",
            "targetPort = 1234;",
            "targetPort = \"x\";",
            "host-b",
            "deployment.targetPort",
        ),
        (
            "deploy-rs",
            None,
            "flake.nix",
            "confirmTimeout = 45;",
            "confirmTimeout = \"45\";",
            "web",
            "`deploy.nodes.web.profiles.system.confirmTimeout' is not an integer but a value of type string",
        ),
        (
            "deploy-rs",
            None,
            "flake.nix",
            "sshUser = \"admin\";",
            "sshUser = null;",
            "web",
            "`deploy.sshUser' is not a string but a value of type null",
        ),
        (
            "deploy-rs",
            None,
            "flake.nix",
            "hostname = \"web.example.org\";",
            "",
            "web",
            "`deploy.nodes.web.hostname' is missing",
        ),
    ];
    for nixpkgs in every_nixpkgs() {
        for (name, file, at, part, instead, node, option) in wrong {
            let repository = example(&nixpkgs, name, file);
            repository.edit(at, part, instead);
            let seen = repository.check(&["--on", node])["nodes"][node].take();
            let error = seen["error"].as_str().unwrap_or_else(|| panic!("{name}: {seen}"));
            assert!(error.starts_with(&format!("{node} does not evaluate")), "{error}");
            assert!(error.contains(option), "{name}: {error}");
            assert!(error.contains(at) || instead.is_empty(), "{name} does not name {at}: {error}");
        }
    }
}

#[test]
fn an_option_that_the_other_tool_does_not_have_is_an_error_with_its_file() {
    for nixpkgs in every_nixpkgs() {
        let hive = Repository::example(&nixpkgs, "colmena", "hive.nix");
        hive.edit("hive.nix", "deployment.tags = [ \"web\" ];", "deployment.tgas = [ \"web\" ];");
        refused(
            &hive.manifest("nodes", &["--argstr", "nodes", "[\"web2\"]"]),
            &["deployment.tgas", "does not exist", "hive.nix"],
        );
    }
}

#[test]
fn building_on_the_node_is_taken_over_from_colmena_and_deploy_rs() {
    let nixpkgs = our_nixpkgs();
    let hive = Repository::example(&nixpkgs, "colmena", "hive.nix");
    hive.edit("hive.nix", "deployment.tags = [ \"web\" ];", "deployment.buildOnTarget = true;");
    let flake = Repository::flake(&nixpkgs, "deploy-rs");
    flake.edit("flake.nix", "confirmTimeout = 45;", "remoteBuild = true;");
    for (repository, node) in [(hive, "web2"), (flake, "web")] {
        let seen = parsed(&repository.manifest("nodes", &["--argstr", "nodes", &format!("[\"{node}\"]")]));
        assert_eq!(seen["nodes"][node]["buildOnTarget"], true, "{seen:#}");
    }
}

#[test]
fn the_outputs_of_a_flake_have_an_order_and_a_person_may_choose_another() {
    // Whatever is not chosen is not even looked at.
    let all = [
        (
            "driftless",
            "driftless = { manifest = { format = \"driftless\"; names = [ \"of-driftless\" ]; rollout = { }; }; };",
        ),
        ("colmena-hive", "colmenaHive.nodes.of-colmena-hive = throw \"a node\";"),
        ("colmena", "colmena = { meta = { }; of-colmena = throw \"a node\"; };"),
        ("deploy-rs", "deploy.nodes.of-deploy-rs = throw \"a node\";"),
        ("flake", "nixosConfigurations.of-flake = throw \"a node\";"),
    ];
    for first in 0..all.len() {
        let outputs: Vec<&str> = all[first..].iter().rev().map(|(_, text)| *text).collect();
        let flake = Repository::outputs(&outputs.join("\n"));
        assert_eq!(flake.names()["format"], all[first].0);
        for (format, _) in &all[first..] {
            let names = parsed(&flake.manifest("names", &["--argstr", "format", format]));
            assert_eq!(
                (&names["format"], &names["nodes"]),
                (&json!(format), &json!([format!("of-{format}")]))
            );
        }
    }
}

#[test]
fn a_file_that_several_tools_could_mean_is_read_by_what_only_one_of_them_has() {
    for (file, text, format) in [
        ("network.nix", "{ network.pkgs = { }; a = { }; }", "morph"),
        ("network.nix", "{ network.description = \"x\"; a = { }; }", "nixops"),
        ("network.nix", "{ network.nodeNixpkgs = { }; a = { }; }", "colmena"),
        ("deployment.nix", "{ meta.nixpkgs = <nixpkgs>; a = { }; }", "colmena"),
        ("hive.nix", "{ network.nixpkgs = <nixpkgs>; a = { }; }", "colmena"),
        ("hive.nix", "{ ... }: { meta = { }; a = { }; }", "colmena"),
        ("network.nix", "{ region ? \"eu\" }: { network = { }; a = { }; }", "nixops"),
    ] {
        let repository = Repository::of(&our_nixpkgs(), file, text);
        let names = repository.names();
        assert_eq!((&names["format"], &names["nodes"]), (&json!(format), &json!(["a"])), "{file}: {text}");
    }
    let unclear = Repository::of(&our_nixpkgs(), "x.nix", "{ network = { }; a = { }; }");
    for format in ["nixops", "morph", "colmena"] {
        assert_eq!(parsed(&unclear.manifest("names", &["--argstr", "format", format]))["format"], format);
    }
}

#[test]
fn an_unknown_format_names_what_was_found_and_what_is_understood() {
    let every: Vec<String> = Format::ALL.iter().map(|format| format!("{format}: ")).collect();
    let every: Vec<&str> = every.iter().map(String::as_str).collect();
    let flake = Repository::outputs("packages = { }; devShells = { };");
    let refusal = flake.manifest("names", &[]);
    refused(&refusal, &["an attribute set with devShells, packages, which is no known deployment format"]);
    refused(&refusal, &every);
    let file = Repository::of(&our_nixpkgs(), "x.nix", "{ web = { }; }");
    refused(&file.manifest("names", &[]), &["x.nix is an attribute set with web, which is no known"]);
    let function = Repository::of(&our_nixpkgs(), "x.nix", "{ region, size }: { network = { }; }");
    refused(
        &function.manifest("names", &[]),
        &["a function that wants region, size (did you forget to call it?)"],
    );
    refused(
        &flake.manifest("names", &["--argstr", "format", "deploy-rs"]),
        &["an attribute set with devShells, packages, which cannot be read as a flake with `deploy.nodes`"],
    );
    refused(
        &flake.manifest("names", &["--argstr", "format", "terraform"]),
        &["there is no deployment format 'terraform'"],
    );
    let said = flake.say(&["check", "--flake", ".", "--as", "terraform"]);
    assert_eq!(said.code, 64);
    assert!(said.err.contains("expected driftless, nixus, colmena-hive, colmena, morph"), "{}", said.err);
}

#[test]
fn arguments_for_ssh_become_what_ssh_config_can_say_and_the_rest_is_listed() {
    let hive = Repository::of(
        &our_nixpkgs(),
        "hive.nix",
        r#"{ meta.nixpkgs = <nixpkgs>;
             a.deployment = { targetUser = null; targetHost = "localhost"; tags = [ "has blank" "good" ]; sshOptions = [
               "-A" "-p" "2200" "-oUser=carl" "-o" "StrictHostKeyChecking no" "-i/key" "-i" "/second" "-F" "config" "-4"
               "-o" "ProxyCommand=ssh -W %h:%p bastion" "-L" "80:localhost:80" "-z" "-q" "-J" ]; }; }"#,
    );
    let a = hive.nodes()["a"].take();
    assert_eq!((&a["host"], &a["port"]), (&json!("carl@localhost"), &json!(2200)));
    assert_eq!(
        a["sshOptions"],
        json!({
            "ForwardAgent": "yes", "StrictHostKeyChecking": "no", "IdentityFile": "/key", "AddressFamily": "inet",
            "ProxyCommand": "ssh -W %h:%p bastion",
        })
    );
    assert_eq!(a["tags"], json!(["good"]));
    assert_eq!(
        settings(&a["unsupported"]),
        [
            "ssh -i /second",
            "ssh -F config",
            "ssh -L 80:localhost:80",
            "ssh -z",
            "ssh -J",
            "tag \"has blank\""
        ]
    );
}

#[test]
fn a_key_that_cannot_be_sent_safely_is_listed_with_the_reason_and_the_others_are_sent() {
    let hive = Repository::of(
        &our_nixpkgs(),
        "hive.nix",
        r#"{ meta.nixpkgs = <nixpkgs>;
             a.deployment.keys = {
               written.text = "plain";
               nothing = { };
               stored.keyFile = "${./hive.nix}";
               odd = { keyFile = "/x"; permissions = "u=r"; };
               "-rf".keyFile = "/x";
               good.keyFile = "/x";
             }; }"#,
    );
    let a = hive.nodes()["a"].take();
    assert_eq!(a["secrets"].as_object().unwrap().keys().collect::<Vec<_>>(), ["good"]);
    let notes = a["unsupported"].as_array().unwrap();
    for (setting, reason) in [
        ("deployment.keys.\"-rf\"", "a secret's name is"),
        ("deployment.keys.nothing", "its content is in the deployment"),
        ("deployment.keys.odd", "its permissions \"u=r\" are not of the form"),
        ("deployment.keys.stored", "its file is in the Nix store"),
        ("deployment.keys.written", "its content is in the deployment"),
    ] {
        let note = notes.iter().find(|note| note["setting"] == setting).unwrap();
        assert!(note["reason"].as_str().unwrap().starts_with(reason), "{note}");
    }
    assert!(!a.to_string().contains("plain"), "{a}");
}

#[test]
fn localhost_is_an_ssh_server_to_the_other_tools_and_never_this_machine_without_ssh() {
    for (host, expected) in [("localhost", "127.0.0.1"), ("local", "127.0.0.1"), ("me@web", "me@web")] {
        let text = format!(
            "{{ meta.nixpkgs = <nixpkgs>; a.deployment = {{ targetUser = null; targetHost = \"{host}\"; }}; }}"
        );
        let hive = Repository::of(&our_nixpkgs(), "hive.nix", &text);
        assert_eq!(hive.nodes()["a"]["host"], expected);
    }
}

#[test]
fn check_says_what_is_not_heeded_and_fails_for_none_of_it() {
    let flake = Repository::flake(&our_nixpkgs(), "deploy-rs");
    let said = flake.say(&["check", "--flake", "."]);
    assert_eq!(said.code, 0, "{}{}", said.out, said.err);
    insta::assert_snapshot!(said.out, @r"
    db    evaluates
        not heeded: magicRollback = false: a node that cannot be reached after an activation always goes back
        not heeded: autoRollback = false: a node whose activation fails always goes back
        not heeded: interactiveSudo: nobody is there to type a password: sudo must ask for none
        not heeded: deploy.nodes.db.profiles.system.path: its own activation script is not run, only the system's
    web   evaluates
        not heeded: deploy.nodes.web.profiles.hello: driftless deploys NixOS systems: the profile `system`, and no other
    idle  cannot be deployed
        deploy.nodes.idle.profiles.system: it holds a NixOS system, and does not activate it
    mac   cannot be deployed
        deploy.nodes.mac: it has no profile `system`, which is the one that driftless deploys
        deploy.nodes.mac.profiles.home: driftless deploys NixOS systems: the profile `system`, and no other

    All 2 pass.
    ");
    let checked = flake.check(&[]);
    assert_eq!(checked["format"], "deploy-rs");
    assert_eq!(checked["nodes"]["mac"]["result"], "cannot be deployed");
    assert_eq!(settings(&checked["nodes"]["web"]["unsupported"]), ["deploy.nodes.web.profiles.hello"]);
    let hive = Repository::example(&our_nixpkgs(), "colmena", "hive.nix");
    assert_eq!(settings(&hive.check(&[])["unsupported"]).len(), 2);
    let planned = hive.say(&["build", "--file", "hive.nix", "--on", "db"]);
    assert!(planned.err.contains("2 settings of hive.nix are not heeded"), "{}", planned.err);
}

#[test]
fn init_says_what_it_understood_and_writes_the_configuration_for_it() {
    let hive = Repository::example(&our_nixpkgs(), "colmena", "hive.nix");
    git2::Repository::init_opts(hive.path(), git2::RepositoryInitOptions::new().initial_head("trunk"))
        .unwrap();
    let said = hive.say(&["init", "--from", "."]);
    assert_eq!(said.code, 0, "{}{}", said.out, said.err);
    insta::assert_snapshot!(said.out, @r#"
    Found hive.nix (colmena) on branch trunk of HERE.

    NODE    HOST                  USER    PORT  TAGS
    db      192.0.2.20            -       -     db
    laptop  none: never deployed  -       -     -
    web1    web1.example.org      deploy  2222  canary web
    web2    web2                  root    -     web

    laptop: not heeded: deployment.targetHost = null: only the node could deploy itself; driftless builds it and deploys it nowhere
    web2: not heeded: deployment.replaceUnknownProfiles = false: a system that driftless did not install is reported and not healed, but a new commit replaces it
    all nodes: not heeded: meta.allowApplyAll = false: a controller keeps every node equal to Git; by hand, `--on` chooses
    all nodes: not heeded: meta.machinesFile: Nix's own builders are used: `nix.builders` in driftless.toml

    Wrote HERE/driftless.toml.

    Next:
      driftless check                         evaluate every node
      driftless --config driftless.toml run   follow the branch
    "#);
    let written = std::fs::read_to_string(hive.path().join("driftless.toml")).unwrap();
    assert!(
        written.contains("deployment = \"hive.nix\"") && written.contains("#format = \"colmena\""),
        "{written}"
    );

    let unclear = Repository::of(&our_nixpkgs(), "machines.nix", "{ network = { }; a = { }; }");
    git2::Repository::init(unclear.path()).unwrap();
    let said = unclear.say(&["init", "--from", "machines.nix", "--as", "morph"]);
    assert_eq!(said.code, 0, "{}{}", said.out, said.err);
    let written = std::fs::read_to_string(unclear.path().join("driftless.toml")).unwrap();
    assert!(
        written.contains("deployment = \"machines.nix\"") && written.contains("\nformat = \"morph\""),
        "{written}"
    );
}

#[test]
fn init_shows_a_broken_node_among_the_others() {
    let network = Repository::example(&our_nixpkgs(), "morph", "network.nix");
    network.edit(
        "network.nix",
        "deployment.targetHost = \"192.0.2.21\";",
        "deployment.targetHost = throw \"gone\";",
    );
    git2::Repository::init(network.path()).unwrap();
    let said = network.say(&["init"]);
    assert_eq!(said.code, 0, "{}{}", said.out, said.err);
    assert!(said.out.contains("db01               does not evaluate: see `driftless check`"), "{}", said.out);
    assert!(said.out.contains("web01.example.org  web01.example.org"), "{}", said.out);
}

#[test]
fn a_network_may_be_an_output_of_a_flake() {
    let nixpkgs = our_nixpkgs();
    let flake = Repository::outputs(&format!(
        "nixopsConfigurations.default = {{
           nixpkgs = {}; network.storage.legacy = {{ }};
           web.deployment.targetHost = \"192.0.2.40\";
         }};",
        nixpkgs.display()
    ));
    assert_eq!(flake.names()["format"], "nixops");
    assert_eq!(flake.nodes()["web"]["host"], "root@192.0.2.40");
}

#[test]
fn a_network_that_needs_arguments_of_nixops_says_so() {
    let network = Repository::of(
        &our_nixpkgs(),
        "nixops.nix",
        "{ network = { }; a = { uuid, ... }: { environment.etc.id.text = uuid; }; }",
    );
    let output = network.manifest("nodes", &[]);
    assert!(
        text_of(&output.stderr).contains("the module argument `uuid` is NixOps's own"),
        "{}",
        text_of(&output.stderr)
    );
}
