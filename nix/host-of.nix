# What a node is reached by, as health checks name it: its host without the user, or what ssh is told to connect to instead.
{ host, sshOptions }:
let
  names = builtins.filter (key: builtins.elem key [ "HostName" "Hostname" "hostname" ]) (builtins.attrNames sshOptions);
  plain = builtins.match "(.*@)?([^@]*)" host;
in
if host == null || host == "local" then "localhost"
else if names != [ ] then sshOptions.${builtins.head names}
else builtins.elemAt plain 1
