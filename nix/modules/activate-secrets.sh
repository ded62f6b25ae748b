#!/bin/sh
# activate-secrets.sh SELF SYSTEM BASE none|declared AGE|- [HOST-KEY]...: puts the secrets of a system in place.
#
# Runs on the node, as root, at each activation of the system it belongs to, at boot too: so a rollback, or an older boot
# entry, has its own secrets back. What was brought for SYSTEM is in SETS, only for root. From there everything is copied (or
# decrypted) into a new directory in memory, given to its owners, and only when all of it is right does the link BASE
# change, at once. Never prints a secret.
set -u
umask 077
LC_ALL=C
export LC_ALL

SETS=/var/lib/driftless-node/secrets
RUN=/run/driftless-secrets.d
# By its place in the store, also where it is called by the link that is left to it below.
self=$(readlink -f "$1")
system=$2 base=$3 declared=$4 age=$5
shift 5
name=${system##*/}
fresh=

fail() {
  echo "driftless-secrets: $*" >&2
  [ -z "$fresh" ] || rm -rf "$fresh"
  exit 1
}

# Nobody else brings or activates secrets meanwhile.
lock() {
  if ! mkdir -p "$RUN" || ! chmod 0711 "$RUN"; then fail "cannot make $RUN"; fi
  # A shell that cannot do this ends here by itself, with an error (POSIX, 2.8.1).
  exec 9>"$RUN/lock"
  command -v flock >/dev/null 2>&1 || return 0
  flock -w 60 9 || fail "somebody else has been bringing secrets for a minute"
}

# The power may have gone between the two renames that replace a set.
recover() {
  [ ! -d "$SETS/.old-$name" ] || [ -d "$SETS/$name" ] || mv -T "$SETS/.old-$name" "$SETS/$name" ||
    fail "cannot put $SETS/$name back"
}

# A system that somebody built here by hand was brought nothing. What it has in common with the last one has the same name.
adopt() {
  [ -d "$SETS/$name" ] && return
  last=
  { read -r last <"$SETS/.last"; } 2>/dev/null
  case $last in */* | .*) last= ;; esac
  if [ -z "$last" ] || [ ! -d "$SETS/$last" ]; then
    fail "nobody has brought the secrets of $system to this machine; driftless deploy does"
  fi
  echo "driftless-secrets: nobody has brought the secrets of $system; it takes those of $last" >&2
  rm -rf "$SETS/.new-$name"
  if ! { cp -a "$SETS/$last" "$SETS/.new-$name" && mv -T "$SETS/.new-$name" "$SETS/$name"; }; then
    rm -rf "$SETS/.new-$name"
    fail "cannot copy $SETS/$last"
  fi
}

decrypt() { # CIPHERTEXT FILE HOST-KEY...
  ciphertext=$1 clear=$2
  shift 2
  first=yes
  for key; do
    [ "$first" = no ] || set --
    first=no
    [ ! -r "$key" ] || set -- "$@" -i "$key"
  done
  [ $# -gt 0 ] || { echo 'this machine has no SSH host key' >&2; return 1; }
  "$age" -d "$@" "$ciphertext" >"$clear" </dev/null
}

# Nothing in the table leads out of the directory, or makes a program of a secret.
is_plain() { # FILE TITLE OWNER GROUP MODE
  case $1$2 in *[!0-9A-Za-z+._?=-]*) return 1 ;; esac
  case $1 in '' | .*) return 1 ;; esac
  case $2 in '' | .*) return 1 ;; esac
  case $3 in '' | -* | *[!0-9A-Za-z_.\$-]*) return 1 ;; esac
  case $4 in '' | -* | *[!0-9A-Za-z_.\$-]*) return 1 ;; esac
  case $5 in [0-7][0-7][0-7] | 0[0-7][0-7][0-7]) ;; *) return 1 ;; esac
}

# One line of the table: how it came, its name with the marker's hash, its name, owner, group, mode, ciphertext.
place() { # HOST-KEY...
  is_plain "$file" "$title" "$owner" "$group" "$mode" ||
    fail "the table of $SETS/$name has a line that no deployment writes"
  case $how in
    plain) cat "$SETS/$name/$title" >"$fresh/$file" || fail "cannot copy the secret $title" ;;
    age) decrypt "$ciphertext" "$fresh/$file" "$@" || fail "this machine cannot decrypt the secret $title ($ciphertext)" ;;
    *) fail "the table of $SETS/$name has a line that is not understood: $how" ;;
  esac
  chown "$owner:$group" "$fresh/$file" || fail "the secret $title cannot be given to $owner:$group; is there such a user?"
  chmod "$mode" "$fresh/$file" || fail "cannot set the mode $mode of the secret $title"
  ln -s "$file" "$fresh/$title" || fail "cannot link the secret $title"
}

# The link changes at once: who opens a secret gets the old one or the new one.
swap() {
  if [ -d "$base" ] && [ ! -L "$base" ] && ! rmdir "$base" 2>/dev/null; then
    fail "$base is a directory with something in it; move that away, or set secrets.baseDirectory"
  fi
  above=${base%/*}
  (umask 022 && mkdir -p "${above:-/}") || fail "cannot make $above"
  rm -f "$base.new"
  if ! ln -s "$fresh" "$base.new" || ! mv -fT "$base.new" "$base"; then fail "cannot point $base to $fresh"; fi
}

remove_link() {
  case $(readlink "$base") in
    "$RUN"/*) rm -f "$base" || fail "cannot remove $base" ;;
  esac
}

# What nobody can activate any more has no use for its secrets.
forget() {
  keep=" $name "
  for link in /run/current-system /run/booted-system /nix/var/nix/profiles/system /nix/var/nix/profiles/system-*-link \
    /nix/var/nix/profiles/system-profiles/*-link /nix/var/nix/gcroots/driftless/*/*; do
    [ ! -L "$link" ] || keep="$keep$(basename "$(readlink -f "$link")") "
  done
  for old in "$SETS"/* "$SETS"/.old-*; do
    [ -d "$old" ] || continue
    case $keep in *" ${old##*/} "*) ;; *) rm -rf "${SETS:?}/${old##*/}" ;; esac
  done
  # What is on its way now comes from this boot, and does not take an hour.
  for old in "$SETS"/.new-*; do
    [ -d "$old" ] || continue
    if [ "$boot" = yes ] || [ -n "$(find "$old" -maxdepth 0 -mmin +60)" ]; then rm -rf "${SETS:?}/${old##*/}"; fi
  done
  for old in "$RUN"/*/; do
    old=${old%/}
    [ ! -d "$old" ] || [ "$old" = "$fresh" ] || rm -rf "${RUN:?}/${old##*/}"
  done
}

# Most machines: there are no secrets, and never were any.
if [ "$declared" = none ] && [ ! -e "$SETS" ] && [ ! -L "$base" ]; then exit 0; fi
# The first activation of this boot.
if [ -e "$RUN/lock" ]; then boot=no; else boot=yes; fi
lock
if [ "$declared" = none ]; then
  remove_link
  rm -f "$RUN/activate"
  forget
  exit 0
fi
# For secrets that come when the system is active already.
if ! ln -sfn "$self" "$RUN/activate.new" || ! mv -fT "$RUN/activate.new" "$RUN/activate"; then
  fail "cannot write $RUN/activate"
fi
recover
adopt
fresh=$(mktemp -d "$RUN/XXXXXXXX") || fail "cannot make a directory in $RUN"
chmod 0711 "$fresh" || fail "cannot open $fresh to its users"
while read -r how file title owner group mode ciphertext; do
  place "$@"
done <"$SETS/$name/.table" || fail "cannot read $SETS/$name/.table"
swap
if ! printf '%s\n' "$name" >"$SETS/.last.new" || ! mv -f "$SETS/.last.new" "$SETS/.last"; then
  fail "cannot write $SETS/.last"
fi
forget
exit 0
