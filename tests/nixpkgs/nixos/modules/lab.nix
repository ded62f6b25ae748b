# What a lab system is told beyond NixOS: the arguments of `tests/nixpkgs/system.nix` that have no NixOS option, above all
# its faults: `lab.faults.killSsh = true`, `lab.text = "two"`.
{ lib, ... }:
let
  inherit (lib) mkOption types;
  optional = type: mkOption { type = types.nullOr type; default = null; };
  asText = value: if value == true then "1" else toString value;
in
{
  options.lab = mkOption {
    type = types.submodule {
      options = {
        text = optional types.str;
        systemd = optional types.str;
        interface = optional types.str;
        lock = optional (types.enum [ "perl" "ng" ]);
        extra = optional (types.attrsOf types.anything);
        faults = mkOption {
          type = types.attrsOf (types.oneOf [ types.bool types.int types.str ]);
          default = { };
          apply = faults: builtins.mapAttrs (_: asText) (lib.filterAttrs (_: value: value != false) faults);
        };
      };
    };
    default = { };
    apply = lib.filterAttrs (_: value: value != null);
  };
}
