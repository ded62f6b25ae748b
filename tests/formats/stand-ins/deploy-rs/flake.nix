# Stands in for the flake input `deploy-rs`, which is not there without a network: what its library makes of a system.
{
  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs = { self, nixpkgs }:
    let
      libFor = system:
        let
          pkgs = nixpkgs.legacyPackages.${system};
          script = name: destination: text: pkgs.writeTextFile { inherit name text destination; executable = true; };
          wrap = { dry ? "true", boot ? "true" }: base: activation: pkgs.buildEnv {
            name = "activatable-${base.name}";
            paths = [
              base
              (script "${base.name}-activate-path" "/deploy-rs-activate" ''
                #!/bin/sh
                if [ "''${DRY_ACTIVATE:-}" = 1 ]; then ${dry}
                elif [ "''${BOOT:-}" = 1 ]; then ${boot}
                else
                ${activation}
                fi
              '')
              (script "${base.name}-activate-rs" "/activate-rs" "#!/bin/sh\nexit 0\n")
            ];
          };
        in
        {
          activate = {
            custom = wrap { };
            noop = base: wrap { } base ":";
            nixos = base: wrap
              {
                dry = "$PROFILE/bin/switch-to-configuration dry-activate";
                boot = "$PROFILE/bin/switch-to-configuration boot";
              }
              base.config.system.build.toplevel
              "cd /tmp\n$PROFILE/bin/switch-to-configuration switch\n";
          };
          deployChecks = _: { };
        };
    in
    { lib.x86_64-linux = libFor "x86_64-linux"; };
}
