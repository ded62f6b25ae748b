# What a test system is told to do wrong; the names are those of `tests/nixpkgs/system.nix`.
{ lib, ... }:
{
  options.lab = lib.mkOption {
    type = lib.types.attrsOf lib.types.anything;
    default = { };
    description = "Faults and other orders for the built system.";
  };
}
