# Strings.
{ lib }:
rec {
  inherit (builtins) concatStringsSep replaceStrings stringLength substring toJSON match split hasContext;

  concatStrings = concatStringsSep "";
  concatMapStrings = f: list: concatStrings (map f list);
  concatMapStringsSep = separator: f: list: concatStringsSep separator (map f list);
  concatLines = concatMapStrings (line: line + "\n");
  optionalString = condition: text: if condition then text else "";
  hasPrefix = prefix: text: substring 0 (stringLength prefix) text == prefix;
  hasSuffix = suffix: text:
    stringLength text >= stringLength suffix
    && substring (stringLength text - stringLength suffix) (stringLength suffix) text == suffix;
  hasInfix = infix: text: builtins.length (split (escapeRegex infix) text) > 1;
  removePrefix = prefix: text: if hasPrefix prefix text then substring (stringLength prefix) (-1) text else text;
  removeSuffix = suffix: text:
    if hasSuffix suffix text then substring 0 (stringLength text - stringLength suffix) text else text;
  escapeRegex = replaceStrings
    [ "\\" "^" "$" "." "[" "]" "|" "(" ")" "?" "*" "+" "{" "}" ]
    [ "\\\\" "\\^" "\\$" "\\." "\\[" "]" "\\|" "\\(" "\\)" "\\?" "\\*" "\\+" "\\{" "}" ];
  escapeShellArg = value: "'${replaceStrings [ "'" ] [ "'\\''" ] (toString value)}'";
  escapeShellArgs = concatMapStringsSep " " escapeShellArg;
  # What NixOS's library has beside them for activation scripts.
  stringAfter = deps: text: { inherit text deps; };
  splitString = separator: text: builtins.filter builtins.isString (split (escapeRegex separator) text);
  boolToString = value: if value then "true" else "false";
  toInt = text: builtins.fromJSON text;
  makeBinPath = lib.concatMapStringsSep ":" (package: "${lib.getBin package}/bin");
  isStorePath = value:
    (builtins.isString value || builtins.isPath value || value ? outPath)
    && dirOf (toString value) == builtins.storeDir;
  versionAtLeast = a: b: builtins.compareVersions a b >= 0;
  versionOlder = a: b: builtins.compareVersions a b < 0;
}
