# The module system, as far as tests need it: imports, properties with priorities, submodules, freeform types, and
# errors that name the option and the file.
{ lib }:
let
  inherit (builtins) concatMap filter isAttrs isFunction attrNames all any head;

  defaultPriority = 100;
  property = kind: attrs: { _type = kind; } // attrs;
  kindOf = value: if isAttrs value then value._type or "" else "";

  # mkIf and friends around a set become the same property around each of its attributes, so that asking which options
  # a module sets never evaluates a condition.
  pushDown = value:
    {
      merge = concatMap pushDown value.contents or [ ];
      "if" = map (builtins.mapAttrs (_: lib.mkIf value.condition)) (pushDown value.content);
      override = map (builtins.mapAttrs (_: lib.mkOverride value.priority)) (pushDown value.content);
      order = map (builtins.mapAttrs (_: lib.mkOrder value.priority)) (pushDown value.content);
    }.${kindOf value} or [ value ];

  # One definition with conditions → definitions with a priority each. What is under a priority is not looked at: the
  # default of an option that somebody sets may not even evaluate.
  prioritise = def:
    let value = def.value; in
    {
      merge = concatMap (content: prioritise (def // { value = content; })) value.contents or [ ];
      "if" =
        if !builtins.isBool value.condition then throw "a condition of `mkIf' in `${toString def.file}' is not a boolean"
        else if value.condition then prioritise (def // { value = value.content; }) else [ ];
      override = [ { inherit (def) file; inherit (value) priority; value = value.content; } ];
    }.${kindOf value} or [ ({ priority = defaultPriority; } // def) ];

  # A definition that counts → plain values, each with its order.
  unwrap = def:
    let value = def.value; in
    {
      order = map (inner: { order = value.priority; } // inner) (unwrap (def // { value = value.content; }));
      override = unwrap (def // { value = value.content; });
      merge = concatMap (content: unwrap (def // { value = content; })) value.contents or [ ];
      "if" = if value.condition then unwrap (def // { value = value.content; }) else [ ];
    }.${kindOf value} or [ def ];

  mergeDefinitions = loc: type: defs:
    let
      prioritised = concatMap prioritise defs;
      strongest = builtins.foldl' (best: def: if def.priority < best then def.priority else best) 9999 prioritised;
      winning = concatMap unwrap (filter (def: def.priority == strongest) prioritised);
      ordered = builtins.sort (a: b: (a.order or 1000) < (b.order or 1000)) winning;
      values = map (def: { inherit (def) file value; }) ordered;
      wrong = filter (def: !(type.check def.value)) values;
    in
    rec {
      isDefined = values != [ ];
      inherit values;
      highestPrio = strongest;
      mergedValue =
        if isDefined then
          if wrong == [ ] then type.merge loc values
          else throw "A definition for option `${lib.showOption loc}' is not of type `${type.description}'. Definition values:${lib.showDefs wrong}"
        else type.emptyValue.value or (throw "The option `${lib.showOption loc}' was accessed but has no value defined. Try setting the option.");
    };

  # A module in any of its forms → { file, key, imports, options, config }.
  normalise = file: key: args: module:
    let
      called = if lib.isFunction module then callWith module args else module;
      structured = called ? config || called ? options;
      reserved = [ "_class" "_file" "key" "disabledModules" "require" "imports" "options" "config" "meta" "freeformType" ];
      stray = attrNames (removeAttrs called reserved);
      here = called._file or file;
    in
    if builtins.isPath module || builtins.isString module
    then normalise (toString module) (toString module) args (import module)
    else if !isAttrs called
    then throw "Expected a module, but found a value of type ${builtins.typeOf called} in `${toString file}'."
    else if structured && stray != [ ]
    then throw "Module `${toString here}' has an unsupported attribute `${head stray}'. This is caused by introducing a top-level `config' or `options' attribute. Add configuration attributes immediately on the top level instead, or move all of them into the explicit `config' attribute."
    else {
      file = here;
      key = called.key or key;
      imports = called.imports or [ ];
      options = called.options or { };
      config =
        if structured then
          (if called ? freeformType
          then lib.mkMerge [ (called.config or { }) { _module.freeformType = called.freeformType; } ]
          else called.config or { })
        else removeAttrs called (lib.subtractLists [ "config" "options" "meta" ] reserved);
    };

  # Arguments a function names are looked up one by one, so that an unused one is never evaluated.
  callWith = f: args:
    f (builtins.mapAttrs (name: _: args.get name) (lib.functionArgs f) // args.given);

  flatten = args: modules:
    let
      # The key goes by the module that imports, not by its file: two definitions in one file are two modules.
      walk = parent: parentKey: index: module:
        let normal = normalise parent "${parentKey}:anon-${toString index}" args module; in
        lib.imap1 (walk normal.file normal.key) normal.imports
        ++ [ { entries = normal; } ];
      deep = value: if builtins.isList value then concatMap deep value else [ value.entries ];
      found = deep (lib.imap1 (walk "<unknown-file>" "") modules);
      byPath = builtins.foldl'
        (acc: m:
          if lib.hasPrefix "/" m.key && acc.seen ? ${m.key} then acc
          else { seen = acc.seen // { ${m.key} = true; }; list = acc.list ++ [ m ]; })
        { seen = { }; list = [ ]; }
        found;
    in
    byPath.list;

  # Option declarations and definitions → the tree of evaluated options, and what no option claims.
  mergeTree = prefix: declarations: definitions:
    let
      declared = builtins.zipAttrsWith (_: decls: decls)
        (map (d: builtins.mapAttrs (_: value: { inherit (d) file; inherit value; }) d.value) declarations);
      parts = concatMap
        (d: map
          (value:
            if isAttrs value then builtins.mapAttrs (_: inner: { inherit (d) file; value = inner; }) value
            else throw "The option `${lib.showOption prefix}' in `${toString d.file}' is expected to be a set, but a ${builtins.typeOf value} was found.")
          (pushDown d.value))
        definitions;
      defined = builtins.zipAttrsWith (_: defs: defs) parts;

      merged = builtins.mapAttrs
        (name: decls:
          let
            loc = prefix ++ [ name ];
            defs = defined.${name} or [ ];
          in
          if any (d: lib.isOption d.value) decls
          then { options = evalOption loc decls defs; unmatched = [ ]; }
          else mergeTree loc decls defs)
        declared;
      unclaimed = removeAttrs defined (attrNames declared);
    in
    {
      options = builtins.mapAttrs (_: m: m.options) merged;
      unmatched =
        concatMap (m: m.unmatched) (builtins.attrValues merged)
        ++ concatMap (name: map (d: d // { loc = prefix ++ [ name ]; }) unclaimed.${name}) (attrNames unclaimed);
    };

  evalOption = loc: decls: defs:
    let
      declaration = builtins.foldl'
        (acc: d:
          let
            both = name: acc ? ${name} && d.value ? ${name};
            type = acc.type.typeMerge d.value.type.functor;
          in
          if any both [ "default" "example" "description" "apply" ] || (both "type" && type == null)
          then throw "The option `${lib.showOption loc}' in `${toString d.file}' is already declared in `${toString (head decls).file}'."
          else acc // d.value // lib.optionalAttrs (both "type") { inherit type; })
        { }
        decls;
      type = declaration.type or lib.types.unspecified;
      all = (if declaration ? default
        then [ { file = (head decls).file; value = lib.mkOverride 1500 declaration.default; } ] else [ ]) ++ defs;
      merged = mergeDefinitions loc type all;
      tooMany = declaration.readOnly or false && builtins.length merged.values > 1;
    in
    declaration // {
      inherit loc type;
      declarations = map (d: d.file) decls;
      inherit (merged) isDefined highestPrio;
      definitions = map (d: d.value) merged.values;
      files = map (d: d.file) merged.values;
      definitionsWithLocations = merged.values;
      value =
        if tooMany then throw "The option `${lib.showOption loc}' is read-only, but it's set multiple times."
        else (declaration.apply or (x: x)) merged.mergedValue;
    };

  values = options: builtins.mapAttrs (_: o: if lib.isOption o then o.value else values o) options;

  internal = {
    _file = "lib/modules.nix";
    options._module = {
      args = lib.mkOption { type = lib.types.lazyAttrsOf lib.types.raw; default = { }; };
      freeformType = lib.mkOption { type = lib.types.raw; default = null; };
      check = lib.mkOption { type = lib.types.bool; default = true; };
    };
  };

  evalModules = arguments@{ modules, prefix ? [ ], specialArgs ? { }, args ? { }, class ? null, check ? true }:
    let
      # Modules see `_module` in their configuration, whoever evaluates them does not.
      given = { inherit lib options specialArgs; config = config // { inherit (all) _module; }; _class = class; } // specialArgs;
      lookup = {
        inherit given;
        get = name: given.${name} or all._module.args.${name}
          or (throw "attribute '${name}' missing: no module argument of that name");
      };
      flat = flatten lookup ([ internal { _file = "lib/modules.nix"; config._module.args = args; } ] ++ modules);
      tree = mergeTree prefix
        (map (m: { inherit (m) file; value = m.options; }) flat)
        (map (m: { inherit (m) file; value = m.config; }) flat);
      options = tree.options;
      all = values options;
      freeform = all._module.freeformType;
      extra = freeform.merge prefix
        (map (d: { inherit (d) file; value = lib.setAttrByPath (lib.lists.foldl' (l: _: builtins.tail l) d.loc prefix) d.value; }) tree.unmatched);
      stray = head tree.unmatched;
      declaredConfig = removeAttrs all [ "_module" ];
      config =
        if tree.unmatched == [ ] || !all._module.check || !check then declaredConfig
        else if freeform != null then lib.recursiveUpdate extra declaredConfig
        else throw "The option `${lib.showOption stray.loc}' does not exist. Definition values:${lib.showDefs [ stray ]}";
    in
    {
      _type = "configuration";
      inherit config options class;
      _module = all._module;
      # What made `deployScript // result` stop being a derivation.
      type = lib.types.submoduleWith { inherit modules specialArgs class; };
      extendModules = more: evalModules (arguments // {
        modules = modules ++ more.modules or [ ];
        specialArgs = specialArgs // more.specialArgs or { };
      });
    };
in
{
  inherit evalModules mergeDefinitions pushDown;

  mkIf = condition: content: property "if" { inherit condition content; };
  mkMerge = contents: property "merge" { inherit contents; };
  mkOverride = priority: content: property "override" { inherit priority content; };
  mkForce = lib.mkOverride 50;
  mkDefault = lib.mkOverride 1000;
  mkOptionDefault = lib.mkOverride 1500;
  mkImageMediaOverride = lib.mkOverride 60;
  mkVMOverride = lib.mkOverride 10;
  mkOrder = priority: content: property "order" { inherit priority content; };
  mkBefore = lib.mkOrder 500;
  mkAfter = lib.mkOrder 1500;
  setDefaultModuleLocation = file: module: { _file = file; imports = [ module ]; };
}
