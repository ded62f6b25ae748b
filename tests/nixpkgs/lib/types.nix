# Option types.
{ lib }:
let
  inherit (builtins) all isAttrs isBool isInt isList isString isPath;
  inherit (lib) mergeOneOption mergeEqualOption mergeDefinitions;

  # An option that is declared twice has the type that both add up to, as in nixpkgs: `typeMerge` takes the other's `functor`
  # and yields that type, or null. Only types with `combine` can be declared twice here.
  mkOptionType = { name, description ? name, check ? (_: true), merge ? mergeDefault, functor ? { inherit name; }, ... }@attrs:
    {
      _type = "option-type";
      inherit name description check merge functor;
      emptyValue = { };
      typeMerge = other:
        if other.name == functor.name && functor ? combine then functor.combine functor.payload other.payload else null;
    } // attrs;

  combinable = name: payload: combine: { inherit name payload combine; };
  # What holds others is as combinable as those.
  holding = name: type: elem: combinable name elem
    (a: b: let both = a.typeMerge b.functor; in if both == null then null else type both);

  mergeDefault = loc: defs:
    let values = map (d: d.value) defs; in
    if builtins.length values == 1 then builtins.head values
    else if all isList values then builtins.concatLists values
    else if all isAttrs values then builtins.foldl' (a: b: a // b) { } values
    else mergeEqualOption loc defs;

  plain = name: description: check:
    let
      type = mkOptionType {
        inherit name description check;
        merge = mergeEqualOption;
        functor = combinable name description (a: b: if a == b then type else null);
      };
    in
    type;

  # Definitions of sets → per attribute, its definitions; mkIf around a set reaches the attributes.
  perAttribute = defs: builtins.zipAttrsWith (_: inner: inner)
    (builtins.concatMap
      (d: map (builtins.mapAttrs (_: value: { inherit (d) file; inherit value; })) (lib.pushDown d.value))
      defs);

  attrsOfWith = name: keep: elem: mkOptionType {
    inherit name;
    description = "attribute set of ${elem.description}";
    functor = holding name (attrsOfWith name keep) elem;
    check = isAttrs;
    emptyValue.value = { };
    merge = loc: defs:
      let merged = builtins.mapAttrs (n: mergeDefinitions (loc ++ [ n ]) elem) (perAttribute defs); in
      builtins.mapAttrs (_: m: m.mergedValue) (lib.filterAttrs keep merged);
  };

  ranged = name: description: low: high: plain name description
    (x: isInt x && (low == null || x >= low) && (high == null || x <= high));
