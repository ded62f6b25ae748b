# `dns.zones` and `dns.records`: zones served by BIND on their primary nodes, with records from anywhere in the deployment.
# A zone file is checked by named-checkzone when it is built. Never talks to a name server.
{ lib, nixus, config, options, ... }:
let
  inherit (lib) mkOption types;
  inherit (import ../ip.nix) isIpv4 isIpv6;
  inherit (config.dns) zones records;
  inherit (config) nodes;
  zoneMistakes = import ./mistakes.nix { inherit lib nodes; option = options.dns.zones; };
  recordMistakes = import ./mistakes.nix { inherit lib nodes; option = options.dns.records; };

  recordTypes = import ./dns-records.nix { inherit lib isIpv4 isIpv6; };

  # The zone that a domain is in: the one with the longest name.
  zoneOf = owner:
    let
      inside = name:
        let domain = "${zones.${name}.name}."; in owner == domain || lib.hasSuffix ".${domain}" owner;
      longer = name: other: builtins.stringLength zones.${name}.name > builtins.stringLength zones.${other}.name;
      found = builtins.sort longer (builtins.filter inside (builtins.attrNames zones));
    in
    if found == [ ] then null else builtins.head found;

  recordsOfName = { name, ... }: {
    options = builtins.mapAttrs
      (_: recordType:
        let
          record = types.submodule ({ config, ... }: {
            options = recordType.options // {
              zone = mkOption {
                type = types.nullOr types.str;
                default = zoneOf name;
                defaultText = "the zone with the longest name that the domain is in";
                description = "The zone in `dns.zones` that it belongs to.";
              };
              ttl = mkOption {
                type = types.int;
                default = zones.${config.zone}.ttl;
                defaultText = "that of the zone";
                description = "For how many seconds it may be cached.";
              };
            };
          });
          # A text is the record's main value, and one record needs no list.
          short = if recordType ? fromText then types.coercedTo types.str recordType.fromText record else record;
          single = if recordType ? fromText then types.either types.str types.attrs else types.attrs;
        in
        mkOption {
          type = types.coercedTo single lib.singleton (types.listOf short);
          default = [ ];
          description = "Its records of this type.";
        })
      recordTypes;
  };

  # Every record: { owner, type, zone, ttl, data }.
  allRecords = builtins.concatLists (lib.mapAttrsToList recordsOf records);
  recordsOf = owner: ofOwner: builtins.concatLists (lib.mapAttrsToList
    (type: map (record: {
      inherit owner type;
      inherit (record) zone ttl;
      data = recordTypes.${type}.toData record;
    }))
    (builtins.intersectAttrs recordTypes ofOwner));

  zone = { name, config, ... }: {
    options = {
      name = mkOption { type = types.str; default = name; description = "The domain, without a dot at the end."; };
      primaryNode = mkOption { type = types.str; description = "The node that serves it."; };
      ttl = mkOption { type = types.int; description = "For how many seconds a record may be cached that does not say so itself."; };
      records = mkOption {
        type = types.listOf (types.submodule {
          options = {
            name = mkOption { type = types.str; description = "The domain."; };
            type = mkOption { type = types.str; description = "The type."; };
            ttl = mkOption { type = types.int; description = "For how many seconds it may be cached."; };
            data = mkOption { type = types.str; description = "The data, as in a zone file."; };
          };
        });
        default = [ (soaRecord config) ] ++ lib.unique (map
          (record: { name = record.owner; inherit (record) type ttl data; })
          (builtins.filter (record: record.zone == name) allRecords));
        defaultText = "the SOA record, and those of `dns.records` in this zone";
        description = "All that is in the zone.";
      };
      zonefile = mkOption {
        type = types.path;
        default = zonefile config;
        defaultText = "made of `records`, and checked";
        description = "The zone file.";
      };
      soa = import ./dns-soa.nix { inherit lib; inherit (config) ttl; };
    };
  };

  serialHere = "@SERIAL@";
  soaRecord = { name, soa, ... }: {
    name = "${name}.";
    type = "SOA";
    inherit (soa) ttl;
    data = lib.concatMapStringsSep " " toString [
      soa.master
      soa.email
      (if soa.serial == null then serialHere else soa.serial)
      soa.refresh
      soa.retry
      soa.expire
      soa.negativeTtl
    ];
  };

  zonefile = { name, records, ... }:
    nixus.pkgs.runCommand "${builtins.replaceStrings [ "/" ] [ "-" ] name}.zone"
      {
        contents = lib.concatMapStrings
          (record: "${record.name} ${toString record.ttl} IN ${record.type} ${record.data}\n")
          records;
        passAsFile = [ "contents" ];
      }
      (''
        sed "s/${serialHere}/$(date +%s)/" "$contentsPath" >"$out"
      '' + lib.optionalString (nixus.pkgs ? bind) ''
        # Only what is in the zone itself: no name server can be asked here.
        ${lib.getBin nixus.pkgs.bind}/bin/named-checkzone -i local ${lib.escapeShellArg name} "$out"
      '');

  zonesOn = node: builtins.filter (zone: zone.primaryNode == node) (builtins.attrValues zones);

  strangeZones = builtins.filter (name: !(zoneMistakes.isNode zones.${name}.primaryNode)) (builtins.attrNames zones);
  # What a record says is asked only where its domain is in no zone: an address may be another node's business.
  homeless = owner: zoneOf owner == null && builtins.any (record: record.zone == null) (recordsOf owner records.${owner});
  strayZone = record: record.zone != null && !(zones ? ${record.zone});
in
{
  options.dns = {
    zones = mkOption { type = types.attrsOf (types.submodule zone); default = { }; description = "The zones, by domain."; };
    records = mkOption {
      type = types.attrsOf (types.submodule recordsOfName);
      default = { };
      example = lib.literalExpression ''{ "www.example.org.".A = "192.0.2.7"; "example.org.".MX = [ { domain = "mail.example.org."; } ]; }'';
      description = "Records by domain, which ends with a dot. Each goes into the zone that its domain is in.";
    };
  };

  config.defaults = { name, ... }: {
    imports = [
      (zoneMistakes.assertions {
        everywhere =
          map (zone: zoneMistakes.noNode [ zone "primaryNode" ] zones.${zone}.primaryNode) strangeZones
          ++ builtins.concatMap
            (owner:
              if !(lib.hasSuffix "." owner)
              then [ (recordMistakes.at [ owner ] "the domain does not end with a dot; write \"${owner}.\"") ]
              else if homeless owner
              then [ (recordMistakes.at [ owner ] "no zone has this domain; there are: ${lib.concatStringsSep ", " (builtins.attrNames zones)}") ]
              else [ ])
            (builtins.attrNames records);
        of = name: lib.optionals (zonesOn name != [ ]) (map
          (record: recordMistakes.at [ record.owner record.type ] "there is no zone '${record.zone}' in dns.zones, on node ${name} or any other")
          (builtins.filter strayZone allRecords));
      })
    ];
    configuration = {
      _file = "driftless: dns.zones";
      config = lib.mkIf (zonesOn name != [ ]) {
        # Answers that do not fit into a datagram, and transfers, go over TCP.
        networking.firewall = { allowedUDPPorts = [ 53 ]; allowedTCPPorts = [ 53 ]; };
        services.bind = {
          enable = true;
          zones = map (zone: { inherit (zone) name; master = true; file = zone.zonefile; }) (zonesOn name);
        };
      };
    };
  };
}
