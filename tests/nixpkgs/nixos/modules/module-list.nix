[ ./nixpkgs.nix ./system.nix ./services.nix ./network.nix ./lab.nix ]
