# A Colmena hive as it is written: a file, or a flake's output `colmena`. Evaluated here, for Colmena is not installed, as
# Colmena does it: each node with its nixpkgs, the defaults, and the options of `foreign/colmena-options.nix`.
let
  defaults = import ./defaults.nix;
  options = import ./foreign/colmena-options.nix;
  located = import ./foreign/located.nix;
  packages = import ./foreign/packages.nix;

  # In a file that also NixOps or morph could mean, these in `network` are Colmena's alone.
  only = { nodeNixpkgs = 1; nodeSpecialArgs = 1; machinesFile = 1; allowApplyAll = 1; };
  names = value: if builtins.isAttrs value then value else { };

  openHive = rollout: hive:
    let
      metaName = if hive ? meta then "meta" else "network";
      given = hive.${metaName} or { };
      pkgs = if given.nixpkgs or null != null then packages given.nixpkgs else packages <nixpkgs>;
      meta = (pkgs.lib.evalModules {
        modules = [ options.meta ] ++ (if hive ? ${metaName} then [ (located hive metaName) ] else [ ]);
      }).config;

      nodeNames = builtins.attrNames (removeAttrs hive [ "defaults" "meta" "network" ]);
      evaluate = { check, more ? [ ] }: name:
        let
          nodePkgs = if meta.nodeNixpkgs ? ${name} then packages meta.nodeNixpkgs.${name} else pkgs;
          inherit (nodePkgs) lib;
          fromPackages = {
            _file = "driftless/nix/formats/colmena.nix";
            config = {
              nixpkgs.overlays = lib.mkBefore nodePkgs.overlays;
              # Before 22.11 definitions of this option were not merged.
              nixpkgs.config =
                if lib.versionAtLeast lib.trivial.release "22.11" then lib.mkBefore nodePkgs.config
                else lib.mkOptionDefault nodePkgs.config;
              _module.check = lib.mkIf (!check) false;
            };
          };
        in
        import (nodePkgs.path + "/nixos/lib/eval-config.nix") {
          inherit (nodePkgs.stdenv.hostPlatform) system;
          modules = [ fromPackages options.node ]
            ++ (if hive ? defaults then [ (located hive "defaults") ] else [ ])
            ++ [ (located hive name) ] ++ more;
          # The nodes that modules see are not checked for unknown options: that would need each of them whole.
          specialArgs = { inherit name; nodes = unchecked; } // meta.specialArgs // (meta.nodeSpecialArgs.${name} or { });
        };
      every = f: builtins.listToAttrs (map (name: { inherit name; value = f name; }) nodeNames);
      unchecked = every (evaluate { check = false; });
    in
    if hive ? meta && hive ? network
    then throw "the hive has both `meta` and `network`, which are two names for the same thing"
    else {
      format = "colmena";
      names = nodeNames;
      inherit rollout;
      unsupported = import ./foreign/colmena-meta.nix given;
      node = name: import ./foreign/colmena-node.nix {
        plain = evaluate { check = true; } name;
        extend = module: evaluate { check = true; more = [ module ]; } name;
        services = true;
      };
    };
in
{
  name = "colmena";
  description = "a Colmena hive (a file with `meta`, or a flake with `colmena`)";

  detect = { value, file, ... }:
    if file == null then value ? colmena
    else file == "hive.nix" || value ? meta || builtins.intersectAttrs only (names (value.network or { })) != { };
  fits = { value, file, ... }: file != null || value ? colmena;

  open = { value, file, ... }:
    if file != null then openHive defaults.rollout value
    # Some write there what `makeHive` made.
    else if value.colmena ? __schema
    then (import ./colmena-hive.nix).open { inherit file; value = value // { colmenaHive = value.colmena; }; }
    else openHive (defaults.rolloutWith (value.driftless.rollout or { })) value.colmena;
}
