# `networking.public` in the configuration of every node: its public addresses, for the modules that describe several
# nodes and for whatever else asks. Sets nothing on the machine.
{ lib, ... }:
let
  inherit (lib) mkOption types;
  inherit (import ../ip.nix) isIpv4 isIpv6;
  address = description: is: types.addCheck types.str is // { name = "address"; inherit description; };
in
{
  _file = "driftless";
  defaults = { ... }: {
    configuration = { options, ... }: {
      _file = "driftless";
      options.networking.public = {
        ipv4 = mkOption {
          type = address "IPv4 address" isIpv4;
          example = "192.0.2.7";
          description = "The address under which this machine is reached from everywhere.";
        };
        ipv6 = mkOption {
          type = address "IPv6 address" isIpv6;
          example = "2001:db8::7";
          description = "The address under which this machine is reached from everywhere.";
        };
        hasIpv4 = mkOption {
          type = types.bool;
          readOnly = true;
          default = options.networking.public.ipv4.isDefined;
          defaultText = "whether `ipv4` is set";
          description = "Whether this machine has a public IPv4 address.";
        };
        hasIpv6 = mkOption {
          type = types.bool;
          readOnly = true;
          default = options.networking.public.ipv6.isDefined;
          defaultText = "whether `ipv6` is set";
          description = "Whether this machine has a public IPv6 address.";
        };
      };
    };
  };
}
