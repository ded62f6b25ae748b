# morph's health checks → shell commands by name. One for a page asks from the node itself.
{ lib, host }:
checks:
let
  within = seconds: if seconds > 0 then "timeout ${toString seconds} " else "";
  command = check: {
    name = check.description;
    # morph joins the words as ssh does: what they mean is the shell's business.
    value = "${within check.timeout}sh -c ${lib.escapeShellArg (lib.concatStringsSep " " check.cmd)}";
  };
  page = check: {
    name = check.description;
    value = lib.concatStringsSep " " (
      [ "curl --silent --show-error --fail --location --output /dev/null" ]
      ++ lib.optional (check.timeout > 0) "--max-time ${toString check.timeout}"
      ++ lib.optional check.insecureSSL "--insecure"
      ++ lib.mapAttrsToList (name: value: "--header ${lib.escapeShellArg "${name}: ${value}"}") check.headers
      ++ [ (lib.escapeShellArg "${check.scheme}://${if check.host == null then host else check.host}:${toString check.port}${check.path}") ]
    );
  };

  # Two checks may have the same description; none may get lost.
  unlike = taken: name: number:
    let numbered = if number == 1 then name else "${name} (${toString number})"; in
    if taken ? ${numbered} then unlike taken name (number + 1) else numbered;
in
builtins.foldl' (taken: check: taken // { ${unlike taken check.name 1} = check.value; }) { }
  (map command (builtins.filter (check: check.cmd != null) checks.cmd) ++ map page checks.http)
