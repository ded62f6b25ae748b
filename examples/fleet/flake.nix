{
  description = "A fleet of NixOS machines, deployed by driftless";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";
  # Where you have driftless from.
  inputs.driftless.url = "git+file:///srv/driftless";
  inputs.driftless.inputs.nixpkgs.follows = "nixpkgs";

  outputs = { self, nixpkgs, driftless }:
    let
      machine = file: nixpkgs.lib.nixosSystem {
        system = "x86_64-linux";
        specialArgs = { inherit driftless; };
        modules = [ file ./hosts/every.nix driftless.nixosModules.default ];
      };
    in
    {
      # Every one of these is a node. Its host is its name, where `driftless.host` says nothing else.
      nixosConfigurations = {
        control = machine ./hosts/control.nix;
        web1 = machine ./hosts/web1.nix;
      };

      # What concerns all of them at once.
      driftless.rollout.maxInFlight = 2;
    };
}
