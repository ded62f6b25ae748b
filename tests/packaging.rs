//! What people install: the modules of the controller and of a managed node, the flake, its template and its checks, evaluated
//! as they do it. What a managed node then lets happen is in `managed.rs`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::nix_library::{BASE, Deployment, every_nixpkgs, our_nixpkgs, parsed, project, stderr};

/// A deployment of one machine with this configuration.
fn machine(nixpkgs: &Path, configuration: &str) -> Deployment {
    let project = project().display();
    let body = format!(
        "nodes.m.configuration = {{ config, lib, pkgs, ... }}: {{
           imports = [ {project}/nix/module.nix ]; {BASE} networking.hostName = \"m\";
           services.driftless.package = pkgs.writeShellScriptBin \"driftless\" \"\"; {configuration} }};"
    );
    Deployment::ours(nixpkgs, &body)
}

fn ask(deployment: &Deployment, question: &str) -> std::process::Output {
    let expression = format!("let c = (import ./deployment.nix).config.nodes.m.configuration; in {question}");
    let arguments = ["--eval", "--strict", "--json", "--read-write-mode", "--expr", &expression];
    deployment.command("nix-instantiate").args(arguments).output().unwrap()
}

fn controller(nixpkgs: &Path, settings: &str) -> Deployment {
    let enable = "enable = true; settings.source.url = lib.mkDefault \"https://git.example.org/infra.git\";";
    machine(nixpkgs, &format!("services.driftless = {{ {enable} {settings} }};"))
}

/// The words of Nix about a configuration that it refuses.
fn refused(deployment: &Deployment) -> String {
    let said = ask(deployment, "c.system.build.toplevel.drvPath");
    assert!(!said.status.success(), "it evaluates: {}", String::from_utf8_lossy(&said.stdout));
    stderr(&said)
}

fn build(deployment: &Deployment, what: &str) -> PathBuf {
    let expression = format!("(import ./deployment.nix).config.nodes.m.configuration.{what}");
    let built =
        deployment.command("nix-build").args(["--no-out-link", "--expr", &expression]).output().unwrap();
    assert!(built.status.success(), "{}", stderr(&built));
    String::from_utf8(built.stdout).unwrap().trim().into()
}

#[test]
fn a_setting_of_the_controller_that_is_unknown_or_of_another_type_does_not_evaluate() {
    for nixpkgs in every_nixpkgs() {
        for (settings, words) in [
            ("settings.sauce.url = \"x\";", "settings.sauce' does not exist"),
            ("settings.source.brunch = \"main\";", "settings.source.brunch' does not exist"),
            ("settings.source.poll = 30;", "settings.source.poll' is not of type"),
            ("settings.source.poll = \"30\";", "settings.source.poll' is not of type"),
            ("settings.source.hooks = \"maybe\";", "\"refuse\", \"run\""),
            ("settings.serve.listen = \"localhost\";", "settings.serve.listen' is not of type"),
            ("settings.observe.concurrency = \"many\";", "settings.observe.concurrency' is not of type"),
            ("sshKeyFile = ./key;", "sshKeyFile' is not of type"),
        ] {
            let said = refused(&controller(&nixpkgs, settings));
            assert!(said.contains(words), "{settings}: {words:?} is not in {said}");
        }
    }
}

#[test]
fn a_controller_without_a_repository_does_not_evaluate() {
    for nixpkgs in every_nixpkgs() {
        let said = refused(&machine(&nixpkgs, "services.driftless.enable = true;"));
        assert!(said.contains("services.driftless.settings.source.url"), "{said}");
    }
}

#[test]
fn what_is_set_is_what_the_program_reads_and_nothing_else() {
    let settings = "settings.source.poll = \"2m\"; settings.nix.options.max-jobs = \"4\"; settings.observe.concurrency = 4;
                    sshKeyFile = \"/run/keys/ssh\"; secretsIdentityFiles = [ \"/run/keys/age\" ];";
    for nixpkgs in every_nixpkgs() {
        let file =
            build(&controller(&nixpkgs, settings), "environment.etc.\"driftless/driftless.toml\".source");
        let config = driftless::config::Config::load(&file).unwrap();
        assert_eq!(config.source.poll.as_secs(), 120);
        assert_eq!(config.nix.options["max-jobs"], "4");
        let read: toml::Table = fs::read_to_string(file).unwrap().parse().unwrap();
        let credentials = "/run/credentials/driftless.service";
        let expected = json!({
            "source": { "url": "https://git.example.org/infra.git", "poll": "2m" },
            "nix": { "options": { "max-jobs": "4" } },
            "observe": { "concurrency": 4 },
            "ssh": { "identity_file": format!("{credentials}/ssh-key") },
            "secrets": { "identity_files": [format!("{credentials}/secrets-identity-0")] },
        });
        assert_eq!(serde_json::to_value(read).unwrap(), expected);
    }
}

