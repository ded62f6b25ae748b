# The options of networks and name servers that modules for several nodes set, with the types of the real ones. They become
# files in /etc, so that a system has evaluated and built all of it; a lab node has no WireGuard and no BIND.
{ lib, config, ... }:
let
  inherit (lib) mkOption mkEnableOption types;
  list = mkOption { type = types.listOf types.str; default = [ ]; };
  nullOr = type: mkOption { type = types.nullOr type; default = null; };
in
{
  options = {
    boot.kernel.sysctl = mkOption { type = types.attrsOf (types.oneOf [ types.bool types.int types.str ]); default = { }; };

    networking.nat = {
      enable = mkEnableOption "NAT";
      enableIPv6 = mkEnableOption "NAT for IPv6";
      externalInterface = nullOr types.str;
      internalInterfaces = list;
    };

    networking.wg-quick.interfaces = mkOption {
      type = types.attrsOf (types.submodule {
        options = {
          address = list;
          listenPort = nullOr types.int;
          privateKeyFile = nullOr types.str;
          peers = mkOption {
            type = types.listOf (types.submodule {
              options = {
                publicKey = mkOption { type = types.str; };
                allowedIPs = list;
                endpoint = nullOr types.str;
                persistentKeepalive = nullOr types.int;
              };
            });
            default = [ ];
          };
        };
      });
      default = { };
    };

    programs.ssh.knownHosts = mkOption {
      type = types.attrsOf (types.submodule ({ name, ... }: {
        options = {
          hostNames = mkOption { type = types.listOf types.str; default = [ name ]; };
          publicKey = nullOr types.str;
        };
      }));
      default = { };
    };

    services.bind = {
      enable = mkEnableOption "BIND";
      zones = mkOption {
        type = types.coercedTo (types.listOf types.attrs)
          (zones: builtins.listToAttrs (map (zone: { inherit (zone) name; value = zone; }) zones))
          (types.attrsOf (types.submodule ({ name, ... }: {
            options = {
              name = mkOption { type = types.str; default = name; };
              master = mkOption { type = types.bool; };
              file = mkOption { type = types.either types.str types.path; };
            };
          })));
        default = { };
      };
    };
  };

  config.environment.etc =
    lib.mapAttrs' (name: interface: lib.nameValuePair "wireguard/${name}.json" { text = builtins.toJSON interface; })
      config.networking.wg-quick.interfaces
    // lib.mapAttrs' (name: host: lib.nameValuePair "ssh/known/${name}" { text = "${toString host.hostNames} ${host.publicKey}"; })
      config.programs.ssh.knownHosts
    // lib.mapAttrs' (name: zone: lib.nameValuePair "bind/${builtins.replaceStrings [ "/" ] [ "-" ] name}" { text = "${zone.file}"; })
      config.services.bind.zones
    // lib.concatMapAttrs
      (name: user:
        let keys = user.openssh.authorizedKeys.keys or [ ]; in
        lib.optionalAttrs (keys != [ ]) { "ssh/authorized_keys.d/${name}".text = lib.concatLines keys; })
      config.users.users;
}
