# What the original nixus returns: evaluated modules with `config.nodes`. Its nodes have fewer options than ours; the
# others take our defaults.
let
  defaults = import ./defaults.nix;

  # nixus's own default for these is no decision of the user's, and too short for what the node now does in that time.
  unlessDefault = theirs: ours: value: if value == theirs then ours else value;

  # nixus adds its own node script; it is found by name because its packages may no longer evaluate.
  isOurs = path:
    let name = builtins.tryEval (path.name or (baseNameOf path)); in
    name.success && name.value != "switch";
in
{
  name = "nixus";
  description = "the result of nixus (`config.nodes`)";

  detect = { value, ... }: !(value ? driftless) && value ? config && value.config ? nodes;

  open = { value, ... }: {
    format = "nixus";
    names = builtins.attrNames value.config.nodes;
    inherit (defaults) rollout;
    node = name:
      let
        node = value.config.nodes.${name};
        toplevel = node.configuration.system.build.toplevel;
        known = builtins.intersectAttrs
          {
            host = 1;
            hasFastConnection = 1;
            ignoreFailingSystemdUnits = 1;
            privilegeEscalationCommand = 1;
          }
          node;
      in
      if node.enabled or true
      then
        # Its systems look for their secrets where only its own script puts them.
        if (node.configuration.secrets.files or { }) != { }
        then throw "node '${name}' has `secrets.files` of nixus itself, which only nixus's own script sends; import driftless in place of nixus, and they are declared as before"
        else import ../node-spec.nix
          (import ../hooks.nix { inherit name; pkgs = node.configuration._pkgs; } (defaults.node // { host = name; } // known // {
            switchTimeout = unlessDefault 60 defaults.node.switchTimeout (node.switchTimeout or 60);
            successTimeout = unlessDefault 20 defaults.node.successTimeout (node.successTimeout or 20);
            closurePaths = builtins.filter (path: isOurs path && "${path}" != toplevel.outPath) (node.closurePaths or [ ]);
            # nixus's own phases are among them; they are our steps.
            deployScriptPhases = removeAttrs (node.deployScriptPhases or { }) [ "copy-closure" "secrets" "switch" ];
          }))
          toplevel
      else null;
  };
}
