# The options of health checks: of a node as `healthChecks`, of a fleet as `rollout.healthChecks`. What becomes of them is in
# `health-checks.nix`; what they mean, in docs/health.md.
{ lib, duration, inSeconds }:
let
  inherit (lib) mkOption types;
  option = type: default: description: mkOption { inherit type default description; };

  pace = {
    period = duration 1 "Time between two tries.";
    timeout = duration 15 "How long one try may take.";
    successes = option types.ints.positive 1 "How often it has to pass in a row; a failure begins the count anew.";
  };
  from = option (types.enum [ "controller" "node" ]) "controller"
    "Where it is asked from: where driftless runs, or the node itself.";
  headers = option (types.attrsOf types.str) { } "Headers of the request.";
  tls = {
    verify = option types.bool true "Whether the server of an https:// URL has to prove who it is.";
    caFile = option (types.nullOr (types.strMatching "/.+")) null
      "PEM file of the authorities that may vouch for it, where the check is asked from; `null`: those of the system.";
    serverName = option (types.nullOr (types.strMatching "[^/:@ ]+")) null
      "The name that its certificate must have and that it is asked by; `null`: that of the URL.";
  };
  url = mkOption {
    type = types.strMatching "https?://[^/@]+(/.*)?";
    example = "https://{host}/healthz";
    description = "What is asked for. `{node}` is the node's name, `{host}` what it is reached by.";
  };
  # The few that have no default are asked for by name.
  kind = options: types.submodule { inherit options; };

  command = kind ({
    command = mkOption { type = types.lines; description = "The shell command."; };
  } // pace);
  http = kind ({
    inherit url from headers tls;
    method = option (types.strMatching "[A-Z]+") "GET" "Method of the request.";
    status = option (types.nullOr (types.either (types.ints.between 100 599) (types.listOf (types.ints.between 100 599)))) null
      "Which status, or which of a list, counts as an answer; `null`: 200 to 399. Redirects are not followed.";
    body = option (types.nullOr types.str) null
      "A regular expression (of Rust) that the first 64 KiB of the body must match somewhere.";
  } // pace);
  tcp = kind ({
    inherit from;
    host = option (types.nullOr types.nonEmptyStr) null
      "Whose port; `null`: the node's, by its `host` from the controller, and `localhost` from the node.";
    port = mkOption { type = types.ints.between 1 65535; description = "Which port has to take a connection."; };
  } // pace);
  prometheus = kind ({
    inherit url headers tls;
    query = mkOption {
      type = types.nonEmptyStr;
      example = "rate(http_errors_total{instance=~\"{node}:.*\"}[5m]) > 1";
      description = "What is asked. `{node}` is the node's name, `{host}` what it is reached by.";
    };
    expect = mkOption {
      type = types.enum [ "empty" "non-empty" ];
      description = "Whether nothing may be found, or something must be; alerts of driftless itself are not counted.";
    };
  } // pace);

  checks = {
    units = mkOption {
      type = types.listOf types.str;
      default = [ ];
      example = [ "nginx.service" ];
      description = "systemd units that must be active.";
    };
    commands = mkOption {
      type = types.attrsOf (types.either types.str command);
      default = { };
      example = { queue = "test $(queue-length) -lt 100"; };
      description = "Shell commands that must succeed on the node, run as root.";
    };
    http = mkOption {
      type = types.attrsOf http;
      default = { };
      example = { web = { url = "https://{host}/healthz"; status = 200; }; };
      description = "Servers that must answer a request.";
    };
    tcp = mkOption {
      type = types.attrsOf tcp;
      default = { };
      example = { smtp = { port = 25; }; };
      description = "Ports that must take a connection.";
    };
    prometheus = mkOption {
      type = types.attrsOf prometheus;
      default = { };
      example = { errors = { url = "http://prometheus:9090"; query = "errors{node=\"{node}\"} > 0"; expect = "empty"; }; };
      description = "Questions to a Prometheus, asked from the controller. No answer is a failure.";
    };
  };
in
description: mkOption {
  type = types.submodule {
    options = checks // {
      before = checks;
      interval = mkOption {
        type = types.nullOr (duration 60 "").type;
        default = null;
        description = "How often the checks are asked while nothing is being done to a node; 60 s where nobody says.";
      };
    };
  };
  default = { };
  apply = (import ./health-checks.nix).complete inSeconds;
  inherit description;
}
