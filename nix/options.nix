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

  selector = types.str // {
    description = "selector: names, globs and @tags, joined by `,`, `and`, `or` and `not`";
  };
  share = types.strMatching "(100|[1-9]?[0-9])%" // { description = "share from \"0%\" to \"100%\""; };
  amount = types.either types.ints.unsigned share;
  clock = "([01][0-9]|2[0-3]):[0-5][0-9]";
  date = types.strMatching "[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])"
    // { description = "date such as \"2026-12-20\""; };

  # Times of a calendar: those of a window, and those of a node's reboots.
  span = {
    days = mkOption {
      type = types.listOf (types.enum [ "mon" "tue" "wed" "thu" "fri" "sat" "sun" ]);
      default = [ ];
      example = [ "sat" "sun" ];
      description = "On which days of the week; none: on all. Hours past midnight belong to the day on which they begin.";
    };
    hours = mkOption {
      type = types.nullOr (types.strMatching "${clock}-(${clock}|24:00)"
        // { description = "part of a day such as \"09:00-17:00\""; });
      default = null;
      example = "22:00-04:00";
      description = "From when to when; `null`: the whole day. An end that is not after the beginning is on the next day.";
    };
    from = option (types.nullOr date) null "The first day.";
    until = option (types.nullOr date) null "The last day.";
    timeZone = mkOption {
      type = types.str;
      example = "Europe/Berlin";
      description = "Whose clock and calendar: a name of the IANA database.";
    };
  };

  wave = {
    on = mkOption {
      type = selector;
      example = "@canary and not mail";
      description = "Which nodes. A node belongs to the first wave that selects it.";
    };
    soak = duration 0 "How long all nodes of the wave must have been well before the next one begins.";
    maxInFlight = option (types.nullOr types.ints.positive) null
      "How many of its nodes are acted on at once; `null`: as many as of the fleet.";
    maxUnavailable = mkOption {
      type = types.nullOr amount;
      default = null;
      example = "20%";
      description = ''
        How many of its nodes may be worked on, unreachable or degraded at once: a number, or a share of the wave, rounded
        down. One always may. `null`: no limit.
      '';
    };
    maxFailures = mkOption {
      type = amount;
      default = 0;
      example = "10%";
      description = ''
        On how many of its nodes a release may fail before the wave and all later ones are halted: a number, or a share of
        the wave, rounded down.
      '';
    };
    order = mkOption {
      type = types.listOf selector;
      default = [ ];
      example = [ "db-replica*" "db-primary" ];
      description = "Which of its nodes go first where not all may at once. The rest follows by name.";
    };
    approval = flag false "Whether a person must approve each release before the wave begins.";
  };

  window = span // {
    on = option selector "*" "For which nodes.";
    effect = option (types.enum [ "allow" "deny" ]) "allow" ''
      Whether nodes may be acted on while the window is open, or may not. A node that windows which allow select is acted on
      only while one of them is open; a window that denies wins.
    '';
  };
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

    after = mkOption {
      type = types.listOf selector;
      default = [ ];
      example = [ "db1" ];
      description = "This node gets a release only when all nodes that these select are done with it.";
    };

    approval = flag false "Whether a person must approve each release of this node.";

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

    reboot.policy = option (types.enum [ "never" "when-required" "always" ]) "never" ''
      When driftless reboots the node: never, so that a reboot which is required is only reported; when its booted kernel,
      initrd or kernel modules are not those of the running system; or after every deployment.
    '';
    reboot.window = mkOption {
      type = types.nullOr (types.submodule { options = span; });
      default = null;
      example = { days = [ "sun" ]; hours = "02:00-04:00"; timeZone = "Europe/Berlin"; };
      description = "The node is rebooted at these times only, and only while the windows of the fleet are open too.";
    };
    reboot.timeout = duration 600 "How long the node may take to come back from a reboot.";
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
    waves = mkOption {
      type = types.listOf (types.submodule { options = wave; });
      default = [ { on = "*"; } ];
      # Where there is no module system, there are only durations as people write them.
      apply = map (given: given // (if given ? soak then { soak = inSeconds given.soak; } else { }));
      example = [ { on = "@canary"; soak = "10m"; } { on = "*"; maxUnavailable = "20%"; } ];
      description = ''
        In which order nodes get a release. A wave begins when every node of the waves before it is done and has soaked. A
        node belongs to the first wave that selects it.
      '';
    };
    maxInFlight = option types.ints.positive 5 "How many nodes are acted on at once.";
    onFailure = option (types.enum [ "halt" "rollback" ]) "halt" ''
      What is done when a release fails on more nodes of a wave than `maxFailures`: no further node gets it, or those that
      have got it also go back to what they ran before.
    '';
    unreachable = option (types.enum [ "skip" "wait" ]) "skip" ''
      Whether waves wait for nodes that do not answer. They never wait for one with `availability = "intermittent"`.
    '';
    windows = mkOption {
      type = types.listOf (types.submodule { options = window; });
      default = [ ];
      example = [
        { on = "@office"; days = [ "sat" "sun" ]; timeZone = "Europe/Berlin"; }
        { effect = "deny"; from = "2026-12-20"; until = "2027-01-02"; timeZone = "Europe/Berlin"; }
      ];
      description = "When nodes may be acted on. They hold back releases, healing and reboots, not the taking back of a release.";
    };
    approvalExpires = duration 86400 "How long an approval holds.";
    requireAll = flag false "Whether one node that does not evaluate or build holds back all others.";
    healAfter = duration 300 "How long a node may differ from Git by somebody's hand before it is healed.";
    healthChecks = healthChecks "Health checks of every node, beside its own `healthChecks`; of one name, the node's counts.";
  };
}
