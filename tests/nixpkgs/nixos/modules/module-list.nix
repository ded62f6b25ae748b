[ ./nixpkgs.nix ./system.nix ./services.nix ./network.nix ./access.nix ./lab.nix ]
