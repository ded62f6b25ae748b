# The parts of NixOS that deployments in tests set; what a service is made of is passed on unread.
{ lib, config, pkgs, ... }:
let
  inherit (lib) mkOption mkEnableOption types;

  services = lib.filterAttrs (_: service: service.enable) config.systemd.services;
  line = name: value:
    if builtins.isList value then lib.concatMapStrings (line name) value
    else "${name}=${if builtins.isBool value then lib.boolToString value else toString value}\n";
  section = name: settings: "[${name}]\n" + lib.concatStrings (lib.mapAttrsToList line settings);
  words = list: lib.optionalAttrs (list != [ ]);
  unitText = name: service:
    section "Unit"
      ({ Description = if service.description != "" then service.description else name; }
        // words service.after { After = toString service.after; }
        // words service.before { Before = toString service.before; }
        // words service.wants { Wants = toString service.wants; }
        // words service.requires { Requires = toString service.requires; }
        // service.unitConfig)
    + section "Service"
      ({
        Environment = lib.mapAttrsToList (n: v: "\"${n}=${toString v}\"") (lib.filterAttrs (_: v: v != null)
          ({ PATH = "${lib.concatMapStrings (p: "${lib.getBin p}/bin:") service.path}/run/current-system/sw/bin:/usr/sbin:/usr/bin:/sbin:/bin"; } // service.environment));
      }
        // lib.optionalAttrs (service.script != "") { ExecStart = toString (pkgs.writeShellScript "unit-script-${name}" "set -e\n${service.script}"); }
        // service.serviceConfig)
    + lib.optionalString (service.wantedBy != [ ]) (section "Install" { WantedBy = toString service.wantedBy; });
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
    # What becomes of the services: the text of each unit, and those that activation starts.
    systemd.units = mkOption { type = types.attrsOf types.str; default = { }; };
    systemd.startUnits = mkOption { type = types.listOf types.str; default = [ ]; };

    services.openssh.enable = mkEnableOption "the SSH daemon";
    services.openssh.ports = mkOption { type = types.listOf types.port; default = [ 22 ]; };
    users.users = mkOption { type = types.attrsOf types.anything; default = { }; };
    users.groups = mkOption { type = types.attrsOf types.anything; default = { }; };
    networking.firewall = mkOption { type = types.anything; default = { }; };
    boot.loader = mkOption { type = types.anything; default = { }; };
    boot.isContainer = mkOption { type = types.bool; default = false; };
    fileSystems = mkOption { type = types.attrsOf types.anything; default = { }; };
  };

  config.systemd = {
    units = lib.mapAttrs' (name: service: lib.nameValuePair "${name}.service" (unitText name service)) services;
    startUnits = map (name: "${name}.service")
      (builtins.filter (name: services.${name}.wantedBy != [ ]) (builtins.attrNames services));
  };
}
