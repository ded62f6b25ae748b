# The options `deployment.*` that a node of a morph network may set.
{ lib, name, ... }:
let
  inherit (lib) mkOption types;
  option = type: default: description: mkOption { inherit type default description; };
  set = options: types.submodule { inherit options; };
  needed = type: description: mkOption { inherit type description; };

  each = {
    description = needed types.str "What is checked.";
    period = option types.int 2 "Seconds between two tries.";
    timeout = option types.int 5 "Seconds that one try may take.";
  };
  checks = set {
    cmd = option
      (types.listOf (set (each // {
        cmd = option (types.nullOr (types.listOf types.str)) null "The words of a command.";
      }))) [ ] "Commands that must succeed on the node.";
    http = option
      (types.listOf (set (each // {
        scheme = option types.str "http" "http or https.";
        host = option (types.nullOr types.str) null "The host that is asked; null: the node.";
        port = needed types.int "Its port.";
        path = option types.str "/" "The path.";
        headers = option (types.attrsOf types.str) { } "Further headers.";
        insecureSSL = option types.bool false "Whether any certificate is good.";
      }))) [ ] "Pages that must answer.";
  };
  secret = set {
    source = needed types.str "The file it is copied from.";
    destination = needed types.str "The file on the node.";
    owner = option
      (set {
        user = option types.str "root" "Its owner.";
        group = option types.str "root" "Its group.";
      }) { } "Who owns it.";
    permissions = option types.str "0400" "Its mode.";
    action = option (types.listOf types.str) [ ] "What is run afterwards.";
    mkDirs = option types.bool true "Whether its folder is made.";
    uploadAt = option (types.enum [ "pre-activation" "post-activation" ]) "pre-activation" "When it is sent.";
  };
in
{
  _file = "driftless/nix/formats/foreign/morph-options.nix";
  options.deployment = {
    targetHost = option types.str name "The host of the node.";
    targetPort = option (types.nullOr types.int) null "The port of its SSH server.";
    targetUser = option types.str "" "Who logs in; empty: whom the SSH configuration says.";
    buildOnly = option types.bool false "Whether it is only built.";
    substituteOnDestination = option types.bool false "Whether the node fetches from its own substituters.";
    tags = option (types.listOf types.str) [ ] "Groups.";
    secrets = option (types.attrsOf secret) { } "Files that are not in the store.";
    healthChecks = option checks { } "What must hold after a deployment.";
    preDeployChecks = option checks { } "What must hold before one.";
  };
}
