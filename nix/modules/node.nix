# One node of a deployment, as a submodule. Evaluates the node's NixOS configuration with the node's own nixpkgs; never
# decides what becomes of the result.
{ nixpkgs, system, extendLib, fleetChecks, allNodes }:
{ lib, name, config, ... }:
let
  inherit (lib) mkOption types;

  # The node runs what its own system says a check is, not what comes over the network.
  checks = (import ../health-checks.nix).ofNode {
    node = name;
    host = import ../host-of.nix { inherit (config) host sshOptions; };
    own = config.healthChecks;
    fleet = fleetChecks;
  };

  evaluate = modules:
    let
      evalConfig = import (config.nixpkgs + "/nixos/lib/eval-config.nix");
      evaluated = evalConfig {
        inherit system;
        modules = modules ++ [ ./secrets.nix ../node.nix { services.driftless-node = { checks = checks.commands; httpChecks = checks.http; tcpChecks = checks.tcp; }; } ];
        lib = extendLib (import (config.nixpkgs + "/lib"));
        specialArgs = {
          inherit name;
          nodes = builtins.mapAttrs (_: node: node.configuration) allNodes;
        };
      };
    in
    # `_pkgs`: under this name nixus offers the packages of a node to the code around it.
    evaluated.config // { _pkgs = evaluated.pkgs; };
in
{
  options = (import ../options.nix { inherit lib; hostDefault = name; }).node // {
    nixpkgs = mkOption {
      type = types.path;
      default = nixpkgs;
      defaultText = "the nixpkgs of the deployment";
      description = "The nixpkgs that this node is built from.";
    };

    configuration = mkOption {
      type = import ./module-list.nix { inherit lib; };
      default = { };
      apply = evaluate;
      example = lib.literalExpression "{ imports = [ ./hardware-configuration.nix ]; networking.hostName = \"web\"; }";
      description = "The NixOS configuration of this node. Read back, it is the evaluated one.";
    };
  };

  # Unlike nixus, nothing here forces `systemd.services.sshd.stopIfChanged`. nixus wants an sshd that a new system broke to be
  # noticed. It is noticed without: NixOS restarts a changed sshd at the end of the activation, a socket starts the new one
  # for each login, and contact is a login that began after that. Stopping it first would leave the node without any sshd
  # while it activates, for as long as a hanging activation takes, and newer NixOS has a unit that does not stand it.
  config._module.args.pkgs = config.configuration._pkgs;
}
