# The NixOS module of a machine that is deployed to with as few rights as that takes: `services.driftless-node`. An account
# of its own that has no shell, keys that lead to one program, and one sudo rule for that program. It changes nothing where
# it is not enabled, and nothing about how others log in.
{ lib, config, options, pkgs, ... }:
let
  inherit (lib) mkOption types;
  cfg = config.services.driftless-node;

  program = import ./node/package.nix {
    inherit lib;
    inherit (pkgs) writeTextFile runtimeShell;
    inherit (cfg) copies trustedPublicKeys;
    account = cfg.user;
    escalation =
      if cfg.escalation == "sudo" then [ "${config.security.wrapperDir}/sudo" "-n" ]
      else [ "${config.security.wrapperDir}/doas" "-n" ];
  };
  # By the system that runs, whichever that is: a connection that outlives a switch goes on with the new one's.
  path = "/run/current-system/sw/bin/driftless-node";

  trusted = config.nix.settings.trusted-users or [ ];
  # A word or a list of words, as nix.conf has it.
  trustedUsers = if builtins.isString trusted then lib.splitString " " trusted else trusted;
  group = lib.findFirst (user: user == "*" || user == cfg.user || user == "@${cfg.user}") null trustedUsers;

  checkName = "[A-Za-z0-9][A-Za-z0-9._-]{0,99}";
  checkNames = builtins.concatMap builtins.attrNames [ cfg.checks cfg.httpChecks cfg.tcpChecks ];
  healthChecks = import ./health-checks.nix;
  files = folder: text: lib.mapAttrs' (name: check: lib.nameValuePair "driftless-node/${folder}/${name}" { text = text check; });
