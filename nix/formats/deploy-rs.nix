# A flake's `deploy.nodes`, as deploy-rs has it: the profile `system` of each node, if it is a NixOS system. Settings come
# from the profile, else the node, else `deploy` itself.
let
  defaults = import ./defaults.nix;
  note = condition: setting: reason: if condition then [ { inherit setting reason; } ] else [ ];

  # There is no module system here that would say where a value of the wrong type stands.
  checks = {
    "a string" = builtins.isString;
    "a boolean" = builtins.isBool;
    "an integer" = builtins.isInt;
    "a set" = builtins.isAttrs;
    "a list of strings" = value: builtins.isList value && builtins.all builtins.isString value;
  };
  typed = type: where: set: name:
    let position = builtins.unsafeGetAttrPos name set; in
    if checks.${type} set.${name} then set.${name}
    else throw "`${where}.${name}' is not ${type} but a value of type ${builtins.typeOf set.${name}}${
      if position == null then "" else ", in `${position.file}'"
    }";

  openNode = deploy: name:
    let
      where = "deploy.nodes.${name}";
      node = typed "a set" "deploy.nodes" deploy.nodes name;
      profiles = if node ? profiles then typed "a set" where node "profiles" else { };
      profile = typed "a set" "${where}.profiles" profiles "system";
      places = [
        { where = "${where}.profiles.system"; set = profile; }
        { inherit where; set = node; }
        { where = "deploy"; set = deploy; }
      ];
      saying = setting: builtins.filter ({ set, ... }: set ? ${setting}) places;
      said = type: setting: map ({ where, set }: typed type where set setting) (saying setting);
      get = type: setting: otherwise: let all = said type setting; in if all == [ ] then otherwise else builtins.head all;
      ifSaid = type: setting: ours: if saying setting == [ ] then { } else { ${ours} = get type setting null; };

      words = text: builtins.filter (word: builtins.isString word && word != "") (builtins.split "[[:space:]]+" text);
      system = import ./foreign/activatable.nix profile.path;
      user = get "a string" "user" "root";
      others = map
        (other: {
          setting = "${where}.profiles.${other}";
          reason = "driftless deploys NixOS systems: the profile `system`, and no other";
        })
        (builtins.filter (other: other != "system") (builtins.attrNames profiles));
    in
    if !(profiles ? system)
    then { unsupported = note true where "it has no profile `system`, which is the one that driftless deploys" ++ others; }
    else if system ? why
    then { unsupported = note true "${where}.profiles.system" system.why ++ others; }
    else
      import ./foreign/node.nix {
        inherit (system) toplevel;
        host = if node ? hostname then typed "a string" where node "hostname" else throw "`${where}.hostname' is missing";
        user = get "a string" "sshUser" null;
        sshArguments = builtins.concatLists (said "a list of strings" "sshOpts");
        settings = {
          hasFastConnection = get "a boolean" "fastConnection" false;
          buildOnTarget = get "a boolean" "remoteBuild" false;
          privilegeEscalationCommand = words (get "a string" "sudo" "sudo -u") ++ [ "root" ];
        }
        // ifSaid "an integer" "confirmTimeout" "successTimeout"
        // ifSaid "an integer" "activationTimeout" "switchTimeout";
        unsupported =
          note (!get "a boolean" "magicRollback" true) "magicRollback = false" "a node that cannot be reached after an activation always goes back"
          ++ note (!get "a boolean" "autoRollback" true) "autoRollback = false" "a node whose activation fails always goes back"
          ++ note (get "a boolean" "interactiveSudo" false) "interactiveSudo" "nobody is there to type a password: sudo must ask for none"
          ++ note (user != "root") "user = ${builtins.toJSON user}" "a NixOS system is activated by root"
          ++ note (profile ? profilePath && profile.profilePath != "/nix/var/nix/profiles/system") "profilePath" "a NixOS system is the profile /nix/var/nix/profiles/system"
          ++ note system.own "${where}.profiles.system.path" "its own activation script is not run, only the system's"
          ++ others;
      };
in
{
  name = "deploy-rs";
  description = "a flake with `deploy.nodes`";

  detect = { value, file, ... }: file == null && value ? deploy && value.deploy ? nodes;

  open = { value, ... }: {
    format = "deploy-rs";
    names = builtins.attrNames value.deploy.nodes;
    rollout = defaults.rolloutWith (value.driftless.rollout or { });
    node = openNode value.deploy;
  };
}
