# A morph network: evaluated here, for morph is not installed, as morph does it.
let
  defaults = import ./defaults.nix;
  located = import ./foreign/located.nix;
  packages = import ./foreign/packages.nix;
  note = condition: setting: reason: if condition then [ { inherit setting reason; } ] else [ ];

  # Seconds that driftless gives to one try of a check.
  longest = 15;

  # In a file that NixOps could mean as well, these in `network` are morph's alone.
  only = { pkgs = 1; lib = 1; evalConfig = 1; specialArgs = 1; runCommand = 1; ordering = 1; nixConfig = 1; buildShell = 1; };
  names = value: if builtins.isAttrs value then value else { };

  specOf = folder: plain: extend:
    let
      inherit (plain) lib;
      inherit (plain.config) deployment;
      secret = name:
        let secret = deployment.secrets.${name}; in {
          inherit name;
          inherit (secret.owner) user group;
          path = secret.destination;
          mode = secret.permissions;
          file = if lib.hasPrefix "/" secret.source then secret.source else "${folder}/${secret.source}";
          command = null;
        };
      actions = builtins.filter (name: deployment.secrets.${name}.action != [ ]) (builtins.attrNames deployment.secrets);
      keys = import ./foreign/keys.nix { setting = "deployment.secrets"; }
        (map secret (builtins.attrNames deployment.secrets));
      inherit (if keys.isEmpty then plain else extend keys.module) config;
      address = deployment.targetHost;
      commands = import ./foreign/morph-checks.nix { inherit lib; host = address; } deployment.healthChecks;
      all = deployment.healthChecks.cmd ++ deployment.healthChecks.http;
      long = builtins.filter (check: check.timeout > longest || check.timeout <= 0) all;
      checksBefore = deployment.preDeployChecks.cmd ++ deployment.preDeployChecks.http;
    in
    import ./foreign/node.nix {
      inherit (config.system.build) toplevel;
      secrets = config.system.build.driftlessSecrets or { };
      host = if deployment.buildOnly then null else address;
      user = deployment.targetUser;
      port = deployment.targetPort;
      inherit (deployment) tags;
      settings = {
        hasFastConnection = !deployment.substituteOnDestination;
        healthChecks = { inherit commands; units = [ ]; };
      };
      unsupported =
        note (checksBefore != [ ]) "deployment.preDeployChecks"
          "they may run programs that only the deployment brings, and healthChecks.before is asked before anything is copied; declare there what must hold"
        ++ map
          (check: {
            setting = "deployment.healthChecks (${check.description}): timeout = ${toString check.timeout}";
            reason = "one try of a check may take ${toString longest} s; it is tried again until healthTimeout";
          })
          long
        ++ map
          (name: {
            setting = "deployment.secrets.${builtins.toJSON name}.action";
            reason = "driftless runs no command when a secret has changed";
          })
          actions
        ++ keys.unsupported;
    };

  openNetwork = folder: given:
    let
      network = given.network or { };
      base = if network ? pkgs then packages network.pkgs else null;
      path = if base == null then <nixpkgs> else base.path;
      evalConfig = network.evalConfig or (path + "/nixos/lib/eval-config.nix");
      nodeNames = import ./foreign/nodes.nix given;
      evaluate = { check, more ? [ ] }: name: (if builtins.isFunction evalConfig then evalConfig else import evalConfig) {
        system = null;
        specialArgs = network.specialArgs or { };
        modules = [
          (located given name)
          ({ lib, pkgs, config, ... }: {
            _file = "driftless/nix/formats/morph.nix";
            imports = [ ./foreign/morph-options.nix ];
            config = {
              networking.hostName = lib.mkDefault name;
              nixpkgs = lib.mkIf (base != null) { pkgs = lib.mkDefault base; };
              # What the checks run belongs to the system. The very file that morph makes: what morph deployed stays the same.
              system.extraDependencies = [
                (pkgs.writeText "healthcheck-commands.txt"
                  (builtins.concatStringsSep "\n" (builtins.concatMap (check: if check.cmd == null then [ ] else check.cmd)
                    (config.deployment.preDeployChecks.cmd ++ config.deployment.healthChecks.cmd))))
              ];
              _module.check = lib.mkIf (!check) false;
              _module.args = { inherit name; nodes = unchecked; };
            };
          })
        ] ++ (if given ? defaults then [ (located given "defaults") ] else [ ]) ++ more;
      };
      # The nodes that modules see are not checked for unknown options: that would need each of them whole.
      unchecked = builtins.listToAttrs (map (name: { inherit name; value = evaluate { check = false; } name; }) nodeNames);
    in
    {
      format = "morph";
      names = nodeNames;
      inherit (defaults) rollout;
      unsupported =
        note (network ? ordering) "network.ordering" "nodes are deployed in no order, at most `rollout.maxInFlight` at once"
        ++ note (network ? nixConfig) "network.nixConfig" "settings of Nix belong into `nix.options` of driftless.toml"
        ++ note (network ? buildShell) "network.buildShell" "driftless builds in the environment it was started in";
      node = name: specOf folder (evaluate { check = true; } name)
        (module: evaluate { check = true; more = [ module ]; } name);
    };
in
{
  name = "morph";
  description = "a morph network (a file with `network.pkgs` or another of morph's own settings)";

  detect = { value, file, ... }: file != null && builtins.intersectAttrs only (names (value.network or { })) != { };
  fits = { file, ... }: file != null;

  open = { value, folder, ... }: openNetwork folder value;
}
