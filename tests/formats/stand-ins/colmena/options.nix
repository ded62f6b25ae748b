# The node options of a Colmena of some version.
{ lib, name, ... }:
let option = default: lib.mkOption { type = lib.types.unspecified; inherit default; }; in
{
  options.deployment = {
    targetHost = lib.mkOption { type = lib.types.nullOr lib.types.str; default = name; };
    targetPort = option null;
    targetUser = option "root";
    tags = lib.mkOption { type = lib.types.listOf lib.types.str; default = [ ]; };
    keys = option { };
    buildOnTarget = option false;
    replaceUnknownProfiles = option true;
    privilegeEscalationCommand = option [ "sudo" "-H" "--" ];
    sshOptions = option [ ];
    allowLocalDeployment = option false;
  };
}
