//! The Nix side, asked as driftless asks it: real `nix-instantiate` and `nix-build` over small deployments.
//!
//! Runs with the small nixpkgs in `tests/nixpkgs`, and again with the real one that `DRIFTLESS_TEST_NIXPKGS` names.
//! Never looks into `nix/`: only its three entries (`default.nix`, `manifest.nix`, the NixOS module) are used.

mod health;
mod secrets;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

/// A real nixpkgs needs seconds for a node, ours a tenth of one.
const DEADLINE: Duration = Duration::from_secs(120);

/// What a NixOS of any kind needs in order to evaluate.
pub(crate) const BASE: &str = "boot.isContainer = true; system.stateVersion = \"24.05\";";

pub(crate) fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub(crate) fn our_nixpkgs() -> PathBuf {
    project().join("tests/nixpkgs")
}

/// Ours, and the real one where the environment names it.
pub(crate) fn every_nixpkgs() -> Vec<PathBuf> {
    let real = std::env::var_os("DRIFTLESS_TEST_NIXPKGS").map(PathBuf::from);
    std::iter::once(our_nixpkgs()).chain(real).collect()
}

/// A folder with the files of one deployment, and the nixpkgs it finds as `<nixpkgs>`.
pub(crate) struct Deployment {
    folder: TempDir,
    nixpkgs: PathBuf,
}

impl Deployment {
    pub(crate) fn file(nixpkgs: &Path, text: &str) -> Self {
        let deployment = Self { folder: tempfile::tempdir().unwrap(), nixpkgs: nixpkgs.to_owned() };
        deployment.write("deployment.nix", text);
        deployment
    }

    /// A deployment in our format; `body` is what stands in the outer braces.
    pub(crate) fn ours(nixpkgs: &Path, body: &str) -> Self {
        let entry = project().display();
        Self::file(nixpkgs, &format!("import {entry} {{ }} ({{ config, lib, ... }}: {{ {body} }})"))
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.path().join(name), text).unwrap();
    }

    pub(crate) fn command(&self, program: &str) -> assert_cmd::Command {
        let mut command = assert_cmd::Command::new(program);
        command
            .current_dir(self.path())
            .env(
                "NIX_CONFIG",
                "build-users-group =\nsandbox = false\nsubstitute = false\nexperimental-features = nix-command flakes",
            )
            .env("NIX_PATH", format!("nixpkgs={}", self.nixpkgs.display()))
            .timeout(DEADLINE);
        command
    }

    pub(crate) fn manifest_of(&self, source: &[&str], want: &[&str]) -> Output {
        self.command("nix-instantiate")
            .args(["--eval", "--strict", "--json", "--read-write-mode"])
            .arg(project().join("nix/manifest.nix"))
            .args(source)
            .args(["--argstr", "want"])
            .args(want)
            .output()
            .unwrap()
    }

    pub(crate) fn manifest(&self, want: &[&str]) -> Output {
        let file = self.path().join("deployment.nix");
        self.manifest_of(&["--argstr", "deployment", &file.display().to_string()], want)
    }

    pub(crate) fn names(&self) -> Value {
        parsed(&self.manifest(&["names"]))
    }

    pub(crate) fn nodes(&self) -> Value {
        parsed(&self.manifest(&["nodes"]))["nodes"].take()
    }

    pub(crate) fn only(&self, names: &[&str]) -> Output {
        self.manifest(&["nodes", "--argstr", "nodes", &json!(names).to_string()])
    }

    /// Everything of the flake in this folder that the manifest can say.
    fn flake(&self, want: &str) -> Value {
        let flake = format!("path:{}", self.path().display());
        parsed(&self.manifest_of(&["--argstr", "flake", &flake], &[want]))
    }
}

