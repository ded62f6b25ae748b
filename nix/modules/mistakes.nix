# What is wrong with a description that several nodes share → an assertion of the nodes that it concerns, which names the
# option and the file. Never decides what is wrong; that is the describing module's.
#
# A mistake fails the nodes that take part, and no others. Only where a name is no node's it fails all of them, because any
# of them may have been meant. Nothing here evaluates a node to find that out.
{ lib, option, nodes }:
let
  known = builtins.attrNames nodes;

  # Whether a definition says something at this path. What cannot be looked into may.
  says = path: value:
    if path == [ ] then true
    else if value ? _type && value ? contents then builtins.any (says path) value.contents
    else if value ? _type && value ? content then says path value.content
    else if builtins.isAttrs value
    then value ? ${builtins.head path} && says (builtins.tail path) value.${builtins.head path}
    else !(builtins.isList value);
in
rec {
  # `file' and `file': where the option is said, at this path below it.
  files = path:
    let
      here = builtins.filter (definition: says path definition.value) option.definitionsWithLocations;
      found = map (definition: "`${toString definition.file}'") (if here == [ ] then option.definitionsWithLocations else here);
    in
    lib.concatStringsSep " and " (lib.unique found);

  # A mistake at a path below the option.
  at = path: what: "${lib.showOption (option.loc ++ path)} in ${files path}: ${what}";

  isNode = name: nodes ? ${name};
  noNode = path: name: at path "'${name}' is no node of this deployment; there are: ${lib.concatStringsSep ", " known}";

  # Modules for `defaults`: `everywhere` are the mistakes of all nodes, `of NAME` those of one.
  assertions = { everywhere, of }: { name, ... }: {
    configuration = {
      _file = "driftless";
      assertions = map (message: { assertion = false; inherit message; }) (everywhere ++ of name);
    };
  };
}
