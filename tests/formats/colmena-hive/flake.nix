{
  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-24.05";
  inputs.colmena.url = "github:zhaofengli/colmena";

  outputs = { self, nixpkgs, colmena }: {
    colmenaHive = colmena.lib.makeHive self.outputs.colmena;

    # The older output, which older versions of Colmena read.
    colmena = {
      meta.nixpkgs = import nixpkgs { system = "x86_64-linux"; };
      meta.specialArgs.flake = self;

      defaults = { name, ... }: {
        boot.isContainer = true;
        system.stateVersion = "24.05";
        networking.hostName = name;
      };

      host-a = { nodes, ... }: {
        deployment.tags = [ "edge" ];
        environment.etc.peer.text = nodes.host-b.config.networking.hostName;
      };

      host-b.deployment = {
        targetHost = "somehost.example.org";
        targetPort = 1234;
        targetUser = "luser";
        keys.token.text = "secret";
        keys.backup.keyCommand = [ "pass" "show" "backup" ];
      };
    };
  };
}
