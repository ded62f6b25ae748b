# Declaring options.
{ lib }:
rec {
  mkOption = attrs: attrs // { _type = "option"; };
  isOption = value: (value._type or null) == "option";
  mkEnableOption = what: mkOption {
    default = false;
    example = true;
    description = "Whether to enable ${what}.";
    type = lib.types.bool;
  };
  literalExpression = text: { _type = "literalExpression"; inherit text; };
  literalExample = literalExpression;
  literalMD = text: { _type = "literalMD"; inherit text; };
  mdDoc = text: text;
  showOption = lib.concatMapStringsSep "."
    (part: if builtins.match "[a-zA-Z_][a-zA-Z0-9_'-]*|<.*>" part != null then part else builtins.toJSON part);
  showFiles = lib.concatMapStringsSep " and " (file: "`${toString file}'");
  mergeOneOption = loc: defs:
    if builtins.length defs == 1 then (builtins.head defs).value
    else throw "The option `${showOption loc}' is defined multiple times while it's expected to be unique, in ${showFiles (map (d: d.file) defs)}.";
  mergeEqualOption = loc: defs:
    let first = builtins.head defs; in
    if builtins.all (d: d.value == first.value) defs then first.value
    else throw "The option `${showOption loc}' has conflicting definition values:${showDefs defs}";
  # The value is named by its shape, not printed in full: it may be a whole system.
  showDefs = lib.concatMapStrings (def: "\n- In `${toString def.file}': ${showValue def.value}");
  showValue = value:
    if builtins.isString value || builtins.isInt value || builtins.isBool value || value == null then builtins.toJSON value
    else if builtins.isFunction value then "<function>"
    else "<${builtins.typeOf value}>";
}
