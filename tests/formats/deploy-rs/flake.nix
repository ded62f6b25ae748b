{
  description = "Machines that deploy-rs deploys";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-24.05";
  inputs.deploy-rs.url = "github:serokell/deploy-rs";

  outputs = { self, nixpkgs, deploy-rs }:
    let
      system = "x86_64-linux";
      pkgs = nixpkgs.legacyPackages.${system};
      machine = modules: nixpkgs.lib.nixosSystem { inherit system; modules = [ ./hosts/common.nix ] ++ modules; };
      inherit (deploy-rs.lib.${system}) activate;
    in
    {
      nixosConfigurations.web = machine [ ./hosts/web.nix ];
      nixosConfigurations.db = machine [ { networking.hostName = "db"; } ];

      deploy = {
        sshUser = "admin";
        fastConnection = true;

        nodes.web = {
          hostname = "web.example.org";
          sshOpts = [ "-p" "2221" ];
          profilesOrder = [ "system" "hello" ];
          profiles.system = {
            user = "root";
            sshOpts = [ "-o" "IdentitiesOnly=yes" ];
            confirmTimeout = 45;
            activationTimeout = 600;
            path = activate.nixos self.nixosConfigurations.web;
          };
          profiles.hello = {
            sshUser = "hello";
            user = "hello";
            path = activate.custom pkgs.hello "./bin/hello";
          };
        };

        nodes.db = {
          hostname = "localhost";
          sshUser = "root";
          magicRollback = false;
          autoRollback = false;
          interactiveSudo = true;
          fastConnection = false;
          profiles.system = {
            sudo = "doas -u";
            path = activate.custom self.nixosConfigurations.db.config.system.build.toplevel "$PROFILE/bin/switch-to-configuration switch && logger deployed";
          };
        };

        nodes.mac = {
          hostname = "mac.example.org";
          profiles.home.path = activate.custom pkgs.hello "$PROFILE/activate";
        };

        nodes.idle = {
          hostname = "idle.example.org";
          profiles.system.path = activate.noop self.nixosConfigurations.db.config.system.build.toplevel;
        };
      };

      checks = builtins.mapAttrs (system: deployLib: deployLib.deployChecks self.deploy) deploy-rs.lib;
    };
}
