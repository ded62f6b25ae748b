# The keys of a Colmena or NixOps node as `keys.nix` takes them.
keys:
map
  (name:
    let key = keys.${name}; in {
      inherit name;
      inherit (key) path user group text;
      mode = key.permissions;
      file = key.keyFile;
      command = key.keyCommand;
    })
  (builtins.attrNames keys)
