//! `secrets.files` as a deployment and a flake declare them: what the manifest says, what the closure tells, what is refused.

use std::collections::BTreeSet;

use super::*;

/// A deployment with one node, whose configuration is this.
fn web(nixpkgs: &Path, configuration: &str) -> Deployment {
    let body = format!("nodes.web.configuration = {{ config, lib, ... }}: {{ {BASE} {configuration} }};");
    let deployment = Deployment::ours(nixpkgs, &body);
    deployment.write("a.age", "ciphertext");
    deployment
}

fn secrets(deployment: &Deployment) -> Value {
    deployment.nodes()["web"]["secrets"].take()
}

#[test]
fn the_manifest_says_where_a_secret_is_and_whose_it_becomes_and_never_what_it_is() {
    for nixpkgs in every_nixpkgs() {
        let deployment = web(
            &nixpkgs,
            "secrets.recipients = [ \"age1us\" ];
             secrets.files.plain.file = ./plain;
             secrets.files.said = { command = [ \"pass\" \"db\" ]; group = \"users\"; };
             users.groups.users = { };
             secrets.files.a = { age = ./a.age; user = \"1000\"; mode = \"0640\"; recipients = [ \"age1more\" ]; };
             secrets.files.none.age = ./none.age;",
        );
        deployment.write("plain", "PLAINTEXT-OF-A-TEST");
        let mut secrets = secrets(&deployment);
        let at = |name: &str| deployment.path().canonicalize().unwrap().join(name).display().to_string();
        assert_eq!(secrets["plain"]["source"], json!({ "file": at("plain") }));
        assert_eq!(secrets["said"]["source"], json!({ "command": ["pass", "db"] }));
        let owner =
            |name: &str| ["user", "group", "mode"].map(|key| secrets[name][key].as_str().unwrap().to_owned());
        assert_eq!(owner("plain"), ["root", "root", "0400"]);
        assert_eq!(owner("said"), ["root", "users", "0440"]);
        assert_eq!(owner("a"), ["1000", "root", "0640"]);
        let stored = secrets["a"]["source"]["age"]["stored"].take();
        assert_eq!(fs::read_to_string(stored.as_str().unwrap()).unwrap(), "ciphertext");
        let age = json!({ "file": at("a.age"), "stored": null, "decrypt": "controller", "recipients": ["age1us", "age1more"] });
        assert_eq!(secrets["a"]["source"]["age"], age);
        assert_eq!(secrets["none"]["source"]["age"]["stored"], Value::Null);
        let marker = secrets["plain"]["marker"].as_str().unwrap();
        let name = marker.strip_prefix("/nix/store/").unwrap();
        assert_eq!(secrets["plain"]["path"], format!("/run/driftless-secrets/{name}"));
        assert!(!fs::read_to_string(marker).unwrap().contains("PLAINTEXT"));
    }
}

/// The secrets whose markers are in the closure of the built system, and the rest of the closure.
fn used(deployment: &Deployment) -> (BTreeSet<String>, String, String) {
    let node = deployment.nodes()["web"].take();
    let drv = node["drv"].as_str().unwrap();
    let built = deployment.command("nix-store").args(["--realise", drv]).output().unwrap();
    assert!(built.status.success(), "{}", stderr(&built));
    let toplevel = node["toplevel"].as_str().unwrap().to_owned();
    let closure =
        deployment.command("nix-store").args(["--query", "--requisites", &toplevel]).output().unwrap();
    let closure = String::from_utf8(closure.stdout).unwrap();
    let all = node["secrets"].as_object().unwrap().iter();
    let used = all.filter(|(_, secret)| closure.contains(secret["marker"].as_str().unwrap()));
    (used.map(|(name, _)| name.clone()).collect(), closure, toplevel)
}

#[test]
fn the_closure_tells_which_secrets_a_system_uses() {
    for nixpkgs in every_nixpkgs() {
        let deployment = web(
        &nixpkgs,
        "nixpkgs.overlays = [ (_: prev: { age = prev.writeShellScriptBin \"age\" \"exit 1\"; }) ];
         secrets.files = lib.genAttrs [ \"script\" \"text\" \"unused\" \"byhand\" ] (name: { file = \"/srv/${name}\"; })
           // { own = { age = ./a.age; decrypt = \"node\"; }; ours.age = ./a.age; forced = { file = \"/f\"; always = true; }; };
         systemd.services.s = { wantedBy = [ \"multi-user.target\" ]; script = \"cat ${config.secrets.files.script.file}\"; };
         environment.etc.e.text = lib.concatMapStringsSep \" \" (name: config.secrets.files.${name}.file) [ \"text\" \"own\" \"ours\" ]
           + \" /run/driftless-secrets/byhand\";",
    );
        let (used, closure, _) = used(&deployment);
        let expected = ["forced", "ours", "own", "script", "text"].map(str::to_owned);
        assert_eq!(used, expected.into());
        // What the node decrypts goes along; what is for whoever deploys stays.
        assert!(closure.contains("-own.age") && !closure.contains("-ours.age"), "{closure}");
    }
}

#[test]
fn another_ciphertext_or_owner_is_another_system_and_another_plaintext_is_not() {
    let system = |configuration: &str, ciphertext: &str, plaintext: &str| {
        let deployment = web(
            &our_nixpkgs(),
            &format!(
                "secrets.files.a = {{ age = ./a.age; {configuration} }}; secrets.files.p.file = \"/srv/p\";
                 environment.etc.e.text = config.secrets.files.a.file + config.secrets.files.p.file;"
            ),
        );
        deployment.write("a.age", ciphertext);
        deployment.write("p", plaintext);
        deployment.nodes()["web"]["toplevel"].as_str().unwrap().to_owned()
    };
    let first = system("", "one", "x");
    assert_eq!(first, system("", "one", "y"));
    assert_ne!(first, system("", "two", "x"));
    assert_ne!(first, system("mode = \"0444\";", "one", "x"));
}

#[test]
fn a_secret_that_cannot_be_right_is_refused_with_its_name() {
    for nixpkgs in every_nixpkgs() {
        for (secret, complaint) in [
            ("a = { };", "secrets.files.a needs exactly one of `file`, `command` and `age`, and has none"),
            ("a = { age = ./a.age; command = [ \"x\" ]; };", "and has `command` and `age`"),
            ("a = { file = \"/x\"; user = \"mallory\"; };", "secrets.files.a.user is 'mallory'"),
            ("a = { file = \"/x\"; group = \"mallory\"; };", "secrets.files.a.group is 'mallory'"),
            ("\"a b\" = { file = \"/x\"; };", "'a b' is no name for a secret"),
            ("a = { file = \"/x\"; mode = \"rw\"; };", "secrets.files.a.mode"),
            (
                "a = { file = \"${builtins.toFile \"x\" \"x\"}\"; };",
                "secrets.files.a.file would be in the Nix store",
            ),
        ] {
            let deployment = web(&nixpkgs, &format!("secrets.files = {{ {secret} }};"));
            refused(&deployment.manifest(&["nodes"]), &[complaint]);
        }
    }
}

#[test]
fn a_nixus_deployment_with_secrets_evaluates_as_it_is() {
    for nixpkgs in every_nixpkgs() {
        let deployment = Deployment::ours(
            &nixpkgs,
            &format!(
                "nodes.foo = {{ lib, config, ... }}: {{
                   host = \"root@172.18.67.46\";
                   configuration = {{ config, ... }}: {{
                     {BASE}
                     secrets.baseDirectory = /var/lib/my-secrets;
                     secrets.files.foo.file = ./secret;
                     users.users.bob.isSystemUser = true; users.users.bob.group = \"bob\"; users.groups.bob = {{ }};
                     secrets.files.bar = {{ user = \"bob\"; file = ./secret; }};
                     environment.etc.foo.text = \"${{config.secrets.files.foo.file}}\";
                   }};
                 }};"
            ),
        );
        deployment.write("secret", "42");
        let foo = deployment.nodes()["foo"].take();
        assert!(foo["secrets"]["foo"]["path"].as_str().unwrap().starts_with("/var/lib/my-secrets/"));
        assert_eq!(foo["secrets"]["bar"]["user"], "bob");
    }
}

#[test]
fn a_flakes_configuration_has_secrets_by_the_module_and_a_plain_one_has_none() {
    for nixpkgs in every_nixpkgs() {
        let deployment = flake(
            &nixpkgs,
            "nixosConfigurations.ours = system [ (driftless + \"/nix/modules/nixos.nix\") ({ config, ... }: {
               secrets.files.a.age = ./a.age; environment.etc.a.text = config.secrets.files.a.file; }) ];
             nixosConfigurations.plain = system [ ];",
        );
        deployment.write("a.age", "ciphertext");
        let nodes = deployment.flake("nodes");
        let secret = &nodes["nodes"]["ours"]["secrets"]["a"];
        let file = secret["source"]["age"]["file"].as_str().unwrap();
        assert!(file.starts_with("/nix/store/") && file.ends_with("/a.age"), "{file}");
        assert!(secret["source"]["age"]["stored"].is_string());
        assert_eq!(nodes["nodes"]["plain"]["secrets"], json!({}));
    }
}
