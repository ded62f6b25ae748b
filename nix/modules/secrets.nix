# A NixOS module: `secrets.files.NAME`, with nixus's names. It says which secrets a system may use, and has the system put
# those that were brought to it in place, by the script beside this file. No content of a secret is ever read here: the
# store and whoever evaluates know names, paths and ciphertext.
#
# Which secrets a system really uses is told by its closure. `.file`, read back, is a path on the node with the hash of a
# marker in it, a file of the store that says no more than what is declared. Where that path went into something, Nix finds
# the hash there, and the marker is in the closure.
{ lib, config, pkgs, ... }:
let
  inherit (lib) mkOption types;
  cfg = config.secrets;

  account = types.strMatching "[A-Za-z_][A-Za-z0-9_.-]*[$]?|[0-9]+";

  secret = { name, config, options, ... }:
    let
      known = builtins.filter (source: source.value != null) [
        { kind = "file"; value = plainFile; }
        { kind = "command"; value = config.command; }
        { kind = "age"; value = config.age; }
      ];
      source =
        if builtins.match "[A-Za-z0-9][A-Za-z0-9._-]{0,99}" name == null || lib.hasSuffix ".drv" name
        then throw "secrets.files: '${name}' is no name for a secret: 1 to 100 letters, digits, '.', '_' and '-', a letter or digit first, and not .drv last"
        else if builtins.length known != 1
        then throw "secrets.files.${name} needs exactly one of `file`, `command` and `age`, and has ${
          if known == [ ] then "none" else lib.concatMapStringsSep " and " (s: "`${s.kind}`") known
        }"
        else (builtins.head known).kind;

      # As it was given: read back, it is the path on the node. Never as a path, which would go into the store.
      given = builtins.head (options.file.definitions ++ [ null ]);
      plainFile =
        if given == null then null
        else if lib.hasPrefix builtins.storeDir (toString given)
        then throw "secrets.files.${name}.file would be in the Nix store, which everybody on this machine and on the node can read; encrypt it and use `age`, or name a file outside of the repository by a string"
        else toString given;

      # A file that is not there stops nobody from evaluating: `driftless secrets edit` is about to make it.
      stored =
        if builtins.pathExists config.age
        then builtins.path { name = "${name}.age"; path = config.age; }
        else null;
      ciphertext =
        if source != "age" || stored == null then null
        # Only where the node decrypts does the ciphertext go along with the system.
        else if config.decrypt == "node" then stored
        else builtins.unsafeDiscardStringContext stored;

      # All that makes a system another one: what it is owned by, and its ciphertext where that is in Git.
      marker = builtins.toFile name (builtins.toJSON {
        inherit name source ciphertext;
        inherit (config) user group mode;
        directory = cfg.baseDirectory;
      });
      path = builtins.seq source "${cfg.baseDirectory}/${baseNameOf marker}";
    in
    {
      options = {
        file = mkOption {
          type = types.nullOr types.path;
          default = null;
          apply = _: path;
          example = "/home/alice/secrets/db-password";
          description = ''
            The secret's content, as a file on the machine that deploys. Read back, it is the path on the node: use
            `config.secrets.files.NAME.file` wherever a path is wanted.
          '';
        };
        command = mkOption {
          type = types.nullOr (types.nonEmptyListOf types.str);
          default = null;
          example = [ "pass" "show" "db/password" ];
          description = "A command, run on the machine that deploys, that prints the secret. No shell is involved.";
        };
        age = mkOption {
          type = types.nullOr types.path;
          default = null;
          example = "./secrets/db-password.age";
          description = "A file of the repository, encrypted with age. `driftless secrets edit FILE` makes and changes it.";
        };
        decrypt = mkOption {
          type = types.enum [ "controller" "node" ];
          default = "controller";
          description = ''
            Who decrypts `age`: the machine that deploys, with its identity, or the node, with its SSH host key. The latter
            never leaves the node's memory in the clear.
          '';
        };
        recipients = mkOption {
          type = types.listOf types.str;
          default = [ ];
          description = "Who else may decrypt `age`: age and SSH public keys, beside `secrets.recipients`.";
        };
        user = mkOption {
          type = types.nullOr account;
          default = null;
          description = "The owner, by name or number; `null`: root.";
        };
        group = mkOption {
          type = types.nullOr account;
          default = null;
          description = "The group, by name or number; `null`: root.";
        };
        mode = mkOption {
          type = types.strMatching "0?[0-7]{3}";
          default = if config.group == null then "0400" else "0440";
          defaultText = "\"0400\"; \"0440\" where a group is set";
          description = "The permissions.";
        };
        always = mkOption {
          type = types.bool;
          default = false;
          description = ''
            Whether it is sent although nothing in the system refers to `.file`: for a path that is written by hand,
            `''${config.secrets.baseDirectory}/NAME`.
          '';
        };
        entry = mkOption {
          type = types.attrs;
          internal = true;
          readOnly = true;
          description = "What the manifest says of it.";
          default = {
            inherit path marker;
            inherit (config) mode;
            user = if config.user == null then "root" else config.user;
            group = if config.group == null then "root" else config.group;
            source =
              if source == "file" then { file = plainFile; }
              else if source == "command" then { inherit (config) command; }
              else {
                age = {
                  file = toString config.age;
                  inherit stored;
                  inherit (config) decrypt;
                  recipients = cfg.recipients ++ config.recipients;
                };
              };
          };
        };
      };
    };

  secrets = builtins.attrValues cfg.files;
  decryptsHere = builtins.any (secret: secret.decrypt == "node") secrets;

  # Numbers are known to everybody, and root has no need to be declared.
  isKnown = declared: name:
    name == null || name == "root" || builtins.match "[0-9]+" name != null
    || builtins.any (attribute: (declared.${attribute}.name or attribute) == name) (builtins.attrNames declared);
  strangers = declared: what:
    builtins.filter (name: !isKnown declared cfg.files.${name}.${what}) (builtins.attrNames cfg.files);
  assertKnown = declared: what: map
    (name: {
      assertion = false;
      message = "secrets.files.${name}.${what} is '${cfg.files.${name}.${what}}', and no such ${what} is declared in users.${what}s; one that this configuration does not make is given by its number";
    })
    (strangers declared what);

  activate = pkgs.writeScript "driftless-activate-secrets" ''
    #!${pkgs.runtimeShell}
    exec ${pkgs.runtimeShell} ${./activate-secrets.sh} "$0" "$1" ${lib.escapeShellArgs ([
      cfg.baseDirectory
      (if cfg.files == { } then "none" else "declared")
      (if decryptsHere then "${pkgs.age}/bin/age" else "-")
    ] ++ cfg.hostKeyFiles)}
  '';
