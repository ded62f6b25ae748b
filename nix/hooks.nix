# `deployScriptPhases` of one node → its hooks: in order, each with the point at which it runs and its script, built for
# the machine that deploys. Never runs one; that is the Rust side's, and in a controller only with permission.
{ pkgs, name }:
node:
let
  inherit (pkgs.lib.extend (import ./dag.nix)) dag makeBinPath;
  option = "nodes.${name}.deployScriptPhases";
  phases = node.deployScriptPhases or { };

  # What driftless does itself, under the names that nixus has for it.
  ownSteps = {
    copy-closure = dag.entryAnywhere "";
    secrets = dag.entryAfter [ "copy-closure" ] "";
    switch = dag.entryAfter [ "secrets" ] "";
  };
  steps = phases // ownSteps;
  list = builtins.concatStringsSep ", ";

  replaced = builtins.attrNames (builtins.intersectAttrs ownSteps phases);
  strays = builtins.concatMap
    (phase: map (anchor: { inherit phase anchor; })
      (builtins.filter (anchor: !(steps ? ${anchor})) (phases.${phase}.before ++ phases.${phase}.after)))
    (builtins.attrNames phases);
  ordered = dag.topoSort steps;

  # "a after b, b after c, c after a": each waits for the next one.
  circle = names:
    list (builtins.genList
      (n: "${builtins.elemAt names n} after ${builtins.elemAt (names ++ names) (n + 1)}")
      (builtins.length names));

  order =
    if replaced != [ ]
    then throw "${option}.${builtins.head replaced}: this is a step of driftless itself and cannot be replaced; a phase of another name can come before or after it"
    else if strays != [ ]
    then
      let inherit (builtins.head strays) phase anchor; in
      throw "${option}.${phase} is to come before or after '${anchor}', and there is no such phase; there are: ${list (builtins.attrNames steps)}"
    else ordered.result or (throw "${option} is a circle: ${circle (map (step: step.name) ordered.cycle)}");

  before = dag.predecessors steps;
  allBefore = step: map ({ key }: key) (builtins.genericClosure {
    startSet = map (key: { inherit key; }) before.${step};
    operator = { key }: map (key: { inherit key; }) before.${key};
  });
  comesBefore = phase: step: builtins.elem phase (allBefore step);
  # What need not be early runs late, so that what it does is not done in vain when something else fails; but what need not
  # be late still runs before the switch, so that it can stop it.
  at = phase:
    if builtins.elem "switch" (allBefore phase) then "after-switch"
    else if comesBefore phase "copy-closure" then "before-copy"
    else if comesBefore phase "secrets" then "before-secrets"
    else "before-switch";

  # The programs that nixus offers to its phases; ssh is the deploying machine's own, which knows the way to the node.
  programs = makeBinPath (builtins.concatMap
    (program: if pkgs ? ${program} then [ pkgs.${program} ] else [ ])
    [ "bash" "coreutils" "findutils" "gnused" "jq" "procps" "rsync" ]);

  script = phase: text: pkgs.writeScript
    (if builtins.match "[A-Za-z0-9._+-]+" phase != null then "hook-${phase}" else "hook")
    ''
      #!${pkgs.runtimeShell}
      # ${builtins.toJSON phase} of ${option}.
      set -euo pipefail
      export PATH=${programs}''${PATH:+:$PATH}
      ${text}
    '';
in
node // {
  hooks =
    if phases == { } then [ ]
    else
      map
        (phase: { inherit (phase) name; at = at phase.name; script = script phase.name phase.data; })
        (builtins.filter (step: !(ownSteps ? ${step.name})) order);
}
