# The NixOS module of the controller: `services.driftless`. It is for the one machine that deploys the others; what a
# deployed machine says about itself is in `modules/nixos.nix`, and what it lets the controller do in `node.nix`.
{ lib, config, pkgs, ... }:
let
  inherit (lib) mkOption mkDefault types;
  cfg = config.services.driftless;
  schema = import ./config-options.nix { inherit lib; };
  configFile = (pkgs.formats.toml { }).generate "driftless.toml" (schema.given cfg.settings);

  unit = "driftless.service";
  # `$CREDENTIALS_DIRECTORY` of a system service (systemd.exec(5)): the configuration names files by their whole paths.
  credential = name: "/run/credentials/${unit}/${name}";
  identities = lib.genList (n: "secrets-identity-${toString n}") (builtins.length cfg.secretsIdentityFiles);
  loaded = lib.optional (cfg.sshKeyFile != null) "ssh-key:${cfg.sshKeyFile}"
    ++ lib.optional (cfg.sourceKeyFile != null) "source-key:${cfg.sourceKeyFile}"
    ++ lib.zipListsWith (name: file: "${name}:${file}") identities cfg.secretsIdentityFiles
    ++ lib.mapAttrsToList (name: file: "${name}:${file}") cfg.credentials;

  # On the controller's machine, readable by root alone. By a string: a path without quotes would be copied to the store.
  secretFile = what: mkOption {
    type = types.nullOr (types.strMatching "/.*");
    default = null;
    description = "${what} Any file that root can read; the service alone sees it, as a credential of systemd.";
  };
