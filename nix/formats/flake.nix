# A flake's `nixosConfigurations`, already evaluated by the flake with its own nixpkgs. Where a configuration imports
# our NixOS module, `driftless.*` says how to deploy it; without it the defaults hold and the host is the node's name.
let
  defaults = import ./defaults.nix;
in
{
  name = "flake";
  description = "a flake with `nixosConfigurations`";

  detect = { value, ... }: value ? nixosConfigurations;

  open = { value, ... }: {
    format = "flake";
    names = builtins.attrNames value.nixosConfigurations;
    # Fleet-wide options are no node's: a flake states them beside its configurations, as `driftless.rollout`.
    rollout = defaults.rolloutWith (value.driftless.rollout or { });
    node = name:
      let
        inherit (value.nixosConfigurations.${name}) config;
        declared = config.driftless or { };
        # The module cannot know the attribute's name, so "not said" is its default.
        host = if (declared.hostIsSet or false) then declared.host else name;
        # Those of our module; without it, there may be others by that name.
        secrets = config.system.build.driftlessSecrets or { };
        # The flake's module may be older than this file.
        reboot = defaults.node.reboot // (declared.reboot or { });
        node = defaults.node // declared // { inherit host secrets reboot; };
      in
      if node.enabled
      then
        import ../node-spec.nix
          (import ../hooks.nix { inherit name; inherit (value.nixosConfigurations.${name}) pkgs; } node)
          config.system.build.toplevel
      else null;
  };
}
