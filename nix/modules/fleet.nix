# The top of a deployment: `defaults`, `nodes` and what holds for the whole fleet.
{ nixpkgs, system, extendLib }:
{ lib, config, ... }:
let
  inherit (lib) mkOption types;
  node = import ./node.nix {
    inherit nixpkgs system extendLib;
    allNodes = config.nodes;
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
      type = types.attrsOf (types.submodule ([ node ] ++ config.defaults));
      default = { };
      description = "The nodes, by name.";
    };

    inherit (import ../options.nix { inherit lib; hostDefault = null; }) rollout;
  };
}