in
rec {
  inherit mkOptionType;

  unspecified = mkOptionType { name = "unspecified"; description = "unspecified value"; };
  raw = mkOptionType { name = "raw"; description = "raw value"; merge = mergeOneOption; };
  anything = mkOptionType {
    name = "anything";
    merge = loc: defs:
      if all (d: isAttrs d.value && !lib.isDerivation d.value) defs
      then (lazyAttrsOf anything).merge loc defs
      else mergeDefault loc defs;
  };
  bool = plain "bool" "boolean" isBool;
  int = plain "int" "signed integer" isInt;
  ints = {
    unsigned = ranged "unsignedInt" "unsigned integer, meaning >=0" 0 null;
    positive = ranged "positiveInt" "positive integer, meaning >0" 1 null;
    between = low: high: ranged "intBetween" "integer between ${toString low} and ${toString high} (both inclusive)" low high;
    u16 = ranged "unsignedInt16" "16 bit unsigned integer; between 0 and 65535 (both inclusive)" 0 65535;
  };
  port = ints.u16;
  float = plain "float" "floating point number" builtins.isFloat;
  number = either int float;
  str = plain "str" "string" isString;
  nonEmptyStr = plain "nonEmptyStr" "non-empty string" (x: isString x && builtins.match "[ \t\n]*" x == null);
  singleLineStr = str;
  strMatching = pattern: plain "strMatching" "string matching the pattern ${pattern}" (x: isString x && builtins.match pattern x != null);
  separatedString = separator: mkOptionType {
    name = "separatedString";
    functor = combinable "separatedString" separator (a: b: if a == b then separatedString a else null);
    description = "strings concatenated with ${builtins.toJSON separator}";
    check = isString;
    merge = _: defs: lib.concatStringsSep separator (map (d: d.value) defs);
  };
  lines = separatedString "\n";
  commas = separatedString ",";
  envVar = separatedString ":";
  path = plain "path" "absolute path" (x: isPath x || x ? outPath || (isString x && lib.hasPrefix "/" x));
  package = mkOptionType {
    name = "package";
    check = x: lib.isDerivation x || lib.isStorePath x;
    merge = mergeOneOption;
  };
  shellPackage = package;
  attrs = mkOptionType { name = "attrs"; description = "attribute set"; check = isAttrs; emptyValue.value = { }; };

  enum = values: mkOptionType {
    name = "enum";
    description = "one of ${lib.concatMapStringsSep ", " builtins.toJSON values}";
    check = x: builtins.elem x values;
    merge = mergeEqualOption;
    functor = combinable "enum" values (a: b: enum (lib.unique (a ++ b)));
  };
  nullOr = elem: mkOptionType {
    name = "nullOr";
    functor = holding "nullOr" nullOr elem;
    description = "null or ${elem.description}";
    check = x: x == null || elem.check x;
    emptyValue.value = null;
    merge = loc: defs:
      if all (d: d.value == null) defs then null
      else if lib.any (d: d.value == null) defs
      then throw "The option `${lib.showOption loc}' is defined both null and not null, in ${lib.showFiles (map (d: d.file) defs)}."
      else elem.merge loc defs;
  };
  listOf = elem: mkOptionType {
    name = "listOf";
    functor = holding "listOf" listOf elem;
    description = "list of ${elem.description}";
    check = isList;
    emptyValue.value = [ ];
    merge = loc: defs:
      let
        items = builtins.concatLists (lib.imap1
          (n: d: lib.imap1
            (m: value: mergeDefinitions (loc ++ [ "[definition ${toString n}-entry ${toString m}]" ]) elem [ { inherit (d) file; inherit value; } ])
            d.value)
          defs);
      in
      map (m: m.mergedValue) (builtins.filter (m: m.isDefined) items);
  };
  nonEmptyListOf = elem: listOf elem // { check = x: isList x && x != [ ]; };
  attrsOf = attrsOfWith "attrsOf" (_: m: m.isDefined);
  # Which attributes exist is not asked of the definitions' values.
  lazyAttrsOf = attrsOfWith "lazyAttrsOf" (_: _: true);
  either = a: b: mkOptionType {
    name = "either";
    description = "${a.description} or ${b.description}";
    check = x: a.check x || b.check x;
    merge = loc: defs:
      if all (d: a.check d.value) defs then a.merge loc defs
      else if all (d: b.check d.value) defs then b.merge loc defs
      else mergeDefault loc defs;
  };
  oneOf = list: builtins.foldl' either (builtins.head list) (builtins.tail list);
  coercedTo = from: f: to: mkOptionType {
    name = "coercedTo";
    description = "${to.description} or ${from.description} convertible to it";
    check = x: (from.check x && to.check (f x)) || to.check x;
    merge = loc: defs: to.merge loc (map (d: d // { value = if from.check d.value then f d.value else d.value; }) defs);
  };
  uniq = elem: elem // { merge = mergeOneOption; };
  unique = _: uniq;
  addCheck = elem: extra: elem // { check = x: elem.check x && extra x; };
  functionTo = result: mkOptionType {
    name = "functionTo";
    description = "function that evaluates to a(n) ${result.description}";
    check = lib.isFunction;
    merge = loc: defs: argument:
      (mergeDefinitions (loc ++ [ "<function body>" ]) result (map (d: d // { value = d.value argument; }) defs)).mergedValue;
  };

  submodule = modules: submoduleWith { modules = lib.toList modules; shorthandOnlyDefinesConfig = true; };
  submoduleWith = { modules, specialArgs ? { }, shorthandOnlyDefinesConfig ? false, description ? "submodule", class ? null }: mkOptionType {
    name = "submodule";
    inherit description;
    functor = combinable "submodule" { inherit modules specialArgs shorthandOnlyDefinesConfig description class; } (a: b:
      if a.shorthandOnlyDefinesConfig != b.shorthandOnlyDefinesConfig
        || builtins.intersectAttrs a.specialArgs b.specialArgs != { }
      then null
      else submoduleWith (a // { modules = a.modules ++ b.modules; specialArgs = a.specialArgs // b.specialArgs; }));
    check = x: isAttrs x || lib.isFunction x || isPath x;
    emptyValue.value = { };
    merge = loc: defs:
      (lib.evalModules {
        inherit specialArgs class;
        prefix = loc;
        args.name = lib.last loc;
        modules = modules ++ map
          (d:
            if isAttrs d.value && shorthandOnlyDefinesConfig
            then { _file = d.file; config = d.value; }
            else { _file = d.file; imports = [ d.value ]; })
          defs;
      }).config;
  };
  deferredModule = mkOptionType {
    name = "deferredModule";
    description = "module";
    check = x: isAttrs x || lib.isFunction x || isPath x;
    merge = _: defs: { imports = map (d: lib.setDefaultModuleLocation d.file d.value) defs; };
  };
}
