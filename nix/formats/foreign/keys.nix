# Keys and secrets of other tools → our `secrets.files`, with a link where the other tool puts the file. Never looks at what is
# in one: it is read where driftless runs, at the time of a deployment.
#
# Takes { setting, services } and a list of { name, path, user, group, mode, text, file, command }, gives { isEmpty,
# unsupported, module }: what cannot be sent and why, and a NixOS module for the others.
{
  # As the other tool calls them, for messages.
  setting
  # Whether units NAME-key are wanted, which tell that the file is there.
, services ? false
}:
keys:
let
  written = name: if builtins.match "[A-Za-z_][A-Za-z0-9_-]*" name != null then name else builtins.toJSON name;
  isInStore = path: builtins.substring 0 (builtins.stringLength builtins.storeDir) path == builtins.storeDir;

  against = key:
    if builtins.match "[A-Za-z0-9][A-Za-z0-9._-]{0,99}" key.name == null || builtins.match ".*\\.drv" key.name != null
    then "a secret's name is 1 to 100 letters, digits, '.', '_' or '-', starting with a letter or digit, and does not end in .drv"
    else if builtins.match "0?[0-7]{3}" key.mode == null
    then "its permissions ${builtins.toJSON key.mode} are not of the form \"0400\""
    else if key.file == null && key.command == null
    then "its content is in the deployment, and so in Git and in the Nix store: send a file or the output of a command, or encrypt it with age"
    else if key.file != null && isInStore key.file
    then "its file is in the Nix store, as every file of a flake is, which everybody can read: name one outside of the repository, or encrypt it with age"
    else null;
  usable = builtins.filter (key: against key == null) keys;
in
{
  isEmpty = usable == [ ];

  unsupported = map (key: { setting = "${setting}.${written key.name}"; reason = against key; })
    (builtins.filter (key: against key != null) keys);

  module = { lib, config, ... }:
    let
      link = key: ''
        mkdir -p ${lib.escapeShellArg (dirOf key.path)}
        ln -sfn ${lib.escapeShellArg config.secrets.files.${key.name}.file} ${lib.escapeShellArg "${key.path}.new"}
        mv -fT ${lib.escapeShellArg "${key.path}.new"} ${lib.escapeShellArg key.path}
      '';
      # What an earlier system linked there and this one does not know.
      sweep = folder: ''
        for link in ${lib.escapeShellArg folder}/*; do
          if [ -L "$link" ] && [ ! -e "$link" ]; then
            case $(readlink "$link") in ${lib.escapeShellArg config.secrets.baseDirectory}/*) rm -f "$link" ;; esac
          fi
        done
      '';
    in
    {
      imports = [ ../../modules/secrets.nix ];

      config = {
        secrets.files = builtins.listToAttrs (map
          (key: {
            inherit (key) name;
            value = { inherit (key) user group mode; always = true; }
              // (if key.file != null then { inherit (key) file; } else { inherit (key) command; });
          })
          usable);

        system.activationScripts.driftless-keys = lib.stringAfter [ "driftless-secrets" ]
          (lib.concatMapStrings link usable + lib.concatMapStrings sweep (lib.unique (map (key: dirOf key.path) usable)));

        systemd.services = lib.mkIf services (builtins.listToAttrs (map
          (key: {
            name = "${key.name}-key";
            value = {
              description = "The key ${key.name} is there";
              script = "test -e ${lib.escapeShellArg key.path}";
              serviceConfig = { Type = "oneshot"; RemainAfterExit = true; };
            };
          })
          usable));
      };
    };
}
