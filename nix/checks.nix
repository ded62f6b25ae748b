# `nix flake check`: the package, systems with the modules, and machines that run them.
{ nixpkgs, system, driftless }:
let
  pkgs = nixpkgs.legacyPackages.${system};
  # A machine that exists on paper, to see that the modules make one.
  machine = module: (import (nixpkgs + "/nixos/lib/eval-config.nix") {
    inherit system;
    modules = [ module { boot.isContainer = true; system.stateVersion = "24.05"; nixpkgs.pkgs = pkgs; } ];
  }).config.system.build.toplevel;
in
{
  package = driftless;

  controller = machine {
    imports = [ ./module.nix ];
    services.driftless = {
      enable = true;
      package = driftless;
      sshKeyFile = "/run/keys/driftless";
      settings.source.url = "https://git.example.org/infra.git";
    };
  };

  node = machine {
    imports = [ ./modules/nixos.nix ];
    driftless.healthChecks.commands.up = "true";
    services.openssh.enable = true;
    services.driftless-node = {
      enable = true;
      authorizedKeys = [ "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ0aWwVN7rCUNHwYuMFbQVCWGtGd0rZvLKyJ1YqZpDDD" ];
      trustedPublicKeys = [ "controller-1:kFnRqHGZJLgZOFsnvgmKpcs60vHVMRRgWmVpjNNbXkQ=" ];
    };
  };

  fleet = pkgs.testers.runNixOSTest (import ./tests/fleet.nix { inherit driftless; });
}
