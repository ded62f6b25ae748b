# The border between Nix and driftless: a deployment in any known format → one JSON document.
#
#   nix-instantiate --eval --strict --json --read-write-mode manifest.nix --argstr deployment /path/deployment.nix \
#     --argstr want names
#     → { version, format, nodes: [name...], rollout }             evaluates no node, so that no node can break it
#   ... --argstr want nodes --argstr nodes '["web1","web2"]'
#     → { version, format, nodes: { web1: {...}, web2: {...} } }   a disabled node is left out
#
# `--argstr flake 'git+file:///repo?rev=...'` takes the place of `deployment`. The derivations exist on disk afterwards.
{ deployment ? null, flake ? null, want, nodes ? null }:
let
  formats = [
    (import ./formats/driftless.nix)
    (import ./formats/nixus.nix)
    (import ./formats/flake.nix)
  ];

  # A file that is a function with nothing but defaults is called, as nix-build does.
  callable = value:
    builtins.isFunction value
    && builtins.functionArgs value != { }
    && builtins.all (hasDefault: hasDefault) (builtins.attrValues (builtins.functionArgs value));
  source = if flake != null then "the flake ${flake}" else "the deployment ${toString deployment}";
  loaded =
    if flake != null then builtins.getFlake flake
    else if deployment != null then import (/. + deployment)
    else throw "neither a deployment nor a flake was given";
  value = if callable loaded then loaded { } else loaded;

  shape =
    if builtins.isAttrs value
    then "an attribute set with ${
      if value == { } then "no attributes"
      else builtins.concatStringsSep ", " (builtins.attrNames value)
    }"
    else if builtins.isFunction value
    then "a function (did you forget to `import driftless { }` and to apply it to the deployment?)"
    else "a value of type ${builtins.typeOf value}";
  matching = builtins.filter (format: builtins.isAttrs value && format.detect value) formats;
  opened =
    if matching == [ ]
    then throw "${source} is ${shape}, which is no known deployment format. Understood are: ${
      builtins.concatStringsSep "; " (map (format: format.description) formats)
    }."
    else (builtins.head matching).open value;

  # Values for people and Rust: what a string refers to is told by `drv`, not by a context.
  plain = builtins.unsafeDiscardStringContext;
  withoutContext = spec: builtins.fromJSON (plain (builtins.toJSON spec));

  asked = if nodes == null then opened.names else builtins.fromJSON nodes;
  specOf = name:
    if builtins.elem name opened.names
    then opened.node name
    else throw "${source} has no node '${name}'; it has: ${builtins.concatStringsSep ", " opened.names}";
  specs = builtins.filter ({ value, ... }: value != null)
    (map (name: { inherit name; value = specOf name; }) asked);

  head = { version = import ./version.nix; inherit (opened) format; };
in
if want == "names" then head // { nodes = opened.names; inherit (opened) rollout; }
else if want == "nodes" then head // { nodes = builtins.mapAttrs (_: withoutContext) (builtins.listToAttrs specs); }
else throw "manifest.nix was asked for '${want}'; it knows 'names' and 'nodes'"
