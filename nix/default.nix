# The entry of a deployment file, with nixus's arguments and shape:
#
#   import ./nix { } ({ config, ... }: { defaults = { ... }; nodes.web = { ... }; })
#
# The value is the derivation of a script that deploys every enabled node; each node's own script is an attribute beside
# it. Evaluating it to its attribute names evaluates no node, so that one broken node cannot hide the others.
{ nixpkgs ? <nixpkgs>
, package ? null
, libOverlay ? null
, deploySystem ? builtins.currentSystem or null
}:
conf:
let
  extendLib = lib:
    let ours = lib.extend (import ./dag.nix); in
    if libOverlay == null then ours else ours.extend libOverlay;
  lib = extendLib (import (nixpkgs + "/lib"));
  pkgs = import nixpkgs ({ config = { }; overlays = [ ]; } // lib.optionalAttrs (deploySystem != null) { system = deploySystem; });

  # Where a deployment is written, for error messages: it arrives as a value, which knows at most where its names stand.
  # Those of its arguments; of one that names none (`{ ... }:`), what it declares.
  fileOf = conf:
    let
      nobody = throw "asked only for the names that a deployment declares";
      declared = builtins.tryEval (conf { inherit lib; config = nobody; options = nobody; nixus = nobody; pkgs = nobody; });
      positionIn = names:
        if !builtins.isAttrs names || names == { } || names ? _type then null
        else builtins.unsafeGetAttrPos (builtins.head (builtins.attrNames names)) names;
      arguments = builtins.functionArgs conf;
      position =
        if !builtins.isFunction conf then positionIn conf
        else if arguments != { } then positionIn arguments
        else if declared.success then positionIn declared.value
        else null;
    in
    if position == null then "the deployment" else position.file;

  evaluated = lib.evalModules {
    modules = [
      (import ./modules/fleet.nix { inherit nixpkgs extendLib; system = deploySystem; })
      ./modules/public-address.nix
      ./modules/ssh-access.nix
      ./modules/vpn.nix
      ./modules/dns.nix
      {
        _file = "driftless";
        # A name of its own: `pkgs` here would be taken for the packages of a node.
        config._module.args.nixus = { inherit pkgs extendLib; };
        options.deployScript = lib.mkOption {
          type = lib.types.package;
          readOnly = true;
          default = scriptFor manifest.names;
          description = "The script that deploys every enabled node.";
        };
        config.defaults = { name, ... }: {
          options.deployScript = lib.mkOption {
            type = lib.types.package;
            readOnly = true;
            default = scriptFor [ name ];
            description = "The script that deploys this node alone.";
          };
        };
        config._module.args.pkgs = throw "A deployment has no `pkgs` of its own: inside a node it is the node's packages, outside use `nixus.pkgs` from the module argument `nixus`.";
      }
      { _file = fileOf conf; imports = [ conf ]; }
    ];
  };
  inherit (evaluated) config options;

  manifest = {
    format = "driftless";
    names = builtins.attrNames config.nodes;
    inherit (config) rollout;
    node = name:
      let node = config.nodes.${name}; in
      if node.enabled
      then
        import ./node-spec.nix
          (import ./hooks.nix { inherit pkgs name; }
            (node // { secrets = node.configuration.system.build.driftlessSecrets or { }; }))
          node.configuration.system.build.toplevel
      else null;
  };

  scriptFor = names: import ./script.nix { inherit lib pkgs package manifest names; };
in
# The reserved names come last: a node that is called "name" or "config" must not break the others.
builtins.mapAttrs (name: _: scriptFor [ name ]) config.nodes
// scriptFor manifest.names
// {
  inherit config options;
  driftless = {
    inherit manifest;
    scripts = builtins.mapAttrs (name: _: scriptFor [ name ]) config.nodes;
  };
}
