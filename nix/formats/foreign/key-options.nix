# The options of one key of Colmena or NixOps: read by modules (`config.deployment.keys.NAME.path`) and by us. Sets nothing up.
{ lib, name, config, ... }:
let
  inherit (lib) mkOption types;
  option = type: default: description: mkOption { inherit type default description; };
in
{
  options = {
    name = option types.str name "The name of the file.";
    text = option (types.nullOr types.str) null "What is in the file.";
    keyFile = mkOption {
      type = types.nullOr types.path;
      default = null;
      # A string, so that reading it does not copy the key into the store.
      apply = value: if value == null then null else toString value;
      description = "The file that it is copied from.";
    };
    keyCommand = option (types.nullOr (types.listOf types.str)) null "The command that prints it.";
    destDir = option types.path "/run/keys" "The folder of the file.";
    path = option types.path "${config.destDir}/${config.name}" "The file.";
    user = option types.str "root" "Its owner.";
    group = option types.str "root" "Its group.";
    permissions = option types.str "0600" "Its mode.";
    uploadAt = option (types.enum [ "pre-activation" "post-activation" ]) "pre-activation" "Whether it is sent before or after the activation.";
  };
}
