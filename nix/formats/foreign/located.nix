# An attribute of a hive or network as a module that knows where it is written, for error messages: it arrives as a value.
set: name:
let position = builtins.unsafeGetAttrPos name set; in
(if position == null then { } else { _file = position.file; }) // {
  imports = if builtins.isList set.${name} then set.${name} else [ set.${name} ];
}
