# `ssh.access`: which keys on which nodes may log in where. From one description the targets get authorized keys and the
# sources the targets' host keys. Never makes a user: whom a key logs in as is declared on the node.
{ lib, config, options, ... }:
let
  inherit (lib) mkOption types;
  cfg = config.ssh.access;
  mistakes = import ./mistakes.nix { inherit lib; option = options.ssh.access; inherit (config) nodes; };
  inherit (mistakes) isNode noNode;

  # Read from a file, a key ends with a newline; two keys in one would silently be more than was meant.
  key = types.addCheck types.str (text: builtins.match "[^\n]+\n?" text != null)
    // { name = "key"; description = "public key on one line"; };
  keyOption = description: mkOption { type = key; apply = lib.removeSuffix "\n"; inherit description; };

  host.options = {
    hostKeys = mkOption {
      type = types.attrsOf key;
      default = { };
      apply = builtins.mapAttrs (_: lib.removeSuffix "\n");
      example = { ed25519 = "ssh-ed25519 AAAA..."; };
      description = "The public host keys of this node, under any names. Needed where somebody has access to it.";
    };
    hostNames = mkOption {
      type = types.listOf types.str;
      default = [ ];
      example = [ "192.0.2.7" "web.example.org" ];
      description = "Under what it is reached beside its node name: addresses, names.";
    };
    keys = mkOption {
      type = types.attrsOf (types.submodule {
        options = {
          publicKey = keyOption "The public key.";
          hasAccessTo = mkOption {
            type = types.attrsOf (types.attrsOf types.bool);
            default = { };
            example = { web.deploy = true; };
            description = "`NODE.USER = true`: may log in there as that user.";
          };
        };
      });
      default = { };
      description = "The keys that are used on this node, under any names.";
    };
  };

  # Every access that is given: { from, key, to, user }. Asks for no key.
  accesses = builtins.concatLists (builtins.concatLists (builtins.concatLists (
    lib.mapAttrsToList
      (from: fromHost: lib.mapAttrsToList
        (key: fromKey: lib.mapAttrsToList
          (to: users: map (user: { inherit from key to user; }) (builtins.filter (user: users.${user}) (builtins.attrNames users)))
          fromKey.hasAccessTo)
        fromHost.keys)
      cfg
  )));
  givenTo = name: builtins.filter (access: access.to == name) accesses;
  givenFrom = name: builtins.filter (access: access.from == name) accesses;
  publicKey = access: cfg.${access.from}.keys.${access.key}.publicKey;
  pathOf = access: [ access.from "keys" access.key "hasAccessTo" access.to ];

  authorized = name: { config, ... }: {
    _file = "driftless: ssh.access";
    config = {
      users.users = builtins.mapAttrs
        (_: given: { openssh.authorizedKeys.keys = lib.unique (map publicKey given); })
        (builtins.groupBy (access: access.user) (givenTo name));
      # NixOS would complain of a user that is half declared, and not say by whom.
      assertions = map
        (access:
          let user = config.users.users.${access.user}; in {
            assertion = access.user == "root" || user.isNormalUser or false || user.isSystemUser or false;
            message = mistakes.at (pathOf access ++ [ access.user ]) "node ${name} declares no user '${access.user}'";
          })
        (givenTo name);
    };
  };

  known = name: {
    _file = "driftless: ssh.access";
    programs.ssh.knownHosts = lib.mkMerge (map
      (to: lib.mapAttrs'
        (keyName: publicKey: lib.nameValuePair "${to}-${keyName}" {
          hostNames = lib.unique ([ to ] ++ cfg.${to}.hostNames ++ lib.optional (to == name) "localhost");
          inherit publicKey;
        })
        (cfg.${to}.hostKeys or { }))
      (lib.unique (map (access: access.to) (givenFrom name))));
  };
in
{
  options.ssh.access = mkOption {
    type = types.attrsOf (types.submodule host);
    default = { };
    example = lib.literalExpression ''
      {
        backup.keys.root = { publicKey = "ssh-ed25519 AAAA..."; hasAccessTo.db.dump = true; };
        db.hostKeys.ed25519 = "ssh-ed25519 AAAA...";
      }
    '';
    description = "Which keys on which nodes may log in on which nodes as whom; by node.";
  };

  config.defaults = { name, ... }: {
    imports = [
      (mistakes.assertions {
        everywhere =
          map (host: noNode [ host ] host) (builtins.filter (host: !(isNode host)) (builtins.attrNames cfg))
          ++ map (access: noNode (pathOf access) access.to) (builtins.filter (access: !(isNode access.to)) accesses);
        of = name: map
          (access: mistakes.at (pathOf access) "node ${name} cannot know whom it talks to: ssh.access.${access.to}.hostKeys is empty")
          (builtins.filter (access: isNode access.to && cfg.${access.to}.hostKeys or { } == { }) (givenFrom name));
      })
    ];
    configuration.imports = [ (authorized name) (known name) ];
  };
}
