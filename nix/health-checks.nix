# Health checks: as they are declared → as the manifest has them, and what a managed node's own curl and bash are told.
# Needs no `lib`: formats whose nodes were evaluated without our options use it, too.
let
  inherit (builtins) attrNames concatStringsSep elemAt isAttrs isString mapAttrs match replaceStrings toJSON;

  withoutNull = set: removeAttrs set (builtins.filter (name: set.${name} == null) (attrNames set));
  unless = default: name: set: if (set.${name} or default) == default then { } else { ${name} = set.${name}; };

  # What is as it is anyway is not said: the journals of nodes keep it, too.
  pace = inSeconds: check:
    let
      seconds = default: name: if check ? ${name} then unless default name { ${name} = inSeconds check.${name}; } else { };
    in
    seconds 1 "period" // seconds 15 "timeout" // unless 1 "successes" check;
  tls = check:
    let said = withoutNull (unless true "verify" (check.tls or { }) // unless null "caFile" (check.tls or { }) // unless null "serverName" (check.tls or { })); in
    if said == { } then { } else { tls = said; };
  common = inSeconds: check: unless { } "headers" check // tls check // pace inSeconds check;

  known = [ "units" "commands" "http" "tcp" "prometheus" ];
  others = kind: names: check:
    let unknown = attrNames (removeAttrs check (names ++ [ "period" "timeout" "successes" "_module" ])); in
    if unknown == [ ] then check else throw "a health check of kind ${kind} has no option '${elemAt unknown 0}'";
  kinds = inSeconds: {
    commands = check:
      if isAttrs check then { inherit (others "commands" [ "command" ] check) command; } // pace inSeconds check else check;
    http = check:
      { inherit (others "http" [ "url" "from" "method" "headers" "status" "body" "tls" ] check) url; }
      // unless "controller" "from" check // unless "GET" "method" check // unless null "status" check
      // unless null "body" check // common inSeconds check;
    tcp = check:
      { inherit (others "tcp" [ "host" "port" "from" ] check) port; } // unless "controller" "from" check
      // unless null "host" check // pace inSeconds check;
    prometheus = check:
      { inherit (others "prometheus" [ "url" "query" "expect" "headers" "tls" ] check) url query expect; }
      // common inSeconds check;
  };
  list = inSeconds: checks:
    let of = kinds inSeconds; in
    { units = checks.units or [ ]; commands = mapAttrs (_: of.commands) (checks.commands or { }); }
    // unless { } "http" { http = mapAttrs (_: of.http) (checks.http or { }); }
    // unless { } "tcp" { tcp = mapAttrs (_: of.tcp) (checks.tcp or { }); }
    // unless { } "prometheus" { prometheus = mapAttrs (_: of.prometheus) (checks.prometheus or { }); };

  # A value between quotes, curl(1), --config.
  quoted = value: "\"${replaceStrings [ "\\" "\"" "\n" "\t" ] [ "\\\\" "\\\"" "\\n" "\\t" ] value}\"";
  line = key: value: "${key} = ${quoted value}";

  # src/node/health/on_node.rs says the same to nodes that have a shell.
  renamed = url: name:
    let
      parts = match "(https?)://(\\[[^]]+]|[^/:?#]+)(:([0-9]+))?(.*)" url;
      scheme = elemAt parts 0;
      port = if elemAt parts 3 != null then elemAt parts 3 else if scheme == "https" then "443" else "80";
      path = if elemAt parts 4 == "" then "/" else elemAt parts 4;
    in
    [ (line "connect-to" "::${elemAt parts 1}:${port}") (line "url" "${scheme}://${name}:${port}${path}") ];
in
rec {
  # As declared, with or without defaults → as src/model/health.rs reads it. What is complete stays as it is.
  complete = inSeconds: checks:
    let
      unknown = attrNames (removeAttrs checks (known ++ [ "before" "interval" "_module" ]));
      before = list inSeconds (checks.before or { });
    in
    if unknown != [ ] then throw "there are no health checks of kind '${elemAt unknown 0}'; there are ${concatStringsSep ", " known}"
    else list inSeconds checks
      // (if before == list inSeconds { } then { } else { inherit before; })
      // (if (checks.interval or null) == null then { } else { interval = inSeconds checks.interval; });

  # Of the node and of its fleet: where both have one of a name, the node's.
  merged = fleet: own:
    let of = kind: (fleet.${kind} or { }) // (own.${kind} or { }); in
    { units = (own.units or [ ]) ++ (fleet.units or [ ]); commands = of "commands"; http = of "http"; tcp = of "tcp"; };

  # What a managed node has to know of complete checks: those that it is asked by name, and what it runs for them.
  ofNode = { node, host, own, fleet ? { } }:
    let
      fill = replaceStrings [ "{node}" "{host}" ] [ node host ];
      fillUrl = replaceStrings [ "{node}" "{host}" ] [ node (if match "[^[].*:.*:.*" host != null then "[${host}]" else host) ];
      isAsked = checks: builtins.filter (name: (checks.${name}.from or "controller") == "node") (attrNames checks);
      of = checks: {
        commands = mapAttrs (_: check: if isString check then check else check.command) checks.commands;
        http = builtins.listToAttrs (map
          (name: { inherit name; value = checks.http.${name} // { url = fillUrl checks.http.${name}.url; }; })
          (isAsked checks.http));
        tcp = builtins.listToAttrs (map
          (name: { inherit name; value = checks.tcp.${name} // { host = fill (checks.tcp.${name}.host or "localhost"); }; })
          (isAsked checks.tcp));
      };
      after = of (merged fleet own);
      before = of (merged (fleet.before or { }) (own.before or { }));
      both = kind: after.${kind} // builtins.listToAttrs (map
        (name: { name = "before.${name}"; value = before.${kind}.${name}; })
        (attrNames before.${kind}));
    in
    { commands = both "commands"; http = both "http"; tcp = both "tcp"; };

  # The request of a check, as a file of configuration for curl.
  curlConfig = check: concatStringsSep "\n" (
    [ "silent" "show-error" "globoff" (line "noproxy" "*") (line "proto" "=http,https") ]
    ++ [ (line "max-time" (toString (check.timeout or 15))) (line "write-out" "%{stderr}driftless-status %{http_code}\n") ]
    ++ map
      (name:
        let value = check.headers.${name}; in
        line "header" (if value == "" then "${name};" else "${name}: ${value}"))
      (attrNames (check.headers or { }))
    ++ (if (check.tls.caFile or null) == null then [ ] else [ (line "cacert" check.tls.caFile) ])
    ++ (if (check.tls.serverName or null) == null then [ (line "url" check.url) ] else renamed check.url check.tls.serverName)
    ++ (if (check.method or "GET") == "HEAD" then [ (line "output" "/dev/null") "head" ] else [ (line "request" (check.method or "GET")) ])
    ++ (if check.tls.verify or true then [ ] else [ "insecure" ])
  ) + "\n";

  # HOST PORT SECONDS
  tcpLine = check:
    if match "[0-9A-Za-z.:_%-]+" check.host == null then throw "${toJSON check.host} is no host of a health check"
    else "${check.host} ${toString check.port} ${toString (check.timeout or 15)}\n";
}
