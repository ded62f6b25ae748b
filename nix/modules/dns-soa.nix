# The options of a zone's SOA record. Sets nothing.
{ lib, ttl }:
let
  inherit (lib) mkOption types;
  seconds = description: mkOption { type = types.int; inherit description; };

  # hostmaster@example.org → hostmaster.example.org., with the dots of the local part escaped (RFC 1035, 5.1 and 8).
  mailbox = email:
    let parts = builtins.match "([^@ ]+)@([^@ ]+)" email; in
    if parts == null then email
    else "${builtins.replaceStrings [ "." ] [ "\\." ] (builtins.elemAt parts 0)}.${lib.removeSuffix "." (builtins.elemAt parts 1)}.";
in
{
  ttl = mkOption { type = types.int; default = ttl; defaultText = "that of the zone"; description = "For how many seconds this record may be cached."; };
  master = mkOption { type = types.str; example = "ns1.example.org."; description = "The primary name server."; };
  email = mkOption {
    type = types.str;
    apply = mailbox;
    example = "hostmaster@example.org";
    description = "Who is responsible: an address, or already in the form of a zone file.";
  };
  serial = mkOption {
    type = types.nullOr types.int;
    default = null;
    description = ''
      The serial number; `null`: the time at which the zone file was built, in seconds since 1970. With secondary servers
      set it, because a file that is built already keeps its number when a commit is reverted.
    '';
  };
  refresh = seconds "After how many seconds secondary servers ask whether there is something new.";
  retry = seconds "After how many seconds they ask again when there was no answer.";
  expire = seconds "After how many seconds without an answer they stop to serve the zone.";
  negativeTtl = seconds "For how many seconds it may be cached that there is no such record.";
}
