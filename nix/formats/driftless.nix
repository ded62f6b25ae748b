# What our own `default.nix` returns, or a flake's output `driftless` made with it.
{
  name = "driftless";
  description = "a driftless deployment (`import driftless { } { nodes = ...; }`, also as the output `driftless` of a flake)";

  detect = { value, ... }: value ? driftless && (value.driftless ? manifest || value.driftless ? driftless);

  open = { value, ... }:
    (if value.driftless ? manifest then value.driftless else value.driftless.driftless).manifest;
}
