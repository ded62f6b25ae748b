# `driftless-node`, for `pkgs.callPackage`: the program of a managed node, with the scripts that driftless otherwise sends
# along. Shell and nothing else: a node needs no driftless.
{ lib, writeTextFile, runtimeShell
, account ? "driftless"
, escalation ? [ ]
, copies ? "signed"
, trustedPublicKeys ? [ ]
}:
let
  parts = ../../src/node/switch;
  # As the controller sends it: all parts in the order of their names.
  switch = builtins.toFile "switch.sh"
    (lib.concatMapStringsSep "\n" (name: builtins.readFile (parts + "/${name}")) (builtins.attrNames (builtins.readDir parts)));
  settings = {
    "@account@" = account;
    "@shell@" = runtimeShell;
    "@switch@" = "${switch}";
    "@secrets@" = "${../../src/node/secrets.sh}";
    "@escalation@" = toString escalation;
    "@copies@" = copies;
    "@signedBy@" = toString trustedPublicKeys;
  };
  script = builtins.readFile ./driftless-node.sh;
in
writeTextFile {
  name = "driftless-node";
  executable = true;
  destination = "/bin/driftless-node";
  # -p: bash reads no file and takes no function that the environment names.
  text = builtins.replaceStrings
    ([ "#!/bin/sh\n" ] ++ builtins.attrNames settings)
    ([ "#!${runtimeShell} -p\n" ] ++ map lib.escapeShellArg (builtins.attrValues settings))
    script;
}
// {
  # As a login shell.
  shellPath = "/bin/driftless-node";
  protocol = lib.removePrefix "PROTOCOL=" (lib.findFirst (lib.hasPrefix "PROTOCOL=") null (lib.splitString "\n" script));
}
