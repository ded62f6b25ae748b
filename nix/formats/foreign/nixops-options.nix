# The options that a node of a NixOps network may set: `deployment.*`, and what NixOps knows of networks.
{ lib, config, ... }:
let
  inherit (lib) mkOption types;
  option = type: default: description: mkOption { inherit type default description; };
  # A key may be written as nothing but its text.
  key = types.coercedTo types.str (text: { inherit text; }) (types.submodule (import ./key-options.nix));
  # What plugins make machines with; read by us only to say that nobody makes them here.
  backends = [
    "autoLuks" "autoRaid0" "azure" "container" "datadog" "digitalOcean" "ec2" "gce" "hetzner" "libvirtd" "none" "packet"
    "route53" "virtualbox" "vultr"
  ];
in
{
  _file = "driftless/nix/formats/foreign/nixops-options.nix";
  options.deployment = {
    targetEnv = option types.str "none" "What makes the machine.";
    targetHost = option types.str "" "The host of the node.";
    targetPort = option types.int (builtins.head config.services.openssh.ports) "The port of its SSH server.";
    targetUser = option types.str "root" "Who logs in.";
    sshOptions = option (types.listOf types.str) [ ] "Arguments for ssh.";
    privilegeEscalationCommand = option (types.listOf types.str) [ "sudo" "-H" "--" ] "What makes another user root.";
    hasFastConnection = option types.bool false "Whether everything is copied.";
    keys = option (types.attrsOf key) { } "Files that are not in the store.";
    provisionSSHKey = option types.bool true "Whether NixOps makes a key for its logins.";
    alwaysActivate = option types.bool true "Whether an unchanged system is activated again.";
    owners = option (types.listOf types.str) [ ] "Whom NixOps sends mail to.";
    # Ours survive a reboot in any case.
    storeKeysOnMachine = option types.bool false "Whether keys survive a reboot.";
    autoStart = option types.bool true "Whether the machine is started.";
    encryptedLinksTo = option (types.listOf types.str) [ ] "Nodes that it has encrypted links to.";
    name = option types.str "driftless" "What the deployment is called.";
    uuid = mkOption { type = types.str; description = "NixOps's number for the deployment."; };
    arguments = option types.unspecified { } "The arguments of the network.";
  } // lib.genAttrs backends (backend: option types.unspecified { } "What ${backend} is told.");

  options.networking = {
    privateIPv4 = mkOption { type = types.str; description = "Its address inside of the network."; };
    publicIPv4 = option (types.nullOr types.str) null "Its address outside of the network.";
    vpnPublicKey = option (types.nullOr types.str) null "The key of its VPN.";
  };
}
