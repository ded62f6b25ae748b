# A NixOS module: the options of `options.nix` as `driftless.*`, and `secrets.files`, for configurations that a flake
# evaluates itself. Sets nothing on the machine but what puts its secrets in place.
{ lib, options, config, ... }:
{
  imports = [ ./secrets.nix ../node.nix ];

  # The fleet's are not known here: a flake says them beside its configurations.
  config.services.driftless-node =
    let
      checks = (import ../health-checks.nix).ofNode {
        node = config.networking.hostName or "";
        host = import ../host-of.nix { inherit (config.driftless) host sshOptions; };
        own = config.driftless.healthChecks;
      };
    in
    { checks = checks.commands; httpChecks = checks.http; tcpChecks = checks.tcp; };

  options.driftless = (import ../options.nix { inherit lib; hostDefault = null; }).node // {
    hostIsSet = lib.mkOption {
      type = lib.types.bool;
      readOnly = true;
      internal = true;
      # An explicit null means "never deploy", an absent host means "the name of the configuration".
      default = options.driftless.host.highestPrio < (lib.mkOptionDefault null).priority;
      description = "Whether the configuration says how to reach the machine.";
    };
  };
}
