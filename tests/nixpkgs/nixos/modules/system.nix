# The system itself: what it is called, what is in it, and the toplevel.
{ lib, config, pkgs, ... }:
let
  inherit (lib) mkOption types;
  failed = map (a: a.message) (builtins.filter (a: !a.assertion) config.assertions);
in
{
  options = {
    assertions = mkOption { type = types.listOf types.attrs; default = [ ]; };
    warnings = mkOption { type = types.listOf types.str; default = [ ]; };
    networking.hostName = mkOption { type = types.strMatching "[A-Za-z0-9]([A-Za-z0-9_-]*[A-Za-z0-9])?"; default = "nixos"; };
    environment.systemPackages = mkOption { type = types.listOf types.package; default = [ ]; };
    environment.etc = mkOption {
      type = types.attrsOf (types.submodule ({ name, ... }: {
        options.text = mkOption { type = types.nullOr types.lines; default = null; };
        options.source = mkOption { type = types.nullOr types.path; default = null; };
        options.mode = mkOption { type = types.str; default = "symlink"; };
      }));
      default = { };
    };
    boot.kernelPackage = mkOption { type = types.package; default = pkgs.linux; };
    system.stateVersion = mkOption { type = types.str; default = "26.11"; };
    system.build.toplevel = mkOption { type = types.package; };
  };

  config = {
    environment.etc.hostname.text = config.networking.hostName + "\n";
    system.build.toplevel =
      if failed != [ ]
      then throw "Failed assertions:\n${lib.concatMapStrings (m: "- ${m}\n") failed}"
      else
        pkgs.runCommand "nixos-system-${config.networking.hostName}-26.11"
          {
            hostName = config.networking.hostName;
            packages = config.environment.systemPackages;
            etc = builtins.toJSON config.environment.etc;
            services = builtins.toJSON config.systemd.services;
          } ''
          mkdir $out
          printf %s 26.11 > $out/nixos-version
          printf %s "$packages" > $out/packages
          printf %s "$etc" > $out/etc.json
          printf %s "$services" > $out/services.json
        '';
  };
}
