#!/bin/bash
# floor.sh DEPLOYMENT NODE ADDRESS SSH_CONFIG SOCKET: what a person does by hand to bring one node to a new system, and nothing
# that is not needed for it: one connection is open already (SOCKET). Prints each step's end, in seconds since the epoch.
set -euo pipefail
deployment=$1 node=$2 address=$3 config=$4 socket=$5
kept="ssh -F $config -S $socket root@$address --"
step() { echo "$1 $EPOCHREALTIME"; }
step begin
drv=$(nix-instantiate "$deployment" -A "config.nodes.$node.configuration.system.build.toplevel" 2>/dev/null)
step evaluate
system=$(nix-store --realise "$drv" 2>/dev/null)
step realise
NIX_SSHOPTS="-F $config -S $socket" nix copy --quiet --no-check-sigs --to "ssh-ng://root@$address" "$system"
step copy
$kept "$system/bin/switch-to-configuration" test >/dev/null
step test
ssh -F "$config" -o ControlPath=none "root@$address" -- true
step login
$kept nix-env --profile /nix/var/nix/profiles/system --set "$system"
step profile
$kept "$system/bin/switch-to-configuration" boot >/dev/null
step boot
