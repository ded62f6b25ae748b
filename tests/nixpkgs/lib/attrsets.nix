# Attribute sets.
{ lib }:
rec {
  inherit (builtins) attrNames attrValues mapAttrs listToAttrs removeAttrs hasAttr getAttr catAttrs intersectAttrs;

  nameValuePair = name: value: { inherit name value; };
  genAttrs = names: f: listToAttrs (map (name: nameValuePair name (f name)) names);
  filterAttrs = keep: set: removeAttrs set (builtins.filter (name: !(keep name set.${name})) (attrNames set));
  mapAttrsToList = f: set: map (name: f name set.${name}) (attrNames set);
  mapAttrs' = f: set: listToAttrs (mapAttrsToList f set);
  concatMapAttrs = f: set: builtins.foldl' (acc: part: acc // part) { } (mapAttrsToList f set);
  optionalAttrs = condition: set: if condition then set else { };
  attrByPath = path: otherwise: set:
    if path == [ ] then set
    else if builtins.isAttrs set && set ? ${builtins.head path}
    then attrByPath (builtins.tail path) otherwise set.${builtins.head path}
    else otherwise;
  getAttrFromPath = path: attrByPath path (throw "cannot find attribute `${lib.concatStringsSep "." path}'");
  setAttrByPath = path: value:
    if path == [ ] then value else { ${builtins.head path} = setAttrByPath (builtins.tail path) value; };
  recursiveUpdate = left: right:
    left // mapAttrs
      (name: value:
        if builtins.isAttrs value && builtins.isAttrs (left.${name} or null)
        then recursiveUpdate left.${name} value else value)
      right;
  isDerivation = value: (value.type or null) == "derivation";
  attrsToList = mapAttrsToList nameValuePair;
  zipAttrsWith = builtins.zipAttrsWith;
  getName = drv: (builtins.parseDrvName (drv.pname or drv.name)).name;
  getBin = drv: drv.bin or drv.out or drv;
  getExe = drv: "${getBin drv}/bin/${drv.meta.mainProgram or (getName drv)}";
}
