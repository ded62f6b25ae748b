# A node that was evaluated with Colmena's options → its entry in the manifest. `extend` evaluates it once more with a further
# module, for which there is no need where it has no keys: then its system stays the very one that Colmena makes.
{ plain, extend, services }:
let
  inherit (plain.config) deployment;
  keys = import ./keys.nix { setting = "deployment.keys"; inherit services; }
    (import ./colmena-keys.nix (deployment.keys or { }));
  inherit (if keys.isEmpty then plain else extend keys.module) config;
  note = condition: setting: reason: if condition then [ { inherit setting reason; } ] else [ ];
  replaces = deployment.replaceUnknownProfiles or true;
in
import ./node.nix {
  inherit (config.system.build) toplevel;
  secrets = config.system.build.driftlessSecrets or { };
  host = deployment.targetHost;
  user = deployment.targetUser;
  port = deployment.targetPort;
  sshArguments = deployment.sshOptions or [ ];
  tags = deployment.tags or [ ];
  settings = {
    buildOnTarget = deployment.buildOnTarget or false;
    privilegeEscalationCommand = deployment.privilegeEscalationCommand or [ "sudo" "-H" "--" ];
    onDrift = if replaces then "heal" else "report";
  };
  unsupported =
    note (deployment.targetHost == null) "deployment.targetHost = null"
      "only the node could deploy itself; driftless builds it and deploys it nowhere"
    ++ note (!replaces) "deployment.replaceUnknownProfiles = false"
      "a system that driftless did not install is reported and not healed, but a new commit replaces it"
    ++ keys.unsupported;
}
