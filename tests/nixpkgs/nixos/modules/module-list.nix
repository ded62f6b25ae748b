[ ./nixpkgs.nix ./system.nix ./services.nix ./lab.nix ]
