#!/bin/sh
# The node's half of bringing secrets: says what is here already, and takes what is new.
#
#   secrets.sh FRAME compare NAME         stdin: NONCE
#   secrets.sh FRAME put NAME BASE WHEN   stdin: lines and contents, see `take`
#
# NAME is the last part of a system's path; BASE is what `compare` called so; WHEN is `now` where the system that runs is to
# have them at once, else `later`. Runs as root, as POSIX sh with coreutils and util-linux. It comes by stdin, before what it
# reads: nothing of a secret is in an argument, in the environment, in a file that others can read, or in a reply. What
# becomes of a set is the system's own business: nix/modules/activate-secrets.sh.
set -u
umask 077
LC_ALL=C
PATH=/run/current-system/sw/bin:/usr/sbin:/usr/bin:/sbin:/bin
export LC_ALL PATH

HOME_OF_ALL=/var/lib/driftless-node
SETS=$HOME_OF_ALL/secrets
RUN=/run/driftless-secrets.d
fresh=

reply() { printf '%s\n' "$*"; }
short() { printf '%s' "$*" | tr '\n\t' '  ' | cut -c 1-500; }

is_name() {
  case $1 in
    '' | .* | */* | *[!0-9A-Za-z+._?=-]*) return 1 ;;
    *) return 0 ;;
  esac
}

is_account() {
  case $1 in
    '' | -* | *[!0-9A-Za-z_.\$-]*) return 1 ;;
    *) return 0 ;;
  esac
}

# An activation does as root what stands here: who brings secrets may not have a say in anything else.
is_line() { # HOW FILE TITLE OWNER GROUP MODE CIPHERTEXT
  [ $# -eq 7 ] && is_name "$2" && is_name "$3" && is_account "$4" && is_account "$5" || return 1
  case $6 in [0-7][0-7][0-7] | 0[0-7][0-7][0-7]) ;; *) return 1 ;; esac
  case $1$7 in
    plain-) return 0 ;;
    age/nix/store/*) is_name "${7#/nix/store/}" ;;
    *) return 1 ;;
  esac
}

# An activation reads what is written here.
lock() {
  if ! mkdir -p "$RUN" || ! chmod 0711 "$RUN"; then
    reply "error cannot make $RUN"
    return 1
  fi
  exec 9>"$RUN/lock"
  flock -w 30 9 && return
  reply 'error somebody else has been bringing secrets to this node for half a minute; try again'
  return 1
}

# What the set of this system can be made of: what it has itself, else what the last one has.
find_base() { # NAME -> BASE
  BASE=$1
  [ -d "$SETS/$1" ] && return
  BASE=
  { read -r BASE <"$SETS/.last"; } 2>/dev/null
  is_name "$BASE" && [ -d "$SETS/$BASE" ] && return
  BASE=-
}

# By what only the two sides know, and nobody keeps: what is here need not be sent, and no digest says what it is.
verb_compare() { # NAME
  read -r nonce || { reply 'error there was no nonce'; return; }
  find_base "$1"
  reply "base $BASE"
  [ "$BASE" != - ] || return 0
  if [ "$BASE" = "$1" ] && [ -r "$SETS/$1/.table" ]; then
    table=$(sha256sum <"$SETS/$1/.table") && reply "table ${table%% *}"
  fi
  for file in "$SETS/$BASE"/*; do
    [ -f "$file" ] || continue
    digest=$({ printf '%s' "$nonce" && cat "$file"; } | sha256sum) && reply "have ${file##*/} ${digest%% *}"
  done
}

cut_short() { reply "error the secrets were cut short; nothing has changed"; }

