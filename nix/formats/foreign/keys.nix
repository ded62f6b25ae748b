# Keys of other tools → what is said about each of them. Never looks at what is in a key.
setting: keys:
let written = name: if builtins.match "[A-Za-z_][A-Za-z0-9_-]*" name != null then name else builtins.toJSON name; in
map
  (name: {
    setting = "${setting}.${written name}";
    reason = "driftless does not send the keys of other tools: send it as before, or leave it on the node as it is";
  })
  (builtins.attrNames keys)
