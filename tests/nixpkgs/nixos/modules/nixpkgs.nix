# Which packages a configuration uses.
{ lib, config, ... }:
let
  inherit (lib) mkOption types;
in
{
  options.nixpkgs = {
    system = mkOption { type = types.str; default = "x86_64-linux"; };
    hostPlatform = mkOption { type = types.either types.str types.attrs; default = config.nixpkgs.system; };
    config = mkOption { type = types.attrs; default = { }; };
    overlays = mkOption { type = types.listOf types.raw; default = [ ]; };
    pkgs = mkOption {
      type = types.raw;
      default = import ../.. {
        inherit (config.nixpkgs) config overlays;
        localSystem = config.nixpkgs.hostPlatform;
      };
    };
  };
  config._module.args.pkgs = lib.mkDefault config.nixpkgs.pkgs;
}