pub(crate) fn parsed(output: &Output) -> Value {
    assert!(output.status.success(), "{}", stderr(output));
    serde_json::from_slice(&output.stdout).unwrap()
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Asserts that the evaluation failed and that the message has all of `parts`.
pub(crate) fn refused(output: &Output, parts: &[&str]) {
    let message = stderr(output);
    assert!(!output.status.success(), "it was accepted");
    for part in parts {
        assert!(message.contains(part), "no {part:?} in:\n{message}");
    }
}

#[test]
fn a_node_without_options_has_the_documented_defaults() {
    for nixpkgs in every_nixpkgs() {
        let deployment = Deployment::ours(&nixpkgs, &format!("nodes.web.configuration = {{ {BASE} }};"));
        let mut web = deployment.nodes()["web"].take();
        let drv = web["drv"].take();
        let toplevel = web["toplevel"].take();
        assert!(drv.as_str().unwrap().ends_with(".drv"));
        assert!(Path::new(drv.as_str().unwrap()).exists(), "the derivation is on disk");
        assert!(toplevel.as_str().unwrap().contains("-nixos-system-"));
        assert_eq!(
            web,
            json!({
                "drv": null, "toplevel": null, "system": "x86_64-linux", "unsupported": [],
                "host": "web", "port": null, "sshOptions": {}, "hostKeys": [], "tags": [],
                "availability": "always", "goal": "switch", "onDrift": "heal", "suspended": null,
                "after": [], "approval": false,
                "hasFastConnection": false, "switchTimeout": 300, "successTimeout": 60, "healthTimeout": 60,
                "ignoreFailingSystemdUnits": false, "ignoreUnits": [], "privilegeEscalationCommand": ["sudo"],
                "healthChecks": { "units": [], "commands": {} },
                "reboot": { "policy": "never", "window": null, "timeout": 600, "unproven": false },
                "buildOnTarget": false, "machineId": null, "lastResort": "reboot",
                "closurePaths": [], "closureDrvs": [], "secrets": {}, "hooks": [], "hookTimeout": 600,
            })
        );
    }
}

#[test]
fn every_option_reaches_the_manifest() {
    for nixpkgs in every_nixpkgs() {
        let deployment = Deployment::ours(
            &nixpkgs,
            &format!(
                r#"
                rollout = {{
                  maxInFlight = 2; requireAll = true; healAfter = "1h5m"; onFailure = "rollback"; unreachable = "wait";
                  approvalExpires = "12h";
                  waves = [
                    {{ on = "@a"; soak = "10m"; approval = true; order = [ "web" ]; }}
                    {{ on = "*"; maxInFlight = 3; maxUnavailable = "20%"; maxFailures = 1; }}
                  ];
                  windows = [
                    {{ timeZone = "Europe/Berlin"; }}
                    {{
                      on = "@a and not web"; effect = "deny"; days = [ "sat" "sun" ]; hours = "22:00-24:00";
                      from = "2026-12-20"; until = "2027-01-02"; timeZone = "UTC";
                    }}
                  ];
                }};
                nodes.web = {{ pkgs, ... }}: {{
                  host = "admin@192.0.2.7"; port = 2222; hostKeys = [ "ssh-ed25519 AAAA" ]; tags = [ "a" "b" ];
                  sshOptions = {{ IdentityFile = "/k"; ConnectTimeout = 5; Compression = true; }};
                  availability = "intermittent"; goal = "boot"; onDrift = "report"; suspended = "disk";
                  hasFastConnection = true; switchTimeout = "1m30s"; successTimeout = 20; healthTimeout = "2m";
                  ignoreFailingSystemdUnits = true; ignoreUnits = [ "x.service" ];
                  privilegeEscalationCommand = [ "doas" "-n" ];
                  healthChecks = {{ units = [ "nginx.service" ]; commands.up = "true"; }};
                  lastResort = "none"; hookTimeout = "20m";
                  after = [ "db*" ]; approval = true;
                  reboot = {{
                    policy = "when-required"; timeout = "15m"; unproven = true;
                    window = {{ days = [ "sun" ]; hours = "02:00-04:00"; timeZone = "UTC"; }};
                  }};
                  machineId = "0123456789abcdef0123456789abcdef";
                  closurePaths = [ (pkgs.writeText "extra" "x") ];
                  configuration = {{ {BASE} }};
                }};
                "#
            ),
        );
        assert_eq!(
            deployment.names()["rollout"],
            json!({
                "maxInFlight": 2, "requireAll": true, "healAfter": 3900, "onFailure": "rollback", "unreachable": "wait",
                "approvalExpires": 43200,
                "waves": [
                    { "on": "@a", "soak": 600, "maxInFlight": null, "maxUnavailable": null, "maxFailures": 0,
                      "order": ["web"], "approval": true },
                    { "on": "*", "soak": 0, "maxInFlight": 3, "maxUnavailable": "20%", "maxFailures": 1,
                      "order": [], "approval": false },
                ],
                "windows": [
                    { "on": "*", "effect": "allow", "days": [], "hours": null, "from": null, "until": null,
                      "timeZone": "Europe/Berlin" },
                    { "on": "@a and not web", "effect": "deny", "days": ["sat", "sun"], "hours": "22:00-24:00",
                      "from": "2026-12-20", "until": "2027-01-02", "timeZone": "UTC" },
                ],
                "healthChecks": { "units": [], "commands": {} },
            })
        );
        let web = deployment.nodes()["web"].take();
        let expected = json!({
            "host": "admin@192.0.2.7", "port": 2222, "hostKeys": ["ssh-ed25519 AAAA"], "tags": ["a", "b"],
            "sshOptions": { "IdentityFile": "/k", "ConnectTimeout": "5", "Compression": "yes" },
            "availability": "intermittent", "goal": "boot", "onDrift": "report", "suspended": "disk",
            "hasFastConnection": true, "switchTimeout": 90, "successTimeout": 20, "healthTimeout": 120,
            "ignoreFailingSystemdUnits": true, "ignoreUnits": ["x.service"],
            "privilegeEscalationCommand": ["doas", "-n"],
            "healthChecks": { "units": ["nginx.service"], "commands": { "up": "true" } },
            "after": ["db*"], "approval": true,
            "reboot": {
                "policy": "when-required", "timeout": 900, "unproven": true,
                "window": { "days": ["sun"], "hours": "02:00-04:00", "from": null, "until": null, "timeZone": "UTC" },
            },
            "buildOnTarget": false, "lastResort": "none",
            "machineId": "0123456789abcdef0123456789abcdef", "hookTimeout": 1200,
        });
        for (option, value) in expected.as_object().unwrap() {
            assert_eq!(&web[option], value, "{option}");
        }
        assert!(web["closurePaths"][0].as_str().unwrap().ends_with("-extra"));
        assert!(web["closureDrvs"][0].as_str().unwrap().ends_with("-extra.drv"));
    }
}

#[test]
fn nodes_share_the_defaults_and_see_each_other() {
    for nixpkgs in every_nixpkgs() {
        let deployment = Deployment::ours(
            &nixpkgs,
            &format!(
                r#"
                defaults = {{ name, lib, ... }}: {{
                  tags = [ "all" ];
                  successTimeout = lib.mkDefault 45;
                  configuration = {{ lib, ... }}: {{ networking.hostName = lib.mkDefault name; {BASE} }};
                }};
                nodes.web = {{ tags = [ "web" ]; successTimeout = 30; }};
                nodes.db = {{ config, ... }}: {{
                  tags = [ config.configuration.networking.hostName ];
                  configuration = {{ nodes, name, ... }}: {{
                    networking.hostName = "${{name}}-of-${{nodes.web.networking.hostName}}";
                  }};
                }};
                "#
            ),
        );
        let nodes = deployment.nodes();
        assert!(nodes["db"]["toplevel"].as_str().unwrap().contains("-nixos-system-db-of-web-"));
        assert_eq!(nodes["db"]["successTimeout"], 45);
        assert_eq!(nodes["web"]["successTimeout"], 30);
        let mut tags: Vec<_> = nodes["db"]["tags"].as_array().unwrap().clone();
        tags.sort_by_key(ToString::to_string);
        assert_eq!(tags, [json!("all"), json!("db-of-web")]);
    }
}

#[test]
fn a_node_is_built_from_its_own_nixpkgs() {
    for nixpkgs in every_nixpkgs() {
        let deployment = Deployment::ours(
            &nixpkgs,
            &format!(
                "nodes.old = {{ nixpkgs = ./old; configuration.mark = \"x\"; }};
                 nodes.new.configuration = {{ {BASE} }};"
            ),
        );
        fs::create_dir_all(deployment.path().join("old/nixos/lib")).unwrap();
        std::os::unix::fs::symlink(our_nixpkgs().join("lib"), deployment.path().join("old/lib")).unwrap();
        deployment.write(
            "old/nixos/lib/eval-config.nix",
            r#"{ system, lib, modules, specialArgs }:
               lib.evalModules { inherit specialArgs; modules = modules ++ [ ({ config, ... }: {
                 config._module.check = false;
                 options.mark = lib.mkOption { type = lib.types.str; };
                 options.system = lib.mkOption { type = lib.types.anything; };
                 config.system.build.toplevel = derivation {
                   inherit system; name = "nixos-system-${config.mark}"; builder = "/bin/sh"; };
               }) ]; } // { pkgs = { }; }"#,
        );
        let nodes = deployment.nodes();
        assert!(nodes["old"]["toplevel"].as_str().unwrap().ends_with("-nixos-system-x"));
        assert!(!nodes["new"]["toplevel"].as_str().unwrap().ends_with("-nixos-system-x"));
    }
}

#[test]
fn the_nixpkgs_argument_takes_the_place_of_the_search_path() {
    for nixpkgs in every_nixpkgs() {
        let deployment = Deployment::file(
            Path::new("/nonexistent"),
            &format!(
                "import {}/nix {{ nixpkgs = {}; }} ({{ ... }}: {{ nodes.web.configuration = {{ {BASE} }}; }})",
                project().display(),
                nixpkgs.display()
            ),
        );
        assert_eq!(deployment.names()["nodes"], json!(["web"]));
        assert_eq!(deployment.nodes()["web"]["host"], "web");
    }
}

#[test]
fn names_are_listed_although_a_node_does_not_even_parse() {
    for nixpkgs in every_nixpkgs() {
        let deployment = Deployment::ours(
            &nixpkgs,
            &format!(
                "nodes.broken = ./broken.nix; nodes.gone = import ./gone.nix; nodes.typo = lib.nope; nodes.web.configuration = {{ {BASE} }};"
            ),
        );
        deployment.write("broken.nix", "{ configuration = ");
        assert_eq!(deployment.names()["nodes"], json!(["broken", "gone", "typo", "web"]));
        let web = parsed(&deployment.only(&["web"]));
        assert_eq!(web["nodes"]["web"]["host"], "web");
        refused(&deployment.only(&["broken"]), &["syntax error", "broken.nix"]);
        refused(&deployment.only(&["gone"]), &["gone.nix"]);
    }
}

#[test]
fn a_disabled_node_is_left_out_and_one_without_host_stays() {
    for nixpkgs in every_nixpkgs() {
        let deployment = Deployment::ours(
            &nixpkgs,
            &format!(
                "nodes.off = {{ enabled = false; configuration = throw \"evaluated\"; }};
                 nodes.absent = lib.mkIf false {{ configuration = throw \"evaluated\"; }};
                 nodes.spare = {{ host = null; configuration = {{ {BASE} }}; }};"
            ),
        );
        let nodes = deployment.nodes();
        assert_eq!(nodes.as_object().unwrap().len(), 1);
        assert_eq!(nodes["spare"]["host"], Value::Null);
    }
}

#[test]
fn a_wrong_option_names_the_node_the_option_and_the_file() {
    for nixpkgs in every_nixpkgs() {
        let cases = [
            ("port = \"ssh\";", "port"),
            ("switchTimeout = \"soon\";", "switchTimeout"),
            ("goal = \"dry-activate\";", "goal"),
            ("machineId = \"short\";", "machineId"),
            ("hots = \"192.0.2.1\";", "hots"),
        ];
        for (line, option) in cases {
            let deployment = Deployment::ours(&nixpkgs, "nodes.web = ./web.nix;");
            deployment.write("web.nix", &format!("{{ {line} configuration = {{ {BASE} }}; }}"));
            let output = deployment.manifest(&["nodes"]);
            refused(&output, &[&format!("nodes.web.{option}"), "web.nix"]);
            let inline = Deployment::ours(
                &nixpkgs,
                &format!("nodes.web = {{ {line} configuration = {{ {BASE} }}; }};"),
            );
            refused(&inline.manifest(&["nodes"]), &[&format!("nodes.web.{option}"), "/deployment.nix"]);
        }
    }
}

#[test]
fn a_deployment_that_names_no_arguments_is_told_of_by_its_file_all_the_same() {
    for nixpkgs in every_nixpkgs() {
        let entry = project().display();
        let node = "nodes.web = { host = 3; configuration = { }; }";
        for function in ["{ ... }", "args"] {
            let text = format!("import {entry} {{ }} ({function}: {{ {node}; }})");
            let output = Deployment::file(&nixpkgs, &text).manifest(&["nodes"]);
            refused(&output, &["nodes.web.host", "/deployment.nix"]);
        }
        // What it declares depends on what it is asked for: then nobody knows, and nothing else breaks.
        let text = format!("import {entry} {{ }} (args: if args.config.nodes ? web then {{ }} else {{ }})");
        let said = Deployment::file(&nixpkgs, &text).manifest(&["nodes"]).stderr;
        let said = String::from_utf8_lossy(&said).into_owned();
        assert!(said.contains("infinite recursion") && !said.contains("asked only"), "{said}");
    }
}

#[test]
fn a_rollout_that_is_malformed_names_the_option() {
    for nixpkgs in every_nixpkgs() {
        for (rollout, option) in [
            (r#"waves = [ { on = "*"; maxUnavailable = "120%"; } ]"#, "maxUnavailable"),
            (r#"waves = [ { on = "*"; maxInFlight = 0; } ]"#, "maxInFlight"),
            (r#"waves = [ { on = "*"; soak = "soon"; } ]"#, "soak"),
            (r#"waves = [ { soak = 5; } ]"#, "on"),
            (r#"waves = [ { on = "*"; wait = 5; } ]"#, "wait"),
            (r#"windows = [ { hours = "9-17"; timeZone = "UTC"; } ]"#, "hours"),
            (r#"windows = [ { days = [ "monday" ]; timeZone = "UTC"; } ]"#, "days"),
            (r#"windows = [ { from = "20.12.2026"; timeZone = "UTC"; } ]"#, "from"),
            (r#"windows = [ { days = [ "mon" ]; } ]"#, "timeZone"),
            (r#"windows = [ { effect = "shut"; timeZone = "UTC"; } ]"#, "effect"),
            (r#"onFailure = "panic""#, "onFailure"),
            ("maxInFlight = 0", "maxInFlight"),
        ] {
            let deployment = Deployment::ours(&nixpkgs, &format!("nodes = {{ }}; rollout.{rollout};"));
            refused(&deployment.manifest(&["names"]), &["rollout.", option]);
        }
    }
}

#[test]
fn a_wrong_nixos_option_names_the_option_and_the_file() {
    for nixpkgs in every_nixpkgs() {
        let deployment = Deployment::ours(&nixpkgs, "nodes.web.configuration = ./web.nix;");
        deployment.write("web.nix", "{ networking.hostName = 7; }");
        refused(&deployment.manifest(&["nodes"]), &["networking.hostName", "web.nix"]);
        deployment.write("web.nix", "{ networking.hostname = \"web\"; }");
        refused(&deployment.manifest(&["nodes"]), &["networking.hostname", "does not exist", "web.nix"]);
    }
}

#[test]
fn a_node_that_is_asked_for_and_unknown_is_named_with_those_there_are() {
    let deployment = Deployment::ours(&our_nixpkgs(), "nodes.web = { }; nodes.db = { };");
    refused(&deployment.only(&["wbe"]), &["no node 'wbe'", "db, web"]);
}

#[test]
fn an_unknown_format_is_refused_with_what_was_found_and_what_is_understood() {
    let cases = [
        ("{ machines = { }; }", "an attribute set with machines"),
        ("{ pkgs, ... }: { }", "a function"),
        ("[ ]", "a value of type list"),
    ];
    for (text, found) in cases {
        let deployment = Deployment::file(&our_nixpkgs(), text);
        refused(
            &deployment.manifest(&["names"]),
            &[found, "no known deployment format", "nixus", "nixosConfigurations"],
        );
    }
}

#[test]
fn a_deployment_may_be_a_function_with_defaults() {
    let entry = project().display();
    let deployment = Deployment::file(
        &our_nixpkgs(),
        &format!(
            "{{ names ? [ \"a\" \"b\" ] }}: import {entry} {{ }} ({{ lib, ... }}: {{ nodes = lib.genAttrs names (_: {{ }}); }})"
        ),
    );
    assert_eq!(deployment.names()["nodes"], json!(["a", "b"]));
}

#[test]
fn an_empty_fleet_is_a_deployment() {
    let deployment = Deployment::ours(&our_nixpkgs(), "");
    assert_eq!(deployment.names()["nodes"], json!([]));
    assert_eq!(deployment.nodes(), json!({}));
}

#[test]
fn the_result_of_the_original_nixus_is_understood() {
    // What nixus evaluates to: evaluated modules, the script's derivation and one script per node in one set. With a
    // nixpkgs since 2024 its `type` is no longer "derivation".
    let deployment = Deployment::file(
        &our_nixpkgs(),
        r#"
        let
          pkgs = import <nixpkgs> { };
          lib = pkgs.lib;
          system = name: pkgs.writeText "nixos-system-${name}" "";
          node = { host, ... }@options: {
            enabled = true; hasFastConnection = false; switchTimeout = 60; successTimeout = 20;
            ignoreFailingSystemdUnits = false; privilegeEscalationCommand = [ "doas" ];
            configuration.system.build.toplevel = system "x";
            closurePaths = [ (system "x") (throw "runCommandNoCC was removed") (pkgs.writeText "extra" "") ];
            deployScript = throw "not needed"; deployScriptPhases = { }; nixpkgs = <nixpkgs>;
          } // options;
          result = lib.evalModules { modules = [
            { options.nodes = lib.mkOption { type = lib.types.raw; }; options.deployScript = lib.mkOption { type = lib.types.raw; }; }
            { nodes = { web = node { host = "root@192.0.2.1"; switchTimeout = 600; }; db = node { host = null; }; off = node { host = "off"; enabled = false; }; };
              deployScript = pkgs.writeScript "deploy" ""; }
          ]; };
        in result.config.deployScript // result // { web = pkgs.hello; }
        "#,
    );
    let names = deployment.names();
    assert_eq!(names["format"], "nixus");
    assert_eq!(names["nodes"], json!(["db", "off", "web"]));
    let nodes = deployment.nodes();
    assert_eq!(nodes.as_object().unwrap().len(), 2);
    assert_eq!(nodes["web"]["host"], "root@192.0.2.1");
    assert_eq!(nodes["web"]["switchTimeout"], 600, "what the user set");
    assert_eq!(nodes["db"]["switchTimeout"], 300, "not nixus's default");
    assert_eq!(nodes["db"]["host"], Value::Null);
    assert_eq!(nodes["web"]["privilegeEscalationCommand"], json!(["doas"]));
    assert_eq!(nodes["web"]["closurePaths"].as_array().unwrap().len(), 1);

    let file = deployment.path().join("deployment.nix");
    let text = fs::read_to_string(&file).unwrap();
    let secret =
        "configuration.system.build.toplevel = system \"x\"; configuration.secrets.files.db.file = \"/x\";";
    fs::write(&file, text.replace("configuration.system.build.toplevel = system \"x\";", secret)).unwrap();
    refused(&deployment.only(&["web"]), &["node 'web' has `secrets.files` of nixus itself"]);
}

/// A flake whose configurations are evaluated by its own nixpkgs; `body` is the set of `nixosConfigurations`.
fn flake(nixpkgs: &Path, outputs: &str) -> Deployment {
    let deployment = Deployment::file(nixpkgs, "{ }");
    deployment.write(
        "flake.nix",
        &format!(
            "{{ outputs = {{ self }}: let
                 driftless = {};
                 nixpkgs = {};
                 system = modules: import (nixpkgs + \"/nixos/lib/eval-config.nix\") {{
                   system = \"x86_64-linux\"; modules = modules ++ [ {{ {BASE} }} ]; }};
               in {{ {outputs} }}; }}",
            project().display(),
            nixpkgs.display()
        ),
    );
    deployment
}

#[test]
fn a_flakes_nixos_configurations_are_nodes() {
    for nixpkgs in every_nixpkgs() {
        let deployment = flake(
            &nixpkgs,
            r#"
            nixosConfigurations.plain = system [ ];
            nixosConfigurations.web = system [ (driftless + "/nix/modules/nixos.nix") {
              driftless = { host = "root@192.0.2.9"; tags = [ "web" ]; switchTimeout = "10m"; }; } ];
            nixosConfigurations.spare = system [ (driftless + "/nix/modules/nixos.nix") { driftless.host = null; } ];
            nixosConfigurations.named = system [ (driftless + "/nix/modules/nixos.nix") ];
            nixosConfigurations.off = system [ (driftless + "/nix/modules/nixos.nix") { driftless.enabled = false; } ];
            "#,
        );
        let names = deployment.flake("names");
        assert_eq!(names["format"], "flake");
        assert_eq!(names["nodes"], json!(["named", "off", "plain", "spare", "web"]));
        assert_eq!(names["rollout"]["maxInFlight"], 5);
        let nodes = deployment.flake("nodes")["nodes"].take();
        assert_eq!(nodes.as_object().unwrap().len(), 4, "off is left out");
        assert_eq!(nodes["plain"]["host"], "plain");
        assert_eq!(nodes["plain"]["switchTimeout"], 300);
        assert_eq!(nodes["named"]["host"], "named");
        assert_eq!(nodes["spare"]["host"], Value::Null);
        assert_eq!(nodes["web"]["host"], "root@192.0.2.9");
        assert_eq!(nodes["web"]["tags"], json!(["web"]));
        assert_eq!(nodes["web"]["switchTimeout"], 600);
        let keys = |node: &str| -> Vec<String> { nodes[node].as_object().unwrap().keys().cloned().collect() };
        assert_eq!(keys("plain"), keys("web"), "the shape is always the same");
    }
}

#[test]
fn a_flake_may_offer_a_whole_deployment_instead() {
    for nixpkgs in every_nixpkgs() {
        let deployment = flake(
            &nixpkgs,
            "nixosConfigurations.ignored = throw \"evaluated\";
             driftless = import driftless { inherit nixpkgs; deploySystem = \"x86_64-linux\"; }
               ({ ... }: { nodes.web = { }; rollout.maxInFlight = 9; });",
        );
        let names = deployment.flake("names");
        assert_eq!(names["format"], "driftless");
        assert_eq!(names["nodes"], json!(["web"]));
        assert_eq!(names["rollout"]["maxInFlight"], 9);
    }
}

/// A program `driftless` that prints its arguments, one a line.
fn stub_driftless(folder: &Path) {
    fs::create_dir_all(folder).unwrap();
    let program = folder.join("driftless");
    fs::write(&program, "#!/bin/sh\nprintf '%s\\n' \"$@\"\n").unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn the_script_builds_nothing_of_a_node_that_builds_its_system_itself_and_keeps_its_derivation() {
    let tag = std::process::id();
    let body = format!(
        "nodes.web = {{ pkgs, ... }}: {{ buildOnTarget = true; closurePaths = [ (pkgs.runCommand \"extra-{tag}\" {{ }} \"exit 1\") ]; \
         configuration = {{ {BASE} environment.systemPackages = [ (pkgs.runCommand \"own-{tag}\" {{ }} \"exit 1\") ]; }}; }};"
    );
    let deployment = Deployment::ours(&our_nixpkgs(), &body);
    stub_driftless(&deployment.path().join("stub"));
    deployment.command("nix-build").arg("deployment.nix").assert().success();
    let (_, release) = run_result(&deployment, &[]);
    let node = &release["nodes"]["web"];
    assert_eq!(node["buildOnTarget"], true);
    let closure =
        deployment.command("nix-store").args(["--query", "--requisites", "./result"]).output().unwrap();
    let closure = String::from_utf8(closure.stdout).unwrap();
    for drv in [&node["drv"], &node["closureDrvs"][0]] {
        assert!(closure.contains(drv.as_str().unwrap()), "{drv} is not kept:\n{closure}");
    }
    assert!(!std::path::Path::new(node["toplevel"].as_str().unwrap()).exists());
}

/// The arguments that `./result` gave to driftless, and the release that it named.
fn run_result(deployment: &Deployment, arguments: &[&str]) -> (Vec<String>, Value) {
    let path = format!("{}:/usr/bin:/bin", deployment.path().join("stub").display());
    let output = deployment
        .command(&deployment.path().join("result").display().to_string())
        .args(arguments)
        .env("PATH", path)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    let printed: Vec<String> = text.lines().map(str::to_owned).collect();
    let release = serde_json::from_slice(&fs::read(&printed[2]).unwrap()).unwrap();
    (printed, release)
}

// Building needs no more than evaluating from a real nixpkgs, but it builds a real system: only with ours.
#[test]
fn nix_build_gives_a_script_that_deploys_what_was_built() {
    let deployment = Deployment::ours(
        &our_nixpkgs(),
        "nodes.web = { pkgs, ... }: { tags = [ \"w\" ]; closurePaths = [ pkgs.hello ]; };
         nodes.db = { }; nodes.off.enabled = false;",
    );
    stub_driftless(&deployment.path().join("stub"));
    deployment.command("nix-build").arg("deployment.nix").assert().success();
    let (printed, release) = run_result(&deployment, &["--on", "a b"]);
    assert_eq!(printed[..2], ["deploy", "--release"]);
    assert_eq!(printed[3..], ["--on", "a b"]);

    assert_eq!(release["version"], 1);
    assert_eq!(release["format"], "driftless");
    assert_eq!(release["rollout"]["healAfter"], 300);
    assert_eq!(release["nodes"].as_object().unwrap().len(), 2);
    let web = &release["nodes"]["web"];
    assert_eq!(web["tags"], json!(["w"]));
    assert!(Path::new(web["toplevel"].as_str().unwrap()).exists());
    assert!(Path::new(web["closurePaths"][0].as_str().unwrap()).exists());

    let references =
        deployment.command("nix-store").args(["--query", "--requisites", "./result"]).output().unwrap();
    let references = String::from_utf8(references.stdout).unwrap();
    assert!(
        references.contains(web["toplevel"].as_str().unwrap()),
        "a root for the script keeps the systems"
    );
    assert!(!references.contains(".drv"), "and not what they were built from");
}

#[test]
fn each_node_has_a_script_of_its_own_that_needs_no_other_node() {
    let deployment = Deployment::ours(
        &our_nixpkgs(),
        "nodes.web = { }; nodes.broken.configuration = throw \"broken\"; nodes.name = { };",
    );
    stub_driftless(&deployment.path().join("stub"));
    deployment.command("nix-build").args(["deployment.nix", "-A", "web"]).assert().success();
    let (_, release) = run_result(&deployment, &[]);
    let nodes: Vec<_> = release["nodes"].as_object().unwrap().keys().collect();
    assert_eq!(nodes, ["web"]);
    let whole = deployment.command("nix-build").arg("deployment.nix").output().unwrap();
    refused(&whole, &["broken"]);
}

#[test]
fn the_script_says_how_to_get_driftless_where_there_is_none() {
    let deployment = Deployment::ours(&our_nixpkgs(), "nodes.web = { };");
    deployment.command("nix-build").arg("deployment.nix").assert().success();
    let output = deployment.command("./result").env("PATH", "/nonexistent").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("driftless is not on PATH"));
}

#[test]
fn the_script_prefers_the_package_it_was_given() {
    let entry = project().display();
    let deployment = Deployment::file(
        &our_nixpkgs(),
        &format!(
            "let pkgs = import <nixpkgs> {{ }}; in
             import {entry} {{ package = pkgs.writeShellScriptBin \"driftless\" \"echo packaged $1\"; }}
               ({{ ... }}: {{ nodes.web = {{ }}; }})"
        ),
    );
    stub_driftless(&deployment.path().join("stub"));
    deployment.command("nix-build").arg("deployment.nix").assert().success();
    deployment.command("./result").assert().success().stdout("packaged deploy\n");
}

#[test]
fn a_lib_overlay_reaches_the_deployment_and_its_nodes() {
    let entry = project().display();
    let deployment = Deployment::file(
        &our_nixpkgs(),
        &format!(
            "import {entry} {{ libOverlay = final: prev: {{ tag = \"t\"; }}; }} ({{ lib, ... }}: {{
               nodes.web = {{ lib, ... }}: {{ tags = [ lib.tag ]; configuration = {{ lib, ... }}: {{ networking.hostName = lib.tag; }}; }}; }})"
        ),
    );
    let web = deployment.nodes()["web"].take();
    assert_eq!(web["tags"], json!(["t"]));
    assert!(web["toplevel"].as_str().unwrap().contains("-nixos-system-t-"));
}

#[test]
fn the_evaluated_deployment_can_be_asked_by_other_nix_code() {
    for nixpkgs in every_nixpkgs() {
        let deployment = Deployment::ours(&nixpkgs, "nodes.web.configuration.networking.hostName = \"x\";");
        let output = deployment
            .command("nix-instantiate")
            .args(["--eval", "--strict", "--json", "--expr"])
            .arg(
                "let d = import ./deployment.nix; in
                 [ d.type d.config.nodes.web.configuration.networking.hostName (d.options ? nodes) d.web.type ]",
            )
            .output()
            .unwrap();
        assert_eq!(parsed(&output), json!(["derivation", "x", true, "derivation"]));
    }
}

#[test]
fn what_nix_writes_is_what_driftless_reads() {
    use driftless::model::manifest::{Manifest, Names};
    use driftless::model::node::Reboot;
    use driftless::model::rollout::RolloutSpec;
    for nixpkgs in every_nixpkgs() {
        let deployment = Deployment::ours(
            &nixpkgs,
            &format!(
                "nodes.web = {{ pkgs, ... }}: {{ closurePaths = [ (pkgs.writeText \"x\" \"\") ]; configuration = {{ {BASE} }}; }};"
            ),
        );
        let names: Names = serde_json::from_value(deployment.names()).unwrap();
        assert_eq!(names.rollout, RolloutSpec::default(), "both sides have the same defaults");
        let nodes: Manifest = serde_json::from_value(parsed(&deployment.manifest(&["nodes"]))).unwrap();
        assert!(names.nodes.iter().eq(nodes.nodes.keys()));
        let web = nodes.nodes.values().next().unwrap();
        assert_eq!(web.closure_drvs.len(), 1);
        assert_eq!((&web.reboot, &web.after, web.approval), (&Reboot::default(), &Vec::new(), false));
    }
}

#[test]
fn a_flake_says_what_holds_for_the_whole_fleet() {
    let nixpkgs = our_nixpkgs();
    let fleet = flake(&nixpkgs, "nixosConfigurations = { }; driftless.rollout = { healAfter = \"10m\"; };");
    assert_eq!(
        fleet.flake("names")["rollout"],
        json!({
            "waves": [{ "on": "*" }], "windows": [], "maxInFlight": 5, "onFailure": "halt", "unreachable": "skip",
            "approvalExpires": 86400, "requireAll": false, "healAfter": 600, "healthChecks": { "units": [], "commands": {} },
        })
    );
    let waves = "waves = [ { on = \"@canary\"; soak = \"10m\"; } { on = \"*\"; } ];";
    let fleet = flake(&nixpkgs, &format!("nixosConfigurations = {{ }}; driftless.rollout = {{ {waves} }};"));
    assert_eq!(
        fleet.flake("names")["rollout"]["waves"],
        json!([{ "on": "@canary", "soak": 600 }, { "on": "*" }])
    );
    for (rollout, message) in [
        ("maxInFlihgt = 2;", "unknown rollout option 'maxInFlihgt'"),
        ("healAfter = \"soon\";", "'soon' is no duration"),
        ("waves = [ { on = \"*\"; soak = \"soon\"; } ];", "'soon' is no duration"),
    ] {
        let wrong =
            flake(&nixpkgs, &format!("nixosConfigurations = {{ }}; driftless.rollout = {{ {rollout} }};"));
        let source = format!("path:{}", wrong.path().display());
        refused(&wrong.manifest_of(&["--argstr", "flake", &source], &["names"]), &[message]);
    }
}

#[test]
fn the_project_is_a_flake_with_a_package_modules_and_a_library() {
    let deployment = Deployment::file(&our_nixpkgs(), "{ }");
    deployment.write(
        "outputs.nix",
        &format!(
            r#"
            let
              pkgs = import <nixpkgs> {{ }};
              nixpkgs = {{
                outPath = toString <nixpkgs>;
                legacyPackages = builtins.mapAttrs (_: _: {{
                  callPackage = file: _: import file {{
                    inherit (pkgs) lib git nix openssh;
                    rustPlatform.buildRustPackage = recipe: recipe; makeWrapper = null; installShellFiles = null;
                    pkg-config = null; stdenv.buildPlatform.canExecute = _: true; stdenv.hostPlatform = {{ }};
                  }};
                }}) {{ x86_64-linux = 1; aarch64-linux = 1; }};
              }};
              self.inputs = {{ inherit nixpkgs; }};
              outputs = (import {}/flake.nix).outputs {{ inherit self nixpkgs; }};
              recipe = outputs.packages.x86_64-linux.default;
            in {{
              inherit (recipe) version;
              lock = builtins.pathExists recipe.cargoLock.lockFile;
              source = builtins.attrNames (builtins.readDir recipe.src);
              modules = builtins.mapAttrs (_: builtins.pathExists) outputs.nixosModules;
              nodes = (outputs.lib.deployment {{ }} ({{ ... }}: {{ nodes.web = {{ }}; }})).driftless.manifest.names;
            }}
            "#,
            project().display()
        ),
    );
    let output = deployment
        .command("nix-instantiate")
        .args(["--eval", "--strict", "--json", "--read-write-mode", "outputs.nix"])
        .output()
        .unwrap();
    let outputs = parsed(&output);
    assert_eq!(outputs["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(outputs["lock"], true);
    assert_eq!(outputs["modules"], json!({ "default": true, "controller": true, "node": true }));
    assert_eq!(outputs["nodes"], json!(["web"]));
    let source = outputs["source"].as_array().unwrap();
    assert!(source.contains(&json!("src")) && !source.contains(&json!("target")));
}

#[test]
fn the_controller_is_a_nixos_service() {
    for nixpkgs in every_nixpkgs() {
        let deployment = Deployment::ours(
            &nixpkgs,
            &format!(
                "nodes.controller.configuration = {{ pkgs, ... }}: {{
                   imports = [ {}/nix/module.nix ]; {BASE}
                   services.driftless = {{
                     enable = true; package = pkgs.writeShellScriptBin \"driftless\" \"\";
                     settings.source = {{ url = \"https://git.example.org/infra.git\"; branch = \"main\"; }};
                   }}; }};",
                project().display()
            ),
        );
        let output = deployment
            .command("nix-instantiate")
            .args(["--eval", "--strict", "--json", "--read-write-mode", "--expr"])
            .arg(
                "let c = (import ./deployment.nix).config.nodes.controller.configuration; in {
                   service = c.systemd.services.driftless.serviceConfig;
                   file = c.environment.etc.\"driftless/driftless.toml\".source;
                   system = c.system.build.toplevel.drvPath; }",
            )
            .output()
            .unwrap();
        let controller = parsed(&output);
        let start = controller["service"]["ExecStart"].as_str().unwrap();
        assert!(start.ends_with("/bin/driftless run --config /etc/driftless/driftless.toml"));
        assert_eq!(controller["service"]["StateDirectory"], "driftless");
        assert_eq!(controller["service"]["ProtectSystem"], "strict");
        assert!(controller["file"].as_str().unwrap().ends_with("driftless.toml"));
    }
}

#[test]
fn the_controllers_settings_become_its_configuration_file() {
    let deployment = Deployment::ours(
        &our_nixpkgs(),
        &format!(
            "nodes.controller.configuration = {{ pkgs, ... }}: {{
               imports = [ {}/nix/module.nix ];
               services.driftless = {{
                 enable = true; package = pkgs.hello;
                 settings.source = {{ url = \"https://git.example.org/infra.git\"; branch = \"main\"; deployment = \"deployment.nix\"; }};
               }}; }};",
            project().display()
        ),
    );
    let built = deployment
        .command("nix-build")
        .args(["--no-out-link", "--expr"])
        .arg(
            "(import ./deployment.nix).config.nodes.controller.configuration.environment.etc.\"driftless/driftless.toml\".source",
        )
        .output()
        .unwrap();
    assert!(built.status.success(), "{}", stderr(&built));
    let path = String::from_utf8(built.stdout).unwrap();
    let file: toml::Table = fs::read_to_string(path.trim()).unwrap().parse().unwrap();
    assert_eq!(file["source"]["branch"].as_str(), Some("main"));
}

// What the lab and the demo rely on: a deployment, written as for NixOS, gives systems that lab nodes can run.
#[test]
fn the_test_nixpkgs_builds_systems_for_lab_nodes() {
    let deployment = Deployment::ours(
        &our_nixpkgs(),
        "nodes.web.configuration = { pkgs, ... }: {
           networking.hostName = \"web\"; environment.etc.motd.text = \"hello\"; environment.systemPackages = [ pkgs.htop ];
           systemd.services.web = { wantedBy = [ \"multi-user.target\" ]; script = \"exec sleep infinity\"; };
           systemd.services.later.serviceConfig.ExecStart = \"/bin/true\";
           specialisation.quiet.configuration.lab.text = \"quiet\";
           lab.text = \"two\"; lab.faults = { killSsh = true; slow = 3; hang = false; }; };",
    );
    let built = deployment
        .command("nix-build")
        .args(["--no-out-link", "--expr"])
        .arg("(import ./deployment.nix).config.nodes.web.configuration.system.build.toplevel")
        .output()
        .unwrap();
    assert!(built.status.success(), "{}", stderr(&built));
    let toplevel = PathBuf::from(String::from_utf8(built.stdout).unwrap().trim());
    let read = |name: &str| fs::read_to_string(toplevel.join(name)).unwrap();
    assert!(toplevel.join("bin/switch-to-configuration").exists());
    assert!(toplevel.join("sw/bin/htop").exists());
    assert_eq!(read("etc/motd"), "hello");
    assert_eq!(read("etc/lab-text"), "two");
    assert_eq!(read("specialisation/quiet/etc/lab-text"), "quiet");
    assert_eq!(read("lab/start").trim(), "web.service");
    assert!(read("etc/systemd/system/web.service").contains("ExecStart=/nix/store/"));
    assert!(read("etc/systemd/system/later.service").contains("ExecStart=/bin/true"));
    assert_eq!(read("lab/faults/killSsh"), "1");
    assert_eq!(read("lab/faults/slow"), "3");
    assert!(!toplevel.join("lab/faults/hang").exists());
}