#[test]
fn the_controllers_unit_has_its_keys_as_credentials_and_is_no_more_exposed_than_it_has_to_be() {
    for nixpkgs in every_nixpkgs() {
        let settings = "sshKeyFile = \"/run/keys/ssh\"; sourceKeyFile = \"/run/keys/git\"; credentials.other = \"/run/keys/o\";";
        let toplevel = build(&controller(&nixpkgs, settings), "system.build.toplevel");
        let unit = fs::read_to_string(toplevel.join("etc/systemd/system/driftless.service")).unwrap();
        for line in [
            "LoadCredential=ssh-key:/run/keys/ssh",
            "LoadCredential=source-key:/run/keys/git",
            "LoadCredential=other:/run/keys/o",
            "-i /run/credentials/driftless.service/source-key",
        ] {
            assert!(unit.contains(line), "{line} is not in {unit}");
        }
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("driftless.service");
        fs::write(&file, unit).unwrap();
        let said = Command::new("systemd-analyze")
            .args(["security", "--offline=true", "--threshold=20"])
            .arg(&file)
            .output()
            .unwrap();
        let (out, err) = (String::from_utf8_lossy(&said.stdout), stderr(&said));
        assert!(said.status.success() && err.is_empty(), "{out}{err}");
    }
}

#[test]
fn a_managed_node_that_would_not_be_safe_does_not_evaluate() {
    let node = |nixpkgs: &Path, more: &str| {
        let own = more.contains("authorizedKeys");
        let keys = if own { "" } else { "authorizedKeys = [ \"ssh-ed25519 AAAA x\" ];" };
        machine(nixpkgs, &format!("services.driftless-node = {{ enable = true; {keys} }}; {more}"))
    };
    let signed = "services.driftless-node.trustedPublicKeys = [ \"k-1:AAAA=\" ];";
    for nixpkgs in every_nixpkgs() {
        for (more, words) in [
            ("", "needs trustedPublicKeys"),
            (
                "nix.settings.trusted-users = [ \"@driftless\" ];",
                "means nothing while nix.settings.trusted-users has",
            ),
            ("nix.settings.require-sigs = false;", "means nothing while nix.settings.require-sigs is false"),
            ("security.sudo.enable = lib.mkForce false;", "security.sudo.enable is false"),
            (
                "services.driftless-node.authorizedKeys = [ \"command=\\\"sh\\\" ssh-ed25519 AAAA\" ];",
                "are public keys that begin with their type",
            ),
            ("services.driftless-node.checks.\"../x\" = \"true\";", "\"../x\" is none"),
            (
                "services.driftless = { enable = true; settings.source.url = \"x\"; };",
                "give the account of driftless-node another name",
            ),
        ] {
            let more = if words.starts_with("needs") { more.to_owned() } else { format!("{signed} {more}") };
            let said = refused(&node(&nixpkgs, &more));
            assert!(said.contains(words), "{more}: {words:?} is not in {said}");
        }
        let trusted = node(&nixpkgs, "services.driftless-node.copies = \"trusted\";");
        let rules = "map (rule: rule.commands) (builtins.filter (rule: rule.users == [ \"driftless\" ]) c.security.sudo.extraRules)";
        let rules = parsed(&ask(&trusted, rules));
        assert_eq!(
            rules,
            json!([[{ "command": "/run/current-system/sw/bin/driftless-node as-root *", "options": ["NOPASSWD"] }]])
        );
    }
}

/// A folder with what the flake is made of, as a flake that is fetched has it, and a nixpkgs in the shape of one.
fn flakes(nixpkgs: &Path) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let (driftless, as_flake) = (folder.path().join("driftless"), folder.path().join("nixpkgs"));
    fs::create_dir(&driftless).unwrap();
    for part in [
        "nix",
        "src",
        "examples",
        "deploy",
        "flake.nix",
        "default.nix",
        "Cargo.toml",
        "Cargo.lock",
        "build.rs",
    ] {
        let copied = Command::new("cp").arg("-r").arg(project().join(part)).arg(&driftless).status().unwrap();
        assert!(copied.success(), "{part}");
    }
    fs::create_dir(&as_flake).unwrap();
    let nixpkgs = nixpkgs.display();
    let outputs = format!(
        "{{ outputs = {{ self }}: let lib = import {nixpkgs}/lib; in {{
             lib = lib // {{ nixosSystem = arguments: import {nixpkgs}/nixos/lib/eval-config.nix ({{ inherit lib; system = null; }} // arguments // {{
               modules = arguments.modules ++ [ {{
                 nixpkgs.overlays = [ (final: _: {{ driftless = final.writeShellScriptBin \"driftless\" \"\"; }}) ];
               }} ];
             }}); }};
             legacyPackages.x86_64-linux = import {nixpkgs} {{ system = \"x86_64-linux\"; }};
           }}; }}"
    );
    fs::write(as_flake.join("flake.nix"), outputs).unwrap();
    fs::write(as_flake.join("default.nix"), format!("import {nixpkgs}")).unwrap();
    folder
}

