# The NixOS module of the controller: `services.driftless`. It is for the one machine that deploys the others; what a
# deployed machine says about itself is in `modules/nixos.nix`.
{ lib, config, pkgs, ... }:
let
  inherit (lib) mkOption mkDefault types;
  cfg = config.services.driftless;
  format = pkgs.formats.toml { };
  configFile = format.generate "driftless.toml" cfg.settings;
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
      type = format.type;
      default = { };
      example = { source = { url = "https://git.example.org/infra.git"; branch = "main"; deployment = "deployment.nix"; }; };
      description = "The contents of driftless.toml; `deploy/driftless.example.toml` documents every key.";
    };

    user = mkOption {
      type = types.str;
      default = "driftless";
      description = ''
        The user that the controller runs as. Its SSH key and known_hosts are in `~/.ssh`, and its home is the state
        directory. `root` is needed only for deploying to the controller's own machine without SSH.
      '';
    };

    extraPackages = mkOption {
      type = types.listOf types.package;
      default = [ ];
      description = "Further programs on the controller's PATH, such as Git credential helpers.";
    };
  };

  config = lib.mkIf cfg.enable {
    environment.systemPackages = [ cfg.package ];
    environment.etc."driftless/driftless.toml".source = configFile;

    users.users = lib.mkIf (cfg.user == "driftless") {
      driftless = { isSystemUser = true; group = "driftless"; home = "/var/lib/driftless"; description = "driftless controller"; };
    };
    users.groups = lib.mkIf (cfg.user == "driftless") { driftless = { }; };

    systemd.services.driftless = {
      description = "driftless controller";
      wantedBy = [ "multi-user.target" ];
      wants = [ "network-online.target" ];
      after = [ "network-online.target" "nix-daemon.socket" ];
      path = [ pkgs.git pkgs.nix pkgs.openssh ] ++ cfg.extraPackages;
      environment.HOME = mkDefault "/var/lib/driftless";
      # Never given up: a fleet without its controller drifts in silence.
      unitConfig.StartLimitIntervalSec = 0;
      restartTriggers = [ configFile ];

      serviceConfig = {
        Type = "notify";
        ExecStart = "${cfg.package}/bin/driftless run --config /etc/driftless/driftless.toml";
        ExecReload = "/bin/sh -c 'kill -HUP $MAINPID'";
        User = cfg.user;
        Restart = "on-failure";
        RestartSec = mkDefault 5;
        WatchdogSec = mkDefault "2min";
        # Only the controller is told to stop: its connections serve the switches that it still waits for.
        KillMode = "mixed";
        TimeoutStopSec = mkDefault "2min";
        # An evaluation that takes too much memory is killed alone; the controller reports it and goes on.
        OOMPolicy = "continue";
        StateDirectory = "driftless";
        StateDirectoryMode = "0700";
        RuntimeDirectory = "driftless";
        RuntimeDirectoryMode = "0750";

        # Its own writable places are the state and the runtime directory; the store is written by nix-daemon.
        ProtectSystem = mkDefault "strict";
        ProtectHome = mkDefault true;
        PrivateTmp = mkDefault true;
        PrivateDevices = mkDefault true;
        ProtectClock = mkDefault true;
        ProtectControlGroups = mkDefault true;
        ProtectKernelLogs = mkDefault true;
        ProtectKernelModules = mkDefault true;
        ProtectKernelTunables = mkDefault true;
        RestrictAddressFamilies = mkDefault [ "AF_UNIX" "AF_INET" "AF_INET6" "AF_NETLINK" ];
        RestrictRealtime = mkDefault true;
        RestrictSUIDSGID = mkDefault true;
        LockPersonality = mkDefault true;
        SystemCallArchitectures = mkDefault "native";
        NoNewPrivileges = mkDefault true;
        UMask = mkDefault "0077";
      };
    };
  };
}
