# The parts of NixOS that deployments in tests set; what a service is made of is passed on unread.
{ lib, ... }:
let
  inherit (lib) mkOption mkEnableOption types;
in
{
  options = {
    systemd.services = mkOption {
      type = types.attrsOf (types.submodule ({ name, ... }: {
        options = {
          enable = mkOption { type = types.bool; default = true; };
          description = mkOption { type = types.str; default = ""; };
          script = mkOption { type = types.lines; default = ""; };
          path = mkOption { type = types.listOf types.package; default = [ ]; };
          environment = mkOption { type = types.attrsOf (types.nullOr (types.either types.str types.package)); default = { }; };
          serviceConfig = mkOption { type = types.attrsOf types.anything; default = { }; };
          unitConfig = mkOption { type = types.attrsOf types.anything; default = { }; };
          wantedBy = mkOption { type = types.listOf types.str; default = [ ]; };
          wants = mkOption { type = types.listOf types.str; default = [ ]; };
          after = mkOption { type = types.listOf types.str; default = [ ]; };
          before = mkOption { type = types.listOf types.str; default = [ ]; };
          requires = mkOption { type = types.listOf types.str; default = [ ]; };
          stopIfChanged = mkOption { type = types.bool; default = true; };
          restartIfChanged = mkOption { type = types.bool; default = true; };
          restartTriggers = mkOption { type = types.listOf types.anything; default = [ ]; };
        };
      }));
      default = { };
    };
    services.openssh.enable = mkEnableOption "the SSH daemon";
    users.users = mkOption { type = types.attrsOf types.anything; default = { }; };
    users.groups = mkOption { type = types.attrsOf types.anything; default = { }; };
    security.sudo = mkOption { type = types.anything; default = { }; };
    networking.firewall = mkOption { type = types.anything; default = { }; };
    boot.loader = mkOption { type = types.anything; default = { }; };
    boot.isContainer = mkOption { type = types.bool; default = false; };
    fileSystems = mkOption { type = types.attrsOf types.anything; default = { }; };
  };
}
