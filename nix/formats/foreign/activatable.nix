# The path of a deploy-rs profile → the NixOS system in it. deploy-rs wraps what it activates: an environment of the thing
# itself and two scripts. The thing has to be found again, because a switch needs the system and not the environment.
#
# Gives { toplevel, own } or { why }. `own`: the script is not the one that deploy-rs makes for NixOS systems.
path:
let
  contains = part: text: builtins.replaceStrings [ part ] [ "" ] text != text;
  isSystem = package: builtins.match "nixos-system-.*" (package.name or "") != null;

  # nixpkgs's buildEnv can be called once more, which is how its arguments come to light. Only for what is called as deploy-rs
  # calls it: other packages can be called once more as well, and have no such argument.
  isWrapped = builtins.match "activatable-.*" (path.name or "") != null && path ? override;
  seen = (path.override (arguments: { passthru = (arguments.passthru or { }) // { driftless = arguments.paths; }; })).driftless;
  parts = if isWrapped then seen else [ ];
  scripts = builtins.concatStringsSep "\n" (map (part: part.text or "") parts);
  wrapped = builtins.filter isSystem parts;
in
if isSystem path then { toplevel = path; own = false; }
else if wrapped != [ ] && contains "switch-to-configuration switch" scripts
then { toplevel = builtins.head wrapped; own = !contains "switch-to-configuration dry-activate" scripts; }
else if wrapped != [ ]
then { why = "it holds a NixOS system, and does not activate it"; }
else { why = "its path, ${path.name or "a value of type ${builtins.typeOf path}"}, is no NixOS system (`activate.nixos`)"; }
