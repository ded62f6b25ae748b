# A NixOS module: the options of `options.nix` as `driftless.*`, and `secrets.files`, for configurations that a flake
# evaluates itself. Sets nothing on the machine but what puts its secrets in place.
{ lib, options, config, ... }:
{
  imports = [ ./secrets.nix ../node.nix ];

  config.services.driftless-node.checks = config.driftless.healthChecks.commands;

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
