# Lists.
rec {
  inherit (builtins) map filter length head tail elem elemAt concatLists concatMap any all sort foldl' partition genList groupBy;

  optional = condition: value: if condition then [ value ] else [ ];
  optionals = condition: values: if condition then values else [ ];
  singleton = value: [ value ];
  toList = value: if builtins.isList value then value else [ value ];
  last = list: elemAt list (length list - 1);
  zipListsWith = f: a: b: genList (n: f (elemAt a n) (elemAt b n)) (if length a < length b then length a else length b);
  init = list: genList (elemAt list) (length list - 1);
  foldr = step: start: list:
    let from = i: if i == length list then start else step (elemAt list i) (from (i + 1)); in from 0;
  foldl = foldl';
  flatten = value: if builtins.isList value then concatMap flatten value else [ value ];
  imap0 = f: list: genList (i: f i (elemAt list i)) (length list);
  imap1 = f: imap0 (i: f (i + 1));
  range = first: final: if first > final then [ ] else genList (i: first + i) (final - first + 1);
  unique = foldl' (seen: value: if elem value seen then seen else seen ++ [ value ]) [ ];
  subtractLists = unwanted: filter (value: !(elem value unwanted));
  findFirst = wanted: otherwise: list:
    let found = filter wanted list; in if found == [ ] then otherwise else head found;
  sortOn = key: sort (a: b: key a < key b);
}
