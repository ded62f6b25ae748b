# What a hive says of all nodes and driftless does not heed.
meta:
let note = condition: setting: reason: if condition then [ { inherit setting reason; } ] else [ ]; in
note (!(meta.allowApplyAll or true)) "meta.allowApplyAll = false"
  "a controller keeps every node equal to Git; by hand, `--on` chooses"
++ note (meta.machinesFile or null != null) "meta.machinesFile"
  "Nix's own builders are used: `nix.builders` in driftless.toml"
