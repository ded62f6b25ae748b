# The options of one node, declared once: `modules/node.nix` uses them for deployments, `modules/nixos.nix` for flakes.
# Never says where a value comes from or what is done with it; that is the manifest's and the Rust side's business.
{ lib, hostDefault }:
let
  inherit (lib) mkOption types;
  inherit ((import ./dag.nix { } lib).types) dagOf;

  seconds = { "s" = 1; "m" = 60; "h" = 3600; "d" = 86400; };
  durationSyntax = "((0|[1-9][0-9]*)[smhd])+";
  inSeconds = value:
    if builtins.isInt value then value
    else if builtins.match durationSyntax value == null
    then throw "'${value}' is no duration; examples are 90, \"90s\", \"1m30s\", \"2h\""
    else
      builtins.foldl' (sum: part: sum + builtins.fromJSON (builtins.elemAt part 0) * seconds.${builtins.elemAt part 1}) 0
        (builtins.filter builtins.isList (builtins.split "([0-9]+)([smhd])" value));

  duration = default: description: mkOption {
    type = types.either types.ints.unsigned (types.strMatching durationSyntax)
      // { description = "duration: a number of seconds, or text such as \"90s\", \"1m30s\" or \"2h\""; };
    inherit default;
    apply = inSeconds;
    example = "1m30s";
    description = "${description} In seconds, or as a string such as \"90s\" or \"1m30s\".";
  };
  flag = default: description: mkOption { type = types.bool; inherit default description; };
  healthChecks = import ./health-options.nix { inherit lib duration inSeconds; };
  option = type: default: description: mkOption { inherit type default description; };
  # The name is part of the format already; a setting that nothing heeds yet is refused rather than accepted in silence.
  onlyYet = name: value: settings: mkOption (settings // {
    apply = wanted:
      if wanted == value then wanted
      else throw "${name} = ${builtins.toJSON wanted} is not supported by this version of driftless; only ${builtins.toJSON value} is";
  });
in
{
  node = {
    enabled = flag true "Whether this node is part of the deployment.";

    host = mkOption {
      type = types.nullOr types.str;
      default = hostDefault;
      example = "root@192.0.2.7";
      description = ''
        How to reach the node over SSH, optionally as `user@host`. The user is root or may escalate privileges
        without a password. `null`: built and checked, never deployed.
      '';
    };

    port = option (types.nullOr types.port) null "The SSH port; `null` leaves it to the SSH configuration.";

    sshOptions = mkOption {
      type = types.attrsOf (types.oneOf [ types.bool types.int types.str ]);
      default = { };
      apply = builtins.mapAttrs (_: value: if builtins.isBool value then (if value then "yes" else "no") else toString value);
      example = { IdentityFile = "/run/keys/deploy"; };
      description = "Further options for this node's generated ssh_config.";
    };

    hostKeys = mkOption {
      type = types.listOf types.str;
      default = [ ];
      example = [ "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA..." ];
      description = "The node's SSH host keys. Empty: the known_hosts of the user who deploys must know the node.";
    };

    tags = mkOption {
      type = types.listOf (types.strMatching "[A-Za-z0-9][A-Za-z0-9._-]{0,62}");
      default = [ ];
      example = [ "web" "canary" ];
      description = "Names for groups of nodes, selected with `@tag`.";
    };

    availability = option (types.enum [ "always" "intermittent" ]) "always"
      "Whether being unreachable is a fault (`always`) or ordinary, as for a laptop (`intermittent`).";

    goal = option (types.enum [ "switch" "boot" "test" ]) "switch"
      "What a deployment does: activate, prove and make it the boot default; prove it at the next reboot; or only activate.";

    onDrift = option (types.enum [ "heal" "report" ]) "heal"
      "Whether a node that is not what Git says is brought back, or only reported.";

    suspended = mkOption {
      type = types.either types.bool types.str;
      default = false;
      apply = value: if value == true then "suspended in the deployment file" else if value == false then null else value;
      example = "disk is being replaced";
      description = "Suspends acting on this node, optionally with the reason. Observing goes on.";
    };

    hasFastConnection = flag false ''
      Whether the connection to this node is fast. If so everything is copied to it directly, else the node fetches
      from its own substituters what they have.
    '';

    switchTimeout = duration 300 "How long an activation may take before the node considers it failed and rolls back.";
    successTimeout = duration 60 "How long the node waits after an activation for a new connection before it rolls back.";
    healthTimeout = duration 60 "How long the node waits for its health checks to pass before it rolls back.";

    ignoreFailingSystemdUnits = flag false "Whether an activation is a success although systemd units fail.";
    ignoreUnits = mkOption {
      type = types.listOf types.str;
      default = [ ];
      example = [ "certbot-*.service" ];
      description = "Units whose failure never fails an activation.";
    };

    privilegeEscalationCommand = option (types.listOf types.str) [ "sudo" ]
      "What runs a command as root when the SSH user is another one.";

    healthChecks = healthChecks "What must hold after an activation and from then on, and (`before`) before one.";

    deployScriptPhases = mkOption {
      type = dagOf types.lines;
      default = { };
      example = lib.literalExpression ''{ drain = lib.dag.entryBefore [ "switch" ] "ssh lb.example.org drain web1"; }'';
      description = ''
        Hooks around the switch: bash, run on the machine that deploys, where `ssh "$HOST"` reaches the node. What comes
        before `switch` can stop it by failing. A controller runs them only with `hooks = "run"` in its configuration.
      '';
    };
    hookTimeout = duration 600 "How long each hook of `deployScriptPhases` may take.";

    reboot.policy = onlyYet "reboot.policy" "never" {
      type = types.enum [ "never" "when-required" "always" ];
      default = "never";
      description = ''
        Whether the node may be rebooted when its running kernel is not the deployed one, or after every deployment.
        This version only reports that a reboot is required.
      '';
    };
    reboot.unproven = flag false ''
      With `goal = "boot"` a system is booted once, and made the boot default when it has proven itself. Whether it is made
      the default without proof where the boot loader cannot boot a system once.
    '';

    lastResort = option (types.enum [ "reboot" "none" ]) "reboot"
      "What a node does that stays out of reach after a rollback. `none` for disks that need a passphrase at boot.";

    buildOnTarget = flag false ''
      Whether the node builds its own system when it is deployed to, instead of the machine where driftless runs. It is
      evaluated there either way.
    '';

    machineId = option (types.nullOr (types.strMatching "[0-9a-f]{32}")) null
      "The /etc/machine-id the node must have; another machine at the same address is then never touched.";

    closurePaths = option (types.listOf types.package) [ ] "Further packages to copy to the node.";
  };

  rollout = {
    maxInFlight = option types.ints.positive 5 "How many nodes are acted on at once.";
    requireAll = flag false "Whether one node that does not evaluate or build holds back all others.";
    healAfter = duration 300 "How long a node may differ from Git by somebody's hand before it is healed.";
    healthChecks = healthChecks "Health checks of every node, beside its own `healthChecks`; of one name, the node's counts.";
  };
}