in
{
  options.secrets = {
    baseDirectory = mkOption {
      # A path may be written without quotes: as text it is not copied anywhere.
      type = types.coercedTo types.path toString (types.strMatching "(/[A-Za-z0-9._-]+)+");
      default = "/run/driftless-secrets";
      description = ''
        Where the secrets of the running system are found on the node: a link, which activation points to its own set.
      '';
    };
    recipients = mkOption {
      type = types.listOf types.str;
      default = [ ];
      example = [ "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p" "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA..." ];
      description = ''
        Public keys, of age or SSH, to which `driftless secrets edit` and `rekey` encrypt: those of the people who edit, and
        that of the controller. The host keys of nodes that decrypt for themselves are added.
      '';
    };
    hostKeyFiles = mkOption {
      type = types.listOf types.str;
      default = [ "/etc/ssh/ssh_host_ed25519_key" "/etc/ssh/ssh_host_rsa_key" ];
      description = "With which of its own keys a node decrypts; those that are not there are passed over.";
    };
    files = mkOption {
      type = types.attrsOf (types.submodule secret);
      default = { };
      description = "The secrets, by name.";
    };
  };

  config = {
    assertions = assertKnown config.users.users "user" ++ assertKnown config.users.groups "group";

    system.build.driftlessSecrets = builtins.mapAttrs (_: secret: secret.entry) cfg.files;

    # Also where there are none: what an earlier system had is taken away. By name users and groups exist only now.
    system.activationScripts.driftless-secrets = lib.stringAfter [ "users" "groups" ] ''
      ${lib.concatMapStrings (secret: "# ${secret.file}\n") (builtins.filter (secret: secret.always) secrets)}
      ${activate} "$systemConfig"
    '';
  };
}
