# The options that a Colmena hive may set: `deployment.*` in a node, and those of `meta`.
{
  node = { lib, name, ... }:
    let
      inherit (lib) mkOption types;
      option = type: default: description: mkOption { inherit type default description; };
    in
    {
      _file = "driftless/nix/formats/foreign/colmena-options.nix";
      options.deployment = {
        targetHost = option (types.nullOr types.str) name "The host of the node; null: nowhere but on the node itself.";
        targetPort = option (types.nullOr types.ints.unsigned) null "The port of its SSH server.";
        targetUser = option (types.nullOr types.str) "root" "Who logs in; null: whom the SSH configuration says.";
        sshOptions = option (types.listOf types.str) [ ] "Arguments for ssh.";
        privilegeEscalationCommand = option (types.listOf types.str) [ "sudo" "-H" "--" ] "What makes another user root.";
        allowLocalDeployment = option types.bool false "Whether the node may deploy itself.";
        buildOnTarget = option types.bool false "Whether the node builds its own system.";
        replaceUnknownProfiles = option types.bool true "Whether a system that nobody here knows is replaced.";
        tags = option (types.listOf types.str) [ ] "Groups.";
        keys = option (types.attrsOf (types.submodule (import ./key-options.nix))) { } "Files that are not in the store.";
      };
    };

  meta = { lib, ... }:
    let
      inherit (lib) mkOption types;
      option = type: default: description: mkOption { inherit type default description; };
      any = types.attrsOf types.unspecified;
    in
    {
      options = {
        name = option types.str "hive" "What it is called.";
        description = option types.str "" "What it is.";
        nixpkgs = option types.unspecified null "The packages: a path, a function or a set.";
        nodeNixpkgs = option any { } "Other packages for some nodes.";
        specialArgs = option any { } "Further arguments of every module.";
        nodeSpecialArgs = option any { } "Further arguments of the modules of some nodes.";
        machinesFile = option (types.nullOr types.path) null "Builders.";
        allowApplyAll = option types.bool true "Whether everything may be deployed at once.";
      };
    };
}
