# Stands in for the flake input `colmena`, which is not there without a network: what its `makeHive` returns.
{
  outputs = { self }: {
    lib.makeHive = hive:
      let
        pkgs = hive.meta.nixpkgs;
        evaluate = name: import (pkgs.path + "/nixos/lib/eval-config.nix") {
          system = "x86_64-linux";
          specialArgs = { inherit name nodes; } // hive.meta.specialArgs or { };
          modules = [ ./options.nix hive.defaults or { } hive.${name} ];
        };
        nodes = pkgs.lib.genAttrs (builtins.attrNames (removeAttrs hive [ "meta" "defaults" ])) evaluate;
      in
      {
        __schema = "v0.5";
        inherit nodes;
        metaConfig = { name = "hive"; allowApplyAll = true; } // removeAttrs hive.meta [ "nixpkgs" "specialArgs" ];
        introspect = f: f { inherit pkgs nodes; };
      };
  };
}
