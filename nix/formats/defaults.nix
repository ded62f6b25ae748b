# The defaults of `options.nix` as plain values, for formats whose nodes were evaluated without our options.
let
  # Just enough of `lib` to read the defaults: types are never asked.
  anyType = { };
  lib = {
    mkOption = option: { isOption = true; } // option;
    literalExpression = text: text;
    types = {
      bool = anyType;
      str = anyType;
      int = anyType;
      port = anyType;
      package = anyType;
      lines = anyType;
      ints = { unsigned = anyType; positive = anyType; between = _: _: anyType; };
      nonEmptyStr = anyType;
      attrs = anyType;
      enum = _: anyType;
      nullOr = _: anyType;
      listOf = _: anyType;
      attrsOf = _: anyType;
      submodule = _: anyType;
      oneOf = _: anyType;
      either = _: _: anyType;
      strMatching = _: anyType;
    };
  };
  valueOf = option:
    if option ? isOption then (option.apply or (value: value)) option.default
    else builtins.mapAttrs (_: valueOf) option;
  options = import ../options.nix { inherit lib; hostDefault = null; };
  valuesOf = builtins.mapAttrs (_: valueOf);

  # One of our options as somebody else's file sets it.
  given = option: value: if option ? isOption then valueOf (option // { default = value; }) else value;
  checked = builtins.mapAttrs (name: value: if options.node ? ${name} then given options.node.${name} value else value);
in
rec {
  node = valuesOf options.node;

  # A node with these settings, in our words, completed.
  nodeWith = settings: node // checked settings;
  rollout = valuesOf options.rollout;

  # What a format without our options says about the fleet, completed. Rust checks the types.
  rolloutWith = given:
    let unknown = builtins.attrNames (removeAttrs given (builtins.attrNames options.rollout)); in
    if unknown != [ ]
    then throw "unknown rollout option '${builtins.head unknown}'; there are ${builtins.concatStringsSep ", " (builtins.attrNames options.rollout)}"
    else builtins.mapAttrs
      (name: option: valueOf (option // (if given ? ${name} then { default = given.${name}; } else { })))
      options.rollout;
}
