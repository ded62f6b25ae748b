#!/bin/sh
# with-debian13.sh COMMAND...: runs a command with the programs of the lab's Debian 13 tree, above all its Nix 2.26, and an
# empty store of its own. Nothing of that is seen by anybody else, or left afterwards.
set -eu
tree=${DRIFTLESS_LAB_CACHE:-/var/cache/driftless-lab}/debian13
[ -x "$tree/usr/bin/curl" ] || sh "$(dirname "$0")/lab/src/scripts/debian13.sh" "$tree"
# shellcheck disable=SC2016 # the variables are the inner shell's
exec unshare --mount --pid --fork --kill-child --mount-proc sh -euc '
  tree=$1; shift
  mount --make-rprivate /
  mkdir -p /nix
  mount -t tmpfs -o mode=755 nix /nix
  mount --bind "$tree/etc/ld.so.cache" /etc/ld.so.cache
  mount --bind "$tree/usr" /usr
  XDG_CACHE_HOME=$(mktemp -d)
  export XDG_CACHE_HOME
  code=0
  "$@" || code=$?
  rm -rf "$XDG_CACHE_HOME"
  exit "$code"
' sh "$tree" "$@"
