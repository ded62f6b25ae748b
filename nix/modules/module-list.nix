# The type of an option that collects modules without evaluating them: every definition stays a module of its own and
# keeps its file for error messages.
{ lib }:
lib.mkOptionType {
  name = "modules";
  description = "module";
  check = value: builtins.isAttrs value || lib.isFunction value || builtins.isPath value || builtins.isString value;
  merge = _: map (definition: { _file = definition.file; imports = [ definition.value ]; });
}
