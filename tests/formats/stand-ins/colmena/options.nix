# The node options of a Colmena of some version.
{ lib, name, ... }:
let
  option = default: lib.mkOption { type = lib.types.unspecified; inherit default; };
  key = { name, config, ... }: {
    options = {
      text = option null;
      keyFile = option null;
      keyCommand = option null;
      destDir = option "/run/keys";
      path = option "${config.destDir}/${name}";
      user = option "root";
      group = option "root";
      permissions = option "0600";
    };
  };
in
{
  options.deployment = {
    targetHost = lib.mkOption { type = lib.types.nullOr lib.types.str; default = name; };
    targetPort = option null;
    targetUser = option "root";
    tags = lib.mkOption { type = lib.types.listOf lib.types.str; default = [ ]; };
    keys = lib.mkOption { type = lib.types.attrsOf (lib.types.submodule key); default = { }; };
    buildOnTarget = option false;
    replaceUnknownProfiles = option true;
    privilegeEscalationCommand = option [ "sudo" "-H" "--" ];
    sshOptions = option [ ];
    allowLocalDeployment = option false;
  };
}
