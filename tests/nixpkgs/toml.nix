# Values → TOML: strings, numbers, booleans, lists of those, tables and lists of tables.
{ lib }:
let
  isTable = value: builtins.isAttrs value;
  isTables = value: builtins.isList value && value != [ ] && builtins.all isTable value;
  table = path: value:
    let
      simple = lib.filterAttrs (_: v: !(isTable v) && !(isTables v) && v != null) value;
      tables = lib.filterAttrs (_: isTable) value;
      arrays = lib.filterAttrs (_: isTables) value;
      header = name: lib.concatMapStringsSep "." builtins.toJSON (path ++ [ name ]);
    in
    lib.concatStrings (lib.mapAttrsToList (n: v: "${builtins.toJSON n} = ${builtins.toJSON v}\n") simple)
    + lib.concatStrings (lib.mapAttrsToList (n: v: "\n[${header n}]\n${table (path ++ [ n ]) v}") tables)
    + lib.concatStrings (lib.mapAttrsToList
      (n: lib.concatMapStrings (v: "\n[[${header n}]]\n${table (path ++ [ n ]) v}"))
      arrays);
in
table [ ]
