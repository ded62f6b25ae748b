# The `./result` script: the release of the named nodes, already built, and one call of driftless.
{ lib, pkgs, package, manifest, names }:
let
  specs = builtins.listToAttrs
    (builtins.filter ({ value, ... }: value != null)
      (map (name: { inherit name; value = manifest.node name; }) names));

  release = pkgs.writeText "driftless-release.json" (builtins.toJSON {
    version = import ./version.nix;
    inherit (manifest) format rollout;
    nodes = specs;
  });

  find =
    if package != null then ''
      driftless=${lib.escapeShellArg "${package}/bin/driftless"}
    '' else ''
      if ! driftless=$(command -v driftless); then
        echo "driftless is not on PATH. Install it, or name it in the deployment file:" >&2
        echo "  import driftless { package = ...; } ({ ... }: { ... })" >&2
        exit 1
      fi
    '';

  script = pkgs.writeScript "driftless-deploy" ''
    #!/bin/sh
    # Deploys the release that was built with this script. Arguments are those of `driftless deploy`, such as --on.
    ${find}
    exec "$driftless" deploy --release ${release} "$@"
  '';
in
# Each attribute by itself, so that nothing is evaluated before nix-build asks for it.
{
  type = "derivation";
  name = "driftless-deploy";
  outputName = "out";
  outputs = [ "out" ];
  inherit (script) drvPath outPath system;
  out = script;
  all = [ script ];
}
