{
  description = "driftless: keeps a fleet of NixOS machines equal to a Git branch";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs = { self, nixpkgs }:
    let
      systems = [ "x86_64-linux" "aarch64-linux" ];
      forEachSystem = f: builtins.listToAttrs (map (system: { name = system; value = f system; }) systems);
    in
    {
      packages = forEachSystem (system: rec {
        driftless = nixpkgs.legacyPackages.${system}.callPackage ./nix/package.nix { };
        default = driftless;
      });

      nixosModules = {
        # `driftless.host`, `driftless.tags` and so on, for the machines in `nixosConfigurations`.
        default = ./nix/modules/nixos.nix;
        # `services.driftless`, for the machine that deploys them.
        controller = ./nix/module.nix;
        # `services.driftless-node`: an account that can be deployed to and can do nothing else. Part of `default`.
        node = ./nix/node.nix;
      };

      # A whole deployment as a flake's output: `driftless = driftless.lib.deployment { } ({ ... }: { nodes = ...; })`.
      # A flake is evaluated without a current system, so the deploying machine's is named.
      lib.deployment = { nixpkgs ? self.inputs.nixpkgs, deploySystem ? "x86_64-linux", ... }@arguments:
        import ./nix (arguments // { inherit nixpkgs deploySystem; });

      # `nix flake init -t driftless`
      templates.default = {
        path = ./examples/fleet;
        description = "A fleet of two machines: a controller that deploys itself and a web server";
      };

      # The program's own tests boot machines and need root: `make test`. These need a NixOS builder; the VMs, KVM.
      checks = forEachSystem (system: import ./nix/checks.nix {
        inherit nixpkgs system;
        driftless = self.packages.${system}.default;
      });
    };
}
