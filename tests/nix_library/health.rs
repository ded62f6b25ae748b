//! Health checks as a deployment and a flake declare them: what the manifest says, what a managed node gets, what is refused.

use driftless::model::health::{Check, HealthChecks};
use driftless::model::node::NodeSpec;
use driftless::model::rollout::RolloutSpec;

use super::*;

/// A deployment with one node that has these checks.
fn checked(nixpkgs: &Path, checks: &str) -> Deployment {
    let body = format!("nodes.web = {{ configuration = {{ {BASE} }}; healthChecks = {{ {checks} }}; }};");
    Deployment::ours(nixpkgs, &body)
}

fn names(checks: &HealthChecks) -> Vec<String> {
    checks.after.list().iter().map(Check::to_string).collect()
}

#[test]
fn the_example_of_the_page_is_a_deployment_that_driftless_understands() {
    let page = fs::read_to_string(project().join("docs/health.md")).unwrap();
    let example = page.split("```nix\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let example = example.replace("<driftless>", &project().display().to_string());
    for nixpkgs in every_nixpkgs() {
        let example = example.replace("configuration = { }", &format!("configuration = {{ {BASE} }}"));
        let deployment = Deployment::file(&nixpkgs, &example);
        let rollout: RolloutSpec =
            serde_json::from_value(json!({ "healthChecks": deployment.names()["rollout"]["healthChecks"] }))
                .unwrap();
        let spec: NodeSpec = serde_json::from_value(deployment.nodes()["web1"].take()).unwrap();
        let checks = spec.in_fleet(&rollout).health_checks;
        let all = ["unit nginx.service", "command queue", "http shop", "tcp smtp", "prometheus alerts"];
        assert_eq!(names(&checks), all);
        assert_eq!(checks.interval(), Duration::from_secs(120));
        assert_eq!(checks.after.http["shop"].pace.successes.get(), 3);
        assert_eq!(
            checks.before.http["balancer"].url.filled("web1", "x"),
            "http://lb.example.org/drained/web1"
        );
    }
}

#[test]
fn every_option_of_a_check_reaches_the_manifest_and_what_is_as_ever_does_not() {
    for nixpkgs in every_nixpkgs() {
        let deployment = checked(
            &nixpkgs,
            r#"units = [ "a.service" ]; commands.plain = "true"; interval = "5m";
               commands.slow = { command = "sleep 20"; timeout = "1m"; };
               http.web = { url = "https://{host}/"; from = "node"; method = "POST"; headers.A = "b"; status = [ 200 204 ];
                            body = "^ok"; tls = { verify = false; caFile = "/ca.pem"; serverName = "web"; };
                            period = 2; timeout = 3; successes = 4; };
               tcp.db = { host = "db"; port = 5432; };
               prometheus.up = { url = "http://p:9090"; query = "up"; expect = "non-empty"; };
               before.tcp.lb.port = 80;"#,
        );
        let checks = deployment.nodes()["web"]["healthChecks"].take();
        assert_eq!(
            checks,
            json!({
                "units": ["a.service"], "interval": 300,
                "commands": { "plain": "true", "slow": { "command": "sleep 20", "timeout": 60 } },
                "http": { "web": {
                    "url": "https://{host}/", "from": "node", "method": "POST", "headers": { "A": "b" }, "status": [200, 204],
                    "body": "^ok", "tls": { "verify": false, "caFile": "/ca.pem", "serverName": "web" },
                    "period": 2, "timeout": 3, "successes": 4,
                } },
                "tcp": { "db": { "host": "db", "port": 5432 } },
                "prometheus": { "up": { "url": "http://p:9090", "query": "up", "expect": "non-empty" } },
                "before": { "units": [], "commands": {}, "tcp": { "lb": { "port": 80 } } },
            })
        );
        let read: HealthChecks = serde_json::from_value(checks).unwrap();
        assert_eq!(read.after.list().len(), 6);
    }
}

#[test]
fn a_mistake_in_a_check_is_refused_with_its_place() {
    let cases = [
        ("http.web = { url = \"http://x/\"; from = \"moon\"; };", "healthChecks.http.web.from"),
        ("http.web.url = \"\";", "healthChecks.http.web.url"),
        ("http.web = { url = \"http://x/\"; status = 9; };", "healthChecks.http.web.status"),
        ("http.web = { url = \"http://x/\"; colour = 1; };", "healthChecks.http.web.colour"),
        ("http.web = { };", "healthChecks.http.web.url"),
        ("tcp.db.port = 0;", "healthChecks.tcp.db.port"),
        ("tcp.db = { port = 1; successes = 0; };", "healthChecks.tcp.db.successes"),
        (
            "prometheus.up = { url = \"http://p\"; query = \"up\"; expect = \"some\"; };",
            "healthChecks.prometheus.up.expect",
        ),
        (
            "prometheus.up = { url = \"http://p\"; query = \"\"; expect = \"empty\"; };",
            "healthChecks.prometheus.up.query",
        ),
        ("before.tcp.db.port = 0;", "healthChecks.before.tcp.db.port"),
        ("smtp.x = { };", "healthChecks.smtp"),
    ];
    for (checks, place) in cases {
        refused(&checked(&our_nixpkgs(), checks).manifest(&["nodes"]), &[place]);
    }
    let wide = Deployment::ours(&our_nixpkgs(), "rollout.healthChecks.tcp.db.port = 0; nodes.web = { };");
    refused(&wide.manifest(&["names"]), &["rollout.healthChecks.tcp.db.port"]);
}

#[test]
fn a_managed_node_has_the_checks_that_it_is_asked_by_name() {
    for nixpkgs in every_nixpkgs() {
        let body = format!(
            r#"rollout.healthChecks = {{ tcp.fleet = {{ port = 9100; from = "node"; }}; http.web.url = "http://other/"; }};
               nodes.web = {{
                 host = "root@fd00::7"; configuration = {{ {BASE} services.driftless-node = {{ enable = true; copies = "trusted"; }}; }};
                 healthChecks = {{
                   commands.up = {{ command = "true"; successes = 2; }};
                   http.web = {{ url = "https://{{host}}/{{node}}?q=%20"; from = "node"; timeout = 5;
                     headers = {{ X = "a \"b\" \\c"; Y = ""; }}; tls = {{ caFile = "/etc/ca.pem"; serverName = "shop.example.org"; }}; }};
                   http.outside.url = "http://{{host}}/";
                   before.tcp.db = {{ host = "{{node}}.db"; port = 5432; from = "node"; timeout = 3; }};
                 }};
               }};"#
        );
        let deployment = Deployment::ours(&nixpkgs, &body);
        let expression = "builtins.mapAttrs (_: file: file.text) (import ./deployment.nix).config.nodes.web.configuration.environment.etc";
        let said = deployment
            .command("nix-instantiate")
            .args(["--eval", "--json", "--strict", "-E", &format!("let all = {expression}; in builtins.listToAttrs (map (name: {{ inherit name; value = all.${{name}}; }}) (builtins.filter (name: builtins.match \"driftless-node/.*\" name != null) (builtins.attrNames all)))")])
            .output()
            .unwrap();
        // The request is what `src/node/health/on_node.rs` tells curl where there is a shell.
        let request = r#"silent
show-error
globoff
noproxy = "*"
proto = "=http,https"
max-time = "5"
write-out = "%{stderr}driftless-status %{http_code}\n"
header = "X: a \"b\" \\c"
header = "Y;"
cacert = "/etc/ca.pem"
connect-to = "::[fd00::7]:443"
url = "https://shop.example.org:443/web?q=%20"
request = "GET"
"#;
        assert_eq!(
            parsed(&said),
            json!({
                "driftless-node/protocol": "1\n", "driftless-node/checks/up": "true",
                "driftless-node/http/web": request,
                "driftless-node/tcp/fleet": "localhost 9100 15\n",
                "driftless-node/tcp/before.db": "web.db 5432 3\n",
            })
        );
    }
}

#[test]
fn a_flake_may_say_what_holds_for_its_fleet_in_plain_values() {
    for nixpkgs in every_nixpkgs() {
        let deployment = Deployment::file(&nixpkgs, "");
        let flake = format!(
            r#"{{ outputs = _: {{
              driftless.rollout.healthChecks = {{ interval = "1m30s"; tcp.ssh = {{ port = 22; timeout = "4s"; }}; }};
              nixosConfigurations.web = import (/. + "{nixpkgs}/nixos/lib/eval-config.nix") {{
                system = "x86_64-linux"; modules = [ (/. + "{entry}/nix/modules/nixos.nix") {{
                  {BASE} driftless.healthChecks.http.a = {{ url = "http://x/"; from = "node"; }};
                }} ];
              }};
            }}; }}"#,
            nixpkgs = nixpkgs.display(),
            entry = project().display()
        );
        deployment.write("flake.nix", &flake);
        let wide = deployment.flake("names")["rollout"]["healthChecks"].take();
        let expected = json!({ "units": [], "commands": {}, "interval": 90, "tcp": { "ssh": { "port": 22, "timeout": 4 } } });
        assert_eq!(wide, expected);
        let own = deployment.flake("nodes")["nodes"]["web"]["healthChecks"].take();
        assert_eq!(own["http"], json!({ "a": { "url": "http://x/", "from": "node" } }));
        deployment.write("flake.nix", &flake.replace("tcp.ssh", "smtp.x"));
        let url = format!("path:{}", deployment.path().display());
        refused(
            &deployment.manifest_of(&["--argstr", "flake", &url], &["names"]),
            &["no health checks of kind 'smtp'"],
        );
    }
}
