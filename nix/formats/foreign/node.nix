# What another tool says of one node, in our words → its entry in the manifest. The formats translate; here is what they have
# in common: where a host and a user meet, arguments for ssh, tags that are none of ours.
{ toplevel
, host
, user ? null
, port ? null
, sshArguments ? [ ]
, tags ? [ ]
, settings ? { }
  # What our module made of keys.
, secrets ? { }
  # [ { setting, reason } ]: what was said and is not heeded.
, unsupported ? [ ]
}:
let
  ssh = import ./ssh-arguments.nix sshArguments;
  isTag = tag: builtins.match "[A-Za-z0-9][A-Za-z0-9._-]{0,62}" tag != null;

  login = if user != null && user != "" then user else ssh.user;
  address =
    if host == null then null
    else if builtins.match ".*@.*" host != null then host
    else if login != null then "${login}@${host}"
    # Alone these two words mean this machine, without SSH; the other tools mean the SSH server on it.
    else if host == "localhost" || host == "local" then "127.0.0.1"
    else host;
in
import ../../node-spec.nix
  ((import ../defaults.nix).nodeWith ({
    host = address;
    port = if port != null then port else ssh.port;
    sshOptions = ssh.options;
    inherit secrets;
    tags = builtins.filter isTag tags;
    unsupported = unsupported
      ++ map
      (argument: { setting = "ssh ${argument}"; reason = "ssh_config(5) has no such option, so that driftless cannot pass it on"; })
      ssh.unsupported
      ++ map
      (tag: { setting = "tag ${builtins.toJSON tag}"; reason = "a tag is 1 to 63 letters, digits, '.', '_' or '-', starting with a letter or digit"; })
      (builtins.filter (tag: !isTag tag) tags);
  } // settings))
  toplevel
