# The types of DNS records: what each one says, what a bare text means, and how it stands in a zone file. Knows no zones.
{ lib, isIpv4, isIpv6 }:
let
  inherit (lib) mkOption types;

  # A line break would begin another record.
  line = types.addCheck types.str (text: builtins.match "[^\n]*" text != null)
    // { name = "line"; description = "text on one line"; };
  text = description: mkOption { type = line; inherit description; };
  address = name: check: mkOption {
    type = types.addCheck types.str check // { inherit name; description = name; };
    description = "The address.";
  };
  number = default: description: mkOption { type = types.int; inherit default description; };
  domain = mkOption {
    type = line;
    example = "mail.example.org.";
    description = "The domain; without a dot at the end it is one below the zone.";
  };

  # A character-string has at most 255 bytes, a text may have several of them (RFC 1035, 3.3).
  strings = whole:
    let
      length = builtins.stringLength whole;
      pieces = builtins.genList (n: builtins.substring (n * 255) 255 whole) (if length == 0 then 1 else (length + 254) / 255);
    in
    lib.concatMapStringsSep " " quoted pieces;
  quoted = piece: "\"${builtins.replaceStrings [ "\\" "\"" ] [ "\\\\" "\\\"" ] piece}\"";

  ofDomain = { options = { inherit domain; }; fromText = text: { domain = text; }; toData = record: record.domain; };
  ofAddress = name: check: {
    options.address = address name check;
    fromText = text: { address = text; };
    toData = record: record.address;
  };
in
{
  A = ofAddress "IPv4 address" isIpv4;
  AAAA = ofAddress "IPv6 address" isIpv6;
  NS = ofDomain;
  CNAME = ofDomain;
  MX = {
    options = { inherit domain; preference = number 10 "The lowest is tried first."; };
    fromText = text: { domain = text; };
    toData = record: "${toString record.preference} ${record.domain}";
  };
  TXT = {
    options.text = text "The text, of any length.";
    fromText = text: { inherit text; };
    toData = record: strings record.text;
  };
  CAA = {
    options = {
      flags.issuerCritical = mkOption {
        type = types.bool;
        default = false;
        description = "Whether an issuer that does not understand the tag may not issue.";
      };
      tag = mkOption { type = types.enum [ "issue" "issuewild" "iodef" ]; description = "What is said."; };
      value = text "The issuer, or where to report to.";
    };
    fromText = text: { tag = "issue"; value = text; };
    toData = record: "${if record.flags.issuerCritical then "128" else "0"} ${record.tag} ${quoted record.value}";
  };
  SRV = {
    options = {
      priority = number 0 "The lowest is tried first.";
      weight = number 100 "The share among those of one priority.";
      port = mkOption { type = types.port; description = "The port."; };
      target = domain;
    };
    toData = record: lib.concatMapStringsSep " " toString [ record.priority record.weight record.port record.target ];
  };
}
