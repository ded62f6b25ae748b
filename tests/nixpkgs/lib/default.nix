# A small `lib` for tests: the names of the nixpkgs library that `nix/` and ordinary deployments use, written for this
# project. It claims the same behaviour, never the same code; whatever passes with it must also pass with the real one
# (DRIFTLESS_TEST_NIXPKGS).
let
  # Late binding, so that an overlay given to `lib.extend` is seen by everything in here.
  fixWith = extension:
    let
      self = extension self (base self) // {
        # Of a library that was extended before, too.
        extend = overlay: fixWith (final: prev: let before = extension final prev; in before // overlay final before);
      };
    in
    self;

  base = self:
    let
      lists = import ./lists.nix;
      attrsets = import ./attrsets.nix { lib = self; };
      strings = import ./strings.nix { lib = self; };
      options = import ./options.nix { lib = self; };
      modules = import ./modules.nix { lib = self; };
      types = import ./types.nix { lib = self; };
    in
    lists // attrsets // strings // options // modules // {
      inherit lists attrsets strings options modules types;
      inherit (types) mkOptionType;
      isType = kind: value: (value._type or null) == kind;

      trivial = { release = "26.11"; };

      id = x: x;
      const = x: _: x;
      flip = f: a: b: f b a;
      pipe = builtins.foldl' (x: f: f x);
      isFunction = f: builtins.isFunction f || (f ? __functor && builtins.isFunction (f.__functor f));
      functionArgs = f: if f ? __functor then f.__functionArgs or (self.functionArgs (f.__functor f)) else builtins.functionArgs f;
      warn = message: builtins.trace "warning: ${message}";
      throwIf = condition: message: if condition then throw message else (x: x);
      throwIfNot = condition: self.throwIf (!condition);
      importJSON = path: builtins.fromJSON (builtins.readFile path);
      importTOML = path: fromTOML (builtins.readFile path);

      # The result of a function, and how to call it once more with other arguments.
      makeOverridable = f: arguments: f arguments // {
        override = changed:
          self.makeOverridable f (arguments // (if builtins.isFunction changed then changed arguments else changed));
      };

      composeExtensions = f: g: final: prev:
        let first = f final prev; in first // g final (prev // first);

      inherit (builtins) isAttrs isString isInt isBool isList add sub lessThan seq deepSeq;
    };
in
fixWith (_: prev: prev)
