# A library overlay: `lib.dag` and `lib.types.dagOf`, as nixus offers them, for things that are done in an order of their
# own, such as `deployScriptPhases`. Knows nothing of what is ordered.
_: prev:
let
  inherit (prev) mkOption types;

  # What comes before each entry: its own `after`, and every entry that names it in `before`.
  predecessors = entries: builtins.mapAttrs
    (name: entry: entry.after ++ builtins.filter (other: builtins.elem name entries.${other}.before) (builtins.attrNames entries))
    entries;

  # The first by name of those that wait for nobody, again and again.
  sort = before:
    let
      go = done: left:
        let
          ready = builtins.filter (name: ! builtins.any (other: builtins.elem other left) before.${name}) left;
          next = builtins.head ready;
        in
        if left == [ ] then { sorted = done; }
        else if ready == [ ] then { cycle = cycleIn left; }
        else go (done ++ [ next ]) (builtins.filter (name: name != next) left);

      # Each of them waits for another one: going back often enough meets one twice.
      cycleIn = left:
        let
          back = name: builtins.head (builtins.filter (other: builtins.elem other left) before.${name});
          walk = seen: name: if builtins.elem name seen then from name seen else walk ([ name ] ++ seen) (back name);
          from = name: seen: if builtins.head seen == name then [ name ] else from name (builtins.tail seen) ++ [ (builtins.head seen) ];
          met = walk [ ] (builtins.head left);
        in
        met;
    in
    go [ ] (builtins.attrNames before);
in
{
  types = types // {
    dagOf = content: types.attrsOf (types.submodule {
      options = {
        data = mkOption { type = content; description = "What is ordered."; };
        before = mkOption { type = types.listOf types.str; default = [ ]; description = "What comes later."; };
        after = mkOption { type = types.listOf types.str; default = [ ]; description = "What comes earlier."; };
      };
    });
  };

  dag = {
    entryAnywhere = data: { inherit data; before = [ ]; after = [ ]; };
    entryBetween = after: before: data: { inherit data before after; };
    entryAfter = after: data: { inherit data after; before = [ ]; };
    entryBefore = before: data: { inherit data before; after = [ ]; };

    inherit predecessors;

    # → { result = [ { name, data } ... ]; }, or { cycle, loops } of entries { name, data, after }. As in nixus a name that
    # there is no entry of is no constraint.
    topoSort = entries:
      let
        before = predecessors entries;
        ordered = sort before;
        whole = name: { inherit name; inherit (entries.${name}) data; after = before.${name}; };
      in
      if ordered ? sorted
      then { result = map (name: { inherit name; inherit (entries.${name}) data; }) ordered.sorted; }
      else { cycle = map whole ordered.cycle; loops = [ (whole (builtins.head ordered.cycle)) ]; };
  };
}