in
{
  options.services.driftless = {
    enable = lib.mkEnableOption "the driftless controller, which keeps a fleet of NixOS machines equal to a Git branch";

    package = mkOption {
      type = types.package;
      default = pkgs.driftless or (pkgs.callPackage ./package.nix { });
      defaultText = "the package of this repository";
      description = "The driftless package.";
    };

    settings = mkOption {
      type = types.submodule { inherit (schema) options; };
      default = { };
      example = { source = { url = "https://git.example.org/infra.git"; branch = "main"; deployment = "deployment.nix"; }; };
      description = "The contents of driftless.toml, each key an option of its own; unknown keys are errors.";
    };

    sshKeyFile = secretFile "The private SSH key for the nodes (`ssh.identity_file`).";

    sourceKeyFile = secretFile "The private SSH key, a deploy key, for fetching `source.url`; for HTTPS see `extraPackages`.";

    secretsIdentityFiles = mkOption {
      type = types.listOf (types.strMatching "/.*");
      default = [ ];
      description = "What decrypts the secrets of nodes (`secrets.identity_files`); handed over as `sshKeyFile` is.";
    };

    credentials = mkOption {
      type = types.attrsOf (types.strMatching "/.*");
      default = { };
      example = { signing-key = "/run/keys/driftless-signing-key"; };
      description = ''
        Further files for the service alone, by name. Settings find them at `/run/credentials/driftless.service/NAME`, which is
        also what `config.services.driftless.credentialPath "NAME"` says.
      '';
    };

    credentialPath = mkOption {
      type = types.raw;
      readOnly = true;
      default = credential;
      defaultText = "name: \"/run/credentials/driftless.service/\${name}\"";
      description = "Where the service finds a credential.";
    };

    user = mkOption {
      type = types.str;
      default = "driftless";
      description = ''
        The user that the controller runs as. Its known_hosts are in `~/.ssh`, and its home is the state directory. `root` is
        needed only for deploying to the controller's own machine without SSH, and is not hardened.
      '';
    };

    extraPackages = mkOption {
      type = types.listOf types.package;
      default = [ ];
      description = "Further programs on the controller's PATH, such as Git credential helpers.";
    };
  };

  config = lib.mkIf cfg.enable {
    assertions = [
      {
        # Of the account that may only be deployed to, this module would make one that owns all keys.
        assertion = !(config.services.driftless-node.enable or false) || config.services.driftless-node.user != cfg.user;
        message = "services.driftless.user and services.driftless-node.user are both '${cfg.user}': give the account of driftless-node another name on the controller's own machine";
      }
    ];

    environment.systemPackages = [ cfg.package ];
    environment.etc."driftless/driftless.toml".source = configFile;

    services.driftless.settings = {
      ssh.identity_file = lib.mkIf (cfg.sshKeyFile != null) (mkDefault (credential "ssh-key"));
      secrets.identity_files = lib.mkIf (identities != [ ]) (mkDefault (map credential identities));
    };

    users.users = lib.mkIf (cfg.user == "driftless") {
      driftless = {
        isSystemUser = true;
        group = "driftless";
        home = "/var/lib/driftless";
        description = "driftless controller";
      };
    };
    users.groups = lib.mkIf (cfg.user == "driftless") { driftless = { }; };

    systemd.services.driftless = {
      description = "driftless controller";
      wantedBy = [ "multi-user.target" ];
      wants = [ "network-online.target" ];
      after = [ "network-online.target" "nix-daemon.socket" ];
      path = [ pkgs.git pkgs.nix pkgs.openssh ] ++ cfg.extraPackages;
      environment = {
        HOME = mkDefault "/var/lib/driftless";
        XDG_CACHE_HOME = mkDefault "/var/cache/driftless";
        # Builds happen in the daemon, outside of the restrictions below.
        NIX_REMOTE = mkDefault "daemon";
      } // lib.optionalAttrs (cfg.sourceKeyFile != null) {
        GIT_SSH_COMMAND = "ssh -o BatchMode=yes -o IdentitiesOnly=yes -i ${credential "source-key"}";
      };
      # Never given up: a fleet without its controller drifts in silence.
      unitConfig.StartLimitIntervalSec = 0;
      restartTriggers = [ configFile ];

      serviceConfig = {
        Type = "notify";
        NotifyAccess = "main";
        ExecStart = "${cfg.package}/bin/driftless run --config /etc/driftless/driftless.toml";
        ExecReload = "/bin/sh -c 'kill -HUP $MAINPID'";
        User = cfg.user;
        LoadCredential = loaded;
        Restart = "on-failure";
        RestartSec = mkDefault 5;
        WatchdogSec = mkDefault "2min";
        # Only the controller is told to stop: its connections serve the switches that it still waits for.
        KillMode = "mixed";
        TimeoutStopSec = mkDefault "2min";
        # An evaluation that takes too much memory is killed alone; the controller reports it and goes on.
        OOMPolicy = "continue";
        # One connection is kept per node.
        LimitNOFILE = mkDefault 65536;
        TasksMax = mkDefault 8192;
        StateDirectory = "driftless";
        StateDirectoryMode = "0700";
        CacheDirectory = "driftless";
        CacheDirectoryMode = "0700";
        RuntimeDirectory = "driftless";
        RuntimeDirectoryMode = "0750";
        UMask = mkDefault "0077";

      } // lib.optionalAttrs (cfg.user != "root") {
        # What it may do: talk to the network and to the Nix daemon, and write its own directories.
        CapabilityBoundingSet = mkDefault "";
        AmbientCapabilities = mkDefault "";
        NoNewPrivileges = mkDefault true;
        ProtectSystem = mkDefault "strict";
        ProtectHome = mkDefault true;
        PrivateTmp = mkDefault true;
        # false instead, where ssh signs with a FIDO key.
        PrivateDevices = mkDefault true;
        DevicePolicy = mkDefault "closed";
        ProtectClock = mkDefault true;
        ProtectControlGroups = mkDefault true;
        ProtectHostname = mkDefault true;
        ProtectKernelLogs = mkDefault true;
        ProtectKernelModules = mkDefault true;
        ProtectKernelTunables = mkDefault true;
        ProtectProc = mkDefault "invisible";
        RestrictAddressFamilies = mkDefault [ "AF_UNIX" "AF_INET" "AF_INET6" "AF_NETLINK" ];
        RestrictNamespaces = mkDefault true;
        RestrictRealtime = mkDefault true;
        RestrictSUIDSGID = mkDefault true;
        RemoveIPC = mkDefault true;
        LockPersonality = mkDefault true;
        # false instead, where a credential helper or ProxyCommand compiles at run time (.NET, Node.js).
        MemoryDenyWriteExecute = mkDefault true;
        SystemCallArchitectures = mkDefault "native";
        SystemCallFilter = mkDefault [ "@system-service" ];
        SystemCallErrorNumber = mkDefault "EPERM";
      };
    };
  };
}