#   line TEXT          goes to the table
#   keep TITLE         is as in BASE
#   file TITLE BYTES   its content follows, and an end of line
#   done               all is said
take() {
  while read -r word title bytes; do
    case $word in
      line)
        set -f
        # shellcheck disable=SC2086 # split on purpose
        is_line $title $bytes || { reply 'error bad-argument'; return 1; }
        set +f
        printf '%s\n' "$title${bytes:+ $bytes}" >>"$fresh/.table" || { reply "error cannot write $fresh"; return 1; }
        ;;
      keep)
        is_name "$title" || { reply 'error bad-argument'; return 1; }
        ln "$SETS/$BASE/$title" "$fresh/$title" 2>/dev/null || cp -p "$SETS/$BASE/$title" "$fresh/$title" 2>/dev/null ||
          { reply "error the secret $title is no longer in $SETS/$BASE"; return 1; }
        ;;
      file)
        is_name "$title" || { reply 'error bad-argument'; return 1; }
        case $bytes in '' | *[!0-9]*) reply 'error bad-argument'; return 1 ;; esac
        head -c "$bytes" >"$fresh/$title" || { reply "error cannot write $fresh; is the file system full?"; return 1; }
        [ "$(wc -c <"$fresh/$title")" -eq "$bytes" ] || { cut_short; return 1; }
        read -r word || { cut_short; return 1; }
        ;;
      done) return 0 ;;
      *) reply 'error bad-argument'; return 1 ;;
    esac
  done
  cut_short
  return 1
}

# On the disk first; then at once, but for two renames that the next activation mends if the power goes between them.
replace() { # NAME
  sync "$fresh"/.table "$fresh"/* "$fresh" 2>/dev/null
  rm -rf "$SETS/.old-$1"
  if [ -d "$SETS/$1" ] && ! mv -T "$SETS/$1" "$SETS/.old-$1"; then
    reply "error cannot replace $SETS/$1"
    return 1
  fi
  if ! mv -T "$fresh" "$SETS/$1"; then
    [ ! -d "$SETS/.old-$1" ] || mv -T "$SETS/.old-$1" "$SETS/$1"
    reply "error cannot put $SETS/$1 in place"
    return 1
  fi
  sync "$SETS" 2>/dev/null
  rm -rf "$SETS/.old-$1"
}

verb_put() { # NAME BASE now|later
  BASE=$2
  is_name "$BASE" || [ "$BASE" = - ] || { reply 'error bad-argument'; return; }
  make_room "$1" || { reply "error cannot write $SETS; is the file system full, or read-only?"; return; }
  trap 'rm -rf "$fresh"' EXIT
  trap 'exit 1' HUP INT TERM
  take || return 0
  # Not before: an activation must not wait for what comes over the network.
  lock || return 0
  replace "$1" || return 0
  exec 9>&-
  if [ "$3" = now ]; then activate "$1"; else reply ok; fi
}

make_room() { # NAME -> fresh
  # Others read the journal in the directory above.
  (umask 022 && mkdir -p "$HOME_OF_ALL") || return
  { mkdir -p "$SETS" && chmod 0700 "$SETS"; } || return
  fresh=$(mktemp -d "$SETS/.new-$1.XXXXXX") || return
  : >"$fresh/.table"
}

# By the script of the system that runs, if it is the one that these are for; another one gets them when it is activated.
activate() { # NAME
  system=$(readlink -f /run/current-system)
  if [ "${system##*/}" != "$1" ]; then
    reply ok
  elif [ ! -x "$RUN/activate" ]; then
    reply "error the system that runs was never activated with secrets: there is no $RUN/activate"
  elif said=$("$RUN/activate" "$system" 2>&1 </dev/null); then
    reply ok
  else
    reply "error $(short "$said")"
  fi
}

main() {
  [ $# -ge 3 ] || { echo 'usage: secrets.sh FRAME compare|put NAME ...' >&2; exit 64; }
  frame=$1 verb=$2
  shift 2
  reply ''
  reply "driftless/1 $frame"
  if [ "$(id -u)" != 0 ]; then
    reply "error this needs root, and $(id -un) is not; privilegeEscalationCommand says how to become it"
  elif ! is_name "$1"; then
    reply 'error bad-argument'
  else
    case $verb in
      compare) verb_compare "$@" ;;
      put) verb_put "$@" ;;
      *) reply "error unknown-verb $verb" ;;
    esac
  fi
  reply "end $frame"
}

# Last line: a script that was cut off on its way does nothing.
main "$@"