in
{
  options.services.driftless-node = {
    enable = lib.mkEnableOption "deployments by driftless to an account that can do nothing else";

    user = mkOption {
      type = types.strMatching "[a-z_][a-z0-9_-]{0,30}";
      default = "driftless";
      description = "The account. The deployment's `host` is then `USER@this-machine`.";
    };

    authorizedKeys = mkOption {
      type = types.listOf types.singleLineStr;
      default = [ ];
      example = [ "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA... driftless@controller" ];
      description = "Public SSH keys of the controller, and of whoever else may deploy: keys alone, without options.";
    };

    from = mkOption {
      type = types.listOf (types.strMatching "[0-9A-Za-z.:*?!/-]+");
      default = [ ];
      example = [ "192.0.2.10" "fd00::/64" ];
      description = "Addresses from which the keys are accepted, as in `from=` of sshd(8); none: from everywhere.";
    };

    copies = mkOption {
      type = types.enum [ "signed" "trusted" ];
      default = "signed";
      description = ''
        Which systems may be brought here. With `"signed"` only those that one of `trustedPublicKeys` has signed, or that
        were installed here before: who has the SSH key alone can start nothing of his own. With `"trusted"` copies are taken
        as root's, without signatures: whoever has the SSH key is root in effect.
      '';
    };

    trustedPublicKeys = mkOption {
      type = types.listOf (types.strMatching "[^ :]+:[A-Za-z0-9+/=]+");
      default = [ ];
      example = [ "controller.example.org-1:kFnRqHGZJLgZOFsnvgmKpcs60vHVMRRgWmVpjNNbXkQ=" ];
      description = ''
        Public keys of those who sign the systems (`nix key generate-secret`). Nix is told to trust them, beside its own. A
        system counts as signed only by one of these, not by one of a public cache.
      '';
    };

    checks = mkOption {
      type = types.attrsOf types.lines;
      default = { };
      example = { web = "curl --fail --silent --max-time 5 http://127.0.0.1/health"; };
      description = ''
        Health checks by name, run as root when the deployment's `healthChecks.commands` has a check of that name. The command
        is the one that stands here: who deploys cannot send another. In a deployment of driftless's own format, and with
        `nixosModules.default`, those of `healthChecks.commands` stand here by themselves.
      '';
    };

    httpChecks = mkOption {
      type = types.attrsOf types.attrs;
      default = { };
      example = { web = { url = "http://localhost/health"; }; };
      description = ''
        Requests by name, as in `healthChecks.http` with `from = "node"`, made by the account's own curl when the deployment has
        a check of that name. In the same deployments as with `checks`, they stand here by themselves; the name of one that is
        asked before a switch begins with `before.`.
      '';
    };

    tcpChecks = mkOption {
      type = types.attrsOf types.attrs;
      default = { };
      example = { db = { host = "localhost"; port = 5432; }; };
      description = "The same for `healthChecks.tcp`.";
    };

    escalation = mkOption {
      type = types.enum [ "sudo" "doas" ];
      default = "sudo";
      description = "What makes the program root. Either module has to be enabled.";
    };

    package = mkOption {
      type = types.package;
      default = program;
      defaultText = "the scripts of this driftless";
      readOnly = true;
      description = "The program that the keys lead to.";
    };
  };

  config = lib.mkIf cfg.enable {
    assertions = [
      {
        assertion = cfg.copies == "trusted" || cfg.trustedPublicKeys != [ ];
        message = ''services.driftless-node needs trustedPublicKeys, for it takes signed systems alone; or copies = "trusted", with which the SSH key is as good as root'';
      }
      {
        assertion = cfg.copies == "trusted" || group == null;
        message = ''services.driftless-node.copies = "signed" means nothing while nix.settings.trusted-users has "${toString group}": Nix would take unsigned copies from ${cfg.user}'';
      }
      {
        assertion = config.nix.settings.require-sigs or true || cfg.copies == "trusted";
        message = ''services.driftless-node.copies = "signed" means nothing while nix.settings.require-sigs is false'';
      }
      {
        assertion = config.security.${cfg.escalation}.enable;
        message = "services.driftless-node.escalation is ${cfg.escalation}, and security.${cfg.escalation}.enable is false";
      }
      {
        assertion = builtins.all (key: builtins.match "(ssh|ecdsa|sk)-[^\"]*" key != null) cfg.authorizedKeys;
        message = "services.driftless-node.authorizedKeys are public keys that begin with their type: the options before it are this module's";
      }
      {
        assertion = builtins.all (name: builtins.match checkName name != null) checkNames;
        message = "services.driftless-node.checks: a name is 1 to 100 letters, digits, '.', '_' and '-', a letter or digit first; ${
          toString (map builtins.toJSON (builtins.filter (name: builtins.match checkName name == null) checkNames))
        } is none";
      }
    ];

    users.users.${cfg.user} = {
      isSystemUser = true;
      group = cfg.user;
      description = "deployments by driftless";
      home = "/var/empty";
      createHome = false;
      # Also where something else than a key of this module leads to the account: there is no shell behind it.
      shell = program;
      openssh.authorizedKeys.keys = map
        (key: ''restrict,${lib.optionalString (cfg.from != [ ]) ''from="${lib.concatStringsSep "," cfg.from}",''}command="${path} gate" ${key}'')
        cfg.authorizedKeys;
    };
    users.groups.${cfg.user} = { };

    environment.systemPackages = [ program ];

    environment.etc = {
      # What the deploying machine looks for, in order not to send the scripts.
      "driftless-node/protocol".text = program.protocol + "\n";
    }
    // files "checks" (text: text) cfg.checks
    // files "http" healthChecks.curlConfig cfg.httpChecks
    // files "tcp" (check: healthChecks.tcpLine ({ host = "localhost"; } // check)) cfg.tcpChecks;

    # A key that comes from elsewhere (~/.ssh, another module) leads to nothing more.
    services.openssh.extraConfig = lib.mkAfter ''
      Match User ${cfg.user}
        AuthenticationMethods publickey
        AuthorizedKeysFile /etc/ssh/authorized_keys.d/%u
        ForceCommand ${path} gate
        DisableForwarding yes
        PermitTTY no
        PermitUserRC no
        PermitTunnel no
      Match All
    '';

    security.sudo.extraRules = lib.mkIf (cfg.escalation == "sudo") (lib.mkAfter [
      {
        users = [ cfg.user ];
        runAs = "root";
        commands = [{ command = "${path} as-root *"; options = [ "NOPASSWD" ]; }];
      }
    ]);

    security.doas.extraRules = lib.mkIf (cfg.escalation == "doas") (lib.mkAfter [
      { users = [ cfg.user ]; runAs = "root"; noPass = true; cmd = path; }
    ]);

    nix = lib.optionalAttrs (options.nix ? settings) {
      settings = {
        trusted-public-keys = cfg.trustedPublicKeys;
        require-sigs = lib.mkDefault true;
      };
    };
  };
}
