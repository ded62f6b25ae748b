# The defaults of `options.nix` as plain values, for formats whose nodes were evaluated without our options.
let
  # Just enough of `lib` to read the defaults: types are never asked.
  anyType = { };
  lib = {
    mkOption = option: { isOption = true; } // option;
    types = {
      bool = anyType;
      str = anyType;
      int = anyType;
      port = anyType;
      package = anyType;
      ints = { unsigned = anyType; positive = anyType; };
      enum = _: anyType;
      nullOr = _: anyType;
      listOf = _: anyType;
      attrsOf = _: anyType;
      oneOf = _: anyType;
      either = _: _: anyType;
      strMatching = _: anyType;
    };
  };
  valueOf = option:
    if option ? isOption then (option.apply or (value: value)) option.default
    else builtins.mapAttrs (_: valueOf) option;
in
builtins.mapAttrs (_: builtins.mapAttrs (_: valueOf)) (import ../options.nix { inherit lib; hostDefault = null; })
