# Addresses and subnets of IPv4 and IPv6 as numbers: whether a text is one, and what lies in what.
let
  inherit (builtins) match split filter isString length elemAt genList concatStringsSep fromJSON foldl' head tail;

  parts = separator: text: filter isString (split separator text);
  power = exponent: foldl' (product: _: product * 2) 1 (genList (n: n) exponent);

  digits = { "0" = 0; "1" = 1; "2" = 2; "3" = 3; "4" = 4; "5" = 5; "6" = 6; "7" = 7; "8" = 8; "9" = 9; a = 10; b = 11; c = 12; d = 13; e = 14; f = 15; A = 10; B = 11; C = 12; D = 13; E = 14; F = 15; };
  characters = text: genList (n: builtins.substring n 1 text) (builtins.stringLength text);
  fromHex = text: foldl' (number: digit: number * 16 + digits.${digit}) 0 (characters text);
  toHex = number:
    let low = elemAt (characters "0123456789abcdef") (number - number / 16 * 16); in
    if number < 16 then low else toHex (number / 16) + low;

  words4 = text:
    let
      found = match "(0|[1-9][0-9]{0,2})\\.(0|[1-9][0-9]{0,2})\\.(0|[1-9][0-9]{0,2})\\.(0|[1-9][0-9]{0,2})" text;
      words = map fromJSON found;
    in
    if found == null || builtins.any (word: word > 255) words then null else words;

  # One side of the `::`; the last word of an address may be written as IPv4 (RFC 4291).
  words6 = text:
    let
      list = if text == "" then [ ] else parts ":" text;
      last = if list == [ ] then "" else elemAt list (length list - 1);
      tail4 = words4 last;
      one = word: if match "[0-9A-Fa-f]{1,4}" word == null then null else fromHex word;
      plain = map one (if tail4 == null then list else genList (elemAt list) (length list - 1));
      words = plain ++ (if list == [ ] || tail4 == null then [ ]
      else [ (elemAt tail4 0 * 256 + elemAt tail4 1) (elemAt tail4 2 * 256 + elemAt tail4 3) ]);
    in
    if builtins.elem null words then null else words;

  parse6 = text:
    let
      sides = parts "::" text;
      left = words6 (head sides);
      right = words6 (elemAt sides 1);
      missing = 8 - length left - length right;
    in
    if length sides == 1 then (if left != null && length left == 8 then left else null)
    else if length sides != 2 || left == null || right == null || missing < 1 then null
    else left ++ genList (_: 0) missing ++ right;

  # → { family, width, words }, or null.
  parse = text:
    let four = words4 text; six = parse6 text; in
    if !isString text then null
    else if four != null then { family = 4; width = 8; words = four; }
    else if match "[0-9A-Fa-f:.]+" text != null && match ".*:.*" text != null && six != null
    then { family = 6; width = 16; words = six; }
    else null;

  bits = address: address.width * length address.words;
  # The address with everything beyond the prefix cleared.
  masked = prefix: address: address // {
    words = genList
      (n:
        let
          kept = prefix - n * address.width;
          rest = power (address.width - (if kept < 0 then 0 else if kept > address.width then address.width else kept));
        in
        elemAt address.words n / rest * rest)
      (length address.words);
  };
  render = address:
    if address.family == 4 then concatStringsSep "." (map toString address.words)
    else concatStringsSep ":" (map toHex address.words);

  # → { prefix, family, base, text }, or null.
  parseSubnet = text:
    let
      found = match "([^/]+)/(0|[1-9][0-9]{0,2})" text;
      address = parse (head found);
      prefix = fromJSON (head (tail found));
      base = masked prefix address;
    in
    if !isString text || found == null || address == null || prefix > bits address then null
    else { inherit prefix base; inherit (address) family; text = "${render base}/${toString prefix}"; };
in
{
  inherit parse parseSubnet;
  isIpv4 = text: let address = parse text; in address != null && address.family == 4;
  isIpv6 = text: let address = parse text; in address != null && address.family == 6;
  # Whether an address lies in a subnet, both parsed.
  contains = subnet: address: address.family == subnet.family && (masked subnet.prefix address).words == subnet.base.words;
  # The widest prefix: one address alone.
  inherit bits;
}
