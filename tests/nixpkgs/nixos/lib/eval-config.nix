# Evaluates a NixOS-like system, with the arguments of the real one that `nix/` and ordinary flakes use.
{ system ? builtins.currentSystem or null
, lib ? import ../../lib
, modules
, specialArgs ? { }
, baseModules ? import ../modules/module-list.nix
, extraModules ? [ ]
, prefix ? [ ]
, pkgs ? null
}:
let
  platform = { lib, ... }: {
    _file = "nixos/lib/eval-config.nix";
    config = lib.mkMerge [
      (lib.mkIf (system != null) { nixpkgs.system = lib.mkDefault system; })
      (lib.mkIf (pkgs != null) { _module.args.pkgs = pkgs; })
    ];
  };
  evaluated = lib.evalModules {
    inherit prefix;
    class = "nixos";
    specialArgs = { modulesPath = toString ../modules; } // specialArgs;
    modules = baseModules ++ extraModules ++ [ platform { _module.args.baseModules = baseModules; } ] ++ modules;
  };
in
evaluated // {
  inherit lib extraModules;
  inherit (evaluated._module.args) pkgs;
}
