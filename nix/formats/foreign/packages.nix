# What a hive or network names as its nixpkgs → the package set: a path and a function are called, a set is one already.
let
  packages = given:
    let called = if builtins.functionArgs given ? system then given { inherit system; overlays = [ ]; } else given { overlays = [ ]; }; in
    if builtins.isFunction given then called
    else if builtins.isPath given || builtins.isString given || given ? outPath then packages (import given)
    else given;
  system = builtins.currentSystem or "x86_64-linux";
in
packages
