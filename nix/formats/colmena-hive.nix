# A flake's `colmenaHive`: what `colmena.lib.makeHive` made of a hive, evaluated already.
let
  defaults = import ./defaults.nix;
in
{
  name = "colmena-hive";
  description = "a flake with `colmenaHive`";

  detect = { value, file, ... }: file == null && value ? colmenaHive;

  open = { value, ... }:
    let hive = value.colmenaHive; in
    if !(hive ? nodes)
    then throw "the output `colmenaHive` is not what `colmena.lib.makeHive` makes: it has no `nodes`"
    else {
      format = "colmena-hive";
      names = builtins.attrNames hive.nodes;
      rollout = defaults.rolloutWith (value.driftless.rollout or { });
      unsupported = import ./foreign/colmena-meta.nix (hive.metaConfig or { });
      node = name:
        let plain = hive.nodes.${name}; in
        import ./foreign/colmena-node.nix {
          inherit plain;
          extend = module: plain.extendModules { modules = [ module ]; };
          # Colmena has put its own there.
          services = false;
        };
    };
}
