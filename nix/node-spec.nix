# One node's options (with the hooks of `hooks.nix`, where the format has any) and built system → its entry in the manifest.
# String contexts are kept: whoever writes the entry into a derivation gets the system built, whoever prints it drops them.
node: toplevel:
let
  discard = builtins.unsafeDiscardStringContext;
  # Of a node that builds its system itself, whoever writes the entry down gets the derivations, and no output.
  output = if node.buildOnTarget then discard else (path: path);
  # Without its context: a context on a derivation path would build everything the derivation is made of.
  derivation = if node.buildOnTarget then builtins.unsafeDiscardOutputDependency else discard;
in
{
  drv = derivation toplevel.drvPath;
  toplevel = output toplevel.outPath;
  system = toplevel.system;

  # What another tool's file says and driftless does not heed: { setting, reason }.
  unsupported = node.unsupported or [ ];

  closurePaths = map (path: if path ? drvPath then output "${path}" else "${path}") node.closurePaths;
  closureDrvs = builtins.concatMap
    (path: if path ? drvPath then [ (derivation path.drvPath) ] else [ ])
    node.closurePaths;

  # Realised where driftless runs, never copied to the node.
  hooks = map
    (hook: {
      inherit (hook) name at;
      script = "${hook.script}";
      drv = builtins.unsafeDiscardStringContext hook.script.drvPath;
    })
    (node.hooks or [ ]);
  inherit (node) hookTimeout;

  inherit (node)
    host port sshOptions hostKeys tags availability goal onDrift suspended after approval hasFastConnection
    switchTimeout successTimeout healthTimeout ignoreFailingSystemdUnits ignoreUnits
    privilegeEscalationCommand buildOnTarget machineId lastResort;
  # Complete, also where another tool's file was translated.
  healthChecks = (import ./health-checks.nix).complete (seconds: seconds) node.healthChecks;
  reboot = { inherit (node.reboot) policy window timeout unproven; };
  # Where each comes from and whose it becomes; never what it is.
  secrets = node.secrets or { };
}
