# `config-schema.json`, which says what driftless.toml may hold as the program itself reads it → typed options, one per key,
# with the descriptions of the example file. Knows no key by name.
{ lib }:
let
  inherit (lib) mkOption types;

  typeOf = entry: {
    table = types.submodule { options = optionsOf entry.keys; };
    list = types.listOf (typeOf entry.of);
    map = types.attrsOf (typeOf entry.of);
    enum = types.enum entry.values;
    bool = types.bool;
    integer = types.ints.unsigned;
    number = types.oneOf [ types.int types.float ];
    string = types.str;
    # A path that is written without quotes stays where it is: a key has no business in the store.
    path = types.coercedTo types.path toString types.str;
    duration = types.strMatching "[0-9][0-9a-zA-Z ]*[a-z]";
    address = types.strMatching ".*:[0-9]+";
    # One of several; the program says which.
    any = types.anything;
  }.${entry.type};

  described = entry:
    let said = if entry.description == "" then "See deploy/driftless.example.toml." else entry.description; in
    said + lib.optionalString (entry ? shown) " In the example: `${entry.shown}`.";

  isRequired = entry: entry.required or false;
  # A table that may be left out as a whole, but not in part.
  isWhole = entry: entry.type == "table" && !isRequired entry && builtins.any isRequired (builtins.attrValues entry.keys);

  optionsOf = builtins.mapAttrs (_: entry:
    mkOption ({ description = described entry; } // (
      if entry.type == "table" && !isWhole entry then { type = typeOf entry; default = { }; }
      else if isRequired entry then { type = typeOf entry; }
      else { type = types.nullOr (typeOf entry); default = null; defaultText = "that of the program"; }
    )));

  # What nobody has set is the program's to decide.
  given = value:
    if builtins.isAttrs value then lib.filterAttrs (_: inner: inner != null && inner != { }) (builtins.mapAttrs (_: given) value)
    else if builtins.isList value then map given value
    else value;
in
{
  options = optionsOf (builtins.fromJSON (builtins.readFile ./config-schema.json));
  inherit given;
}
