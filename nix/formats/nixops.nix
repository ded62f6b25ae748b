# A NixOps network, with those that it requires: evaluated here, for NixOps is not installed, as NixOps does it. Machines are
# reached where they are; none is made.
let
  defaults = import ./defaults.nix;
  located = import ./foreign/located.nix;
  packages = import ./foreign/packages.nix;
  note = condition: setting: reason: if condition then [ { inherit setting reason; } ] else [ ];
  # For options that have a weaker default and are weaker than what anybody writes.
  byNixOps = 900;

  specOf = plain: extend:
    let
      inherit (plain) options;
      inherit (plain.config) deployment;
      keys = import ./foreign/keys.nix { setting = "deployment.keys"; services = true; }
        (import ./foreign/colmena-keys.nix deployment.keys);
      inherit (if keys.isEmpty then plain else extend keys.module) config;
      isMade = deployment.targetEnv != "none";
      # Only NixOps knows where a machine is that it has made.
      isKnown = !isMade || options.deployment.targetHost.highestPrio < byNixOps;
    in
    import ./foreign/node.nix {
      inherit (config.system.build) toplevel;
      secrets = config.system.build.driftlessSecrets or { };
      host = if isKnown then deployment.targetHost else null;
      user = deployment.targetUser;
      port = deployment.targetPort;
      sshArguments = deployment.sshOptions;
      settings = { inherit (deployment) hasFastConnection privilegeEscalationCommand; };
      unsupported =
        note isMade "deployment.targetEnv = ${builtins.toJSON deployment.targetEnv}" (
          if isKnown then "driftless makes no machines; this one is reached at deployment.targetHost"
          else "driftless makes no machines, and only NixOps knows where this one is: say it with deployment.targetHost"
        )
        ++ note (deployment.encryptedLinksTo != [ ]) "deployment.encryptedLinksTo" "driftless makes no links between nodes"
        ++ keys.unsupported;
    };

  # A network and all that it requires, the first one first; each file once.
  closure = given:
    let
      load = path: let network = import path; in if builtins.isFunction network then network { } else network;
      requiredBy = network: map (path: { key = toString path; inherit path; }) (network.require or [ ]);
    in
    [ given ] ++ map ({ path, ... }: load path) (builtins.genericClosure {
      startSet = requiredBy given;
      operator = { path, ... }: requiredBy (load path);
    });

  openNetwork = given:
    let
      networks = closure given;
      said = builtins.foldl' (all: network: network.network or { } // all) { } networks;
      pkgs = packages (said.nixpkgs or given.nixpkgs or <nixpkgs>);
      everywhere = name: map (network: located network name) (builtins.filter (network: network ? ${name}) networks);
      nodeNames = builtins.attrNames (builtins.listToAttrs
        (map (name: { inherit name; value = null; }) (builtins.concatMap (import ./foreign/nodes.nix) networks)));

      evaluate = more: name: import (pkgs.path + "/nixos/lib/eval-config.nix") {
        modules = everywhere name ++ everywhere "defaults" ++ more ++ [
          ({ lib, ... }: {
            _file = "driftless/nix/formats/nixops.nix";
            imports = [ ./foreign/nixops-options.nix ];
            config = {
              networking.hostName = lib.mkOverride byNixOps name;
              deployment.targetHost = lib.mkOverride byNixOps name;
              _module.args = {
                inherit name nodes;
                resources.machines = builtins.mapAttrs (_: node: node.config) nodes;
                deploymentName = "driftless";
                uuid = throw "the module argument `uuid` is NixOps's own; driftless has none";
              };
            };
          })
        ];
      };
      nodes = builtins.listToAttrs (map (name: { inherit name; value = evaluate [ ] name; }) nodeNames);
    in
    {
      format = "nixops";
      names = nodeNames;
      inherit (defaults) rollout;
      unsupported = note (builtins.any (network: network ? resources) networks) "resources"
        "driftless makes none; a node that reads one does not evaluate";
      node = name: specOf nodes.${name} (module: evaluate [ module ] name);
    };
in
{
  name = "nixops";
  description = "a NixOps network (a file with `network`, or a flake with `nixopsConfigurations.default`)";

  detect = { value, file, ... }: if file == null then value ? nixopsConfigurations else value ? network;
  fits = { value, file, ... }: file != null || value ? nixopsConfigurations;

  open = { value, file, ... }:
    let network = if file != null then value else value.nixopsConfigurations.default; in
    openNetwork (if builtins.isFunction network then network { } else network);
}
