# The top of a deployment: `defaults`, `nodes` and what holds for the whole fleet.
{ nixpkgs, system, extendLib }:
{ lib, config, ... }:
let
  inherit (lib) mkOption types;
  node = import ./node.nix {
    inherit nixpkgs system extendLib;
    fleetChecks = config.rollout.healthChecks;
    allNodes = config.nodes;
  };

  # A node whose definitions are all behind a false `mkIf`. It keeps its name, because finding out would evaluate the node.
  absent = {
    enabled = false;
    configuration = throw "this node is left out by `mkIf`; a node that others may look at says `enabled = false` instead";
  };
in
{
  options = {
    defaults = mkOption {
      type = import ./module-list.nix { inherit lib; };
      default = { };
      example = lib.literalExpression "{ name, ... }: { configuration.networking.hostName = name; }";
      description = "A module that every node has.";
    };

    nodes = mkOption {
      # Lazy: a node that does not even evaluate to a set must not keep the others from being listed.
      # `getSubModules`: a type that offers them is made anew by the module system, without our empty value.
      type = types.lazyAttrsOf
        (types.submodule ([ node ] ++ config.defaults) // { emptyValue.value = absent; getSubModules = null; });
      default = { };
      description = "The nodes, by name.";
    };

    inherit (import ../options.nix { inherit lib; hostDefault = null; }) rollout;
  };
}