#[test]
fn the_template_is_a_fleet_that_evaluates() {
    for nixpkgs in every_nixpkgs() {
        let folder = flakes(&nixpkgs);
        let fleet = folder.path().join("fleet");
        let template = "(builtins.getFlake \"path:DRIFTLESS\").templates.default.path";
        let template = template.replace("DRIFTLESS", &folder.path().join("driftless").display().to_string());
        let deployment = Deployment::file(&nixpkgs, "{ }");
        let nix = |program: &str, arguments: &[&str]| {
            let said = deployment.command(program).args(arguments).output().unwrap();
            assert!(said.status.success(), "{program} {arguments:?}: {}", stderr(&said));
            String::from_utf8(said.stdout).unwrap()
        };
        // Its own inputs are of no use here: whoever uses the template names others.
        let lock = |at: &Path| {
            let instead = |name: &str| format!("path:{}", folder.path().join(name).display());
            let mut arguments = vec!["flake".to_owned(), "lock".into(), "--override-input".into()];
            arguments.extend(["nixpkgs".to_owned(), instead("nixpkgs")]);
            if at.ends_with("fleet") {
                arguments.extend(["--override-input".to_owned(), "driftless".into(), instead("driftless")]);
            }
            arguments.push(format!("path:{}", at.display()));
            nix("nix", &arguments.iter().map(String::as_str).collect::<Vec<_>>());
        };
        lock(&folder.path().join("driftless"));
        let path = nix("nix", &["eval", "--impure", "--raw", "--expr", &template]);
        let copied =
            Command::new("cp").args(["-r", "--no-preserve=mode", &path]).arg(&fleet).status().unwrap();
        assert!(copied.success());
        lock(&fleet);
        let flake = format!("path:{}", fleet.display());
        let nodes =
            parsed(&deployment.manifest_of(&["--argstr", "flake", &flake], &["nodes"]))["nodes"].take();
        assert_eq!(nodes["web1"]["host"], "driftless@web1.example.org");
        assert_eq!(nodes["web1"]["tags"], json!(["web"]));
        assert_eq!(nodes["control"]["host"], "deploy@control.example.org");
        assert!(nodes["control"]["toplevel"].as_str().unwrap().contains("-nixos-system-control-"));
    }
}

#[test]
fn the_checks_of_the_flake_evaluate() {
    let project = project().display();
    for nixpkgs in every_nixpkgs() {
        let deployment = Deployment::file(&nixpkgs, "{ }");
        let expression = format!(
            "let pkgs = import <nixpkgs> {{ }};
                 checks = import {project}/nix/checks.nix {{
                   nixpkgs = {{ outPath = toString <nixpkgs>; legacyPackages.x86_64-linux = pkgs; }};
                   system = \"x86_64-linux\"; driftless = pkgs.writeShellScriptBin \"driftless\" \"\";
                 }};
             in [ checks.controller.drvPath checks.node.drvPath ]"
        );
        let arguments = ["--eval", "--strict", "--json", "--read-write-mode", "--expr", &expression];
        let made = parsed(&deployment.command("nix-instantiate").args(arguments).output().unwrap());
        assert_eq!(made.as_array().map(Vec::len), Some(2));
    }
}

/// It boots machines with KVM, which is somebody else's to do; here its machines are evaluated, with the real NixOS alone.
#[test]
fn the_test_on_virtual_machines_evaluates_and_deploys_what_it_says() {
    for nixpkgs in every_nixpkgs().into_iter().filter(|nixpkgs| *nixpkgs != our_nixpkgs()) {
        let deployment = Deployment::file(&nixpkgs, "{ }");
        let expression = format!(
            "let pkgs = import <nixpkgs> {{ system = \"x86_64-linux\"; }};
                 test = (import <nixpkgs/nixos/lib> {{ lib = import <nixpkgs/lib>; }}).evalTest {{
                   hostPkgs = pkgs; node.pkgs = pkgs;
                   imports = [ (import {}/nix/tests/fleet.nix {{ driftless = pkgs.writeShellScriptBin \"driftless\" \"\"; }}) ];
                 }};
             in {{
               machines = builtins.mapAttrs (_: node: node.system.build.toplevel.drvPath) test.config.nodes;
               script = test.config.testScriptString;
             }}",
            project().display()
        );
        let arguments = ["--eval", "--strict", "--json", "--read-write-mode", "--expr", &expression];
        let test: Value = parsed(&deployment.command("nix-instantiate").args(arguments).output().unwrap());
        let machines: Vec<&String> = test["machines"].as_object().unwrap().keys().collect();
        assert_eq!(machines, ["controller", "web1", "web2"]);
        let folder = tempfile::tempdir().unwrap();
        let script = folder.path().join("script.py");
        fs::write(&script, test["script"].as_str().unwrap()).unwrap();
        let compiled = Command::new("python3").args(["-m", "py_compile"]).arg(&script).output().unwrap();
        assert!(compiled.status.success(), "{}", stderr(&compiled));
    }
}
