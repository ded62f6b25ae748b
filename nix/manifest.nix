# The border between Nix and driftless: a deployment in any known format → one JSON document.
#
#   nix-instantiate --eval --strict --json --read-write-mode manifest.nix --argstr deployment /path/deployment.nix \
#     --argstr want names
#     → { version, format, nodes: [name...], rollout, unsupported }   evaluates no node, so that no node can break it
#   ... --argstr want nodes --argstr nodes '["web1","web2"]'
#     → { version, format, nodes: { web1: {...}, web2: {...} }, notDeployable: { mac: [...] } }   a disabled node is in neither
#
# `--argstr flake 'git+file:///repo?rev=...'` takes the place of `deployment`. `--argstr format NAME` reads it as that format
# instead of the first one below that recognises it. The derivations exist on disk afterwards.
{ deployment ? null, flake ? null, want, nodes ? null, format ? null }:
let
  # The order counts: a flake often has several of these outputs, and a file is some people's hive and others' network.
  formats = [
    (import ./formats/driftless.nix)
    (import ./formats/nixus.nix)
    (import ./formats/colmena-hive.nix)
    (import ./formats/colmena.nix)
    (import ./formats/morph.nix)
    (import ./formats/nixops.nix)
    (import ./formats/deploy-rs.nix)
    (import ./formats/flake.nix)
  ];
  file = if flake != null then null else baseNameOf (toString deployment);

  # A file that is a function with nothing but defaults is called, as nix-build does; a hive also where it takes anything.
  isHive = file == "hive.nix" || format == "colmena";
  callable = value:
    builtins.isFunction value
    && (isHive || builtins.functionArgs value != { })
    && builtins.all (hasDefault: hasDefault) (builtins.attrValues (builtins.functionArgs value));
  source = if flake != null then "the flake ${flake}" else "the deployment ${toString deployment}";
  loaded =
    if flake != null then builtins.getFlake flake
    else if deployment != null then import (/. + deployment)
    else throw "neither a deployment nor a flake was given";
  value = if callable loaded then loaded { } else loaded;
  # Secrets may be named beside the deployment.
  found = { inherit value file; folder = if flake != null then null else dirOf (toString deployment); };

  # Of a flake what it says itself, not what every flake has.
  attributes = builtins.attrNames (if flake != null then value.outputs or value else value);
  withoutDefault = builtins.filter (name: !(builtins.functionArgs value).${name}) (builtins.attrNames (builtins.functionArgs value));
  shape =
    if builtins.isAttrs value
    then "an attribute set with ${
      if attributes == [ ] then "no attributes" else builtins.concatStringsSep ", " attributes
    }"
    else if builtins.isFunction value && withoutDefault != [ ]
    then "a function that wants ${builtins.concatStringsSep ", " withoutDefault} (did you forget to call it?)"
    else if builtins.isFunction value
    then "a function (did you forget to `import driftless { }` and to apply it to the deployment?)"
    else "a value of type ${builtins.typeOf value}";
  understood = builtins.concatStringsSep "; " (map (format: "${format.name}: ${format.description}") formats);
  matching =
    if format == null then builtins.filter (format: builtins.isAttrs value && format.detect found) formats
    else if named == [ ] then throw "there is no deployment format '${format}'. Understood are: ${understood}."
    else builtins.filter (format: builtins.isAttrs value && (format.fits or format.detect) found) named;
  named = builtins.filter ({ name, ... }: name == format) formats;
  opened =
    if matching != [ ] then (builtins.head matching).open found
    else if format != null then throw "${source} is ${shape}, which cannot be read as ${(builtins.head named).description}."
    else throw "${source} is ${shape}, which is no known deployment format. Understood are: ${understood}.";

  # Values for people and Rust: what a string refers to is told by `drv`, not by a context.
  plain = builtins.unsafeDiscardStringContext;
  withoutContext = spec: builtins.fromJSON (plain (builtins.toJSON spec));

  asked = if nodes == null then opened.names else builtins.fromJSON nodes;
  specOf = name:
    if builtins.elem name opened.names
    then opened.node name
    else throw "${source} has no node '${name}'; it has: ${builtins.concatStringsSep ", " opened.names}";
  answers = builtins.filter ({ value, ... }: value != null)
    (map (name: { inherit name; value = specOf name; }) asked);
  # A node that driftless cannot deploy at all says nothing but why.
  deployable = builtins.partition ({ value, ... }: value ? drv) answers;

  head = { version = import ./version.nix; inherit (opened) format; };
in
if want == "names"
then head // { nodes = opened.names; inherit (opened) rollout; unsupported = opened.unsupported or [ ]; }
else if want == "nodes"
then head // {
  nodes = builtins.mapAttrs (_: withoutContext) (builtins.listToAttrs deployable.right);
  notDeployable = builtins.mapAttrs (_: { unsupported }: withoutContext unsupported) (builtins.listToAttrs deployable.wrong);
}
else throw "manifest.nix was asked for '${want}'; it knows 'names' and 'nodes'"
