#!/bin/sh
# The node's half of driftless: observes the node, and switches it so that it cannot lock anyone out.
#
#   switch.sh FRAME VERB [ARGUMENT]...
#
# One script in several files, joined in the order of their names. A shell reads it as far as it needs to: questions are
# answered where what they need has been read, and only a switch needs all of it. Runs on the node, as POSIX sh with coreutils, util-linux, systemd and nix. The controller sends it along; `start` keeps
# a copy with the switch, so that the two halves of one switch never differ in version. A reply is everything between the
# lines "driftless/1 FRAME" and "end FRAME": login shells print banners before it, and a broken link cuts it short.
#
# Nothing here relies on `set -e`: every command that can fail is handled where it stands.
set -u
umask 022

# The guard's last look, when the switch has ended as it should: a shell that leaves here has not read the rest.
if [ "${2:-}" = resume ] && { read -r phase <"/run/driftless-node/${3:-}/phase"; } 2>/dev/null && [ "$phase" = finished ]; then
  exit 0
fi

LC_ALL=C
export LC_ALL

# Apart from the controller's own directories (/run/driftless, /var/lib/driftless): its service's runtime directory goes
# when it stops, its state directory may be deleted, and a controller may well be a node of its own fleet.
JOURNAL=/var/lib/driftless-node/switches
PIN=/var/lib/driftless-node/pin
# What people told a controller about this node, should the controller lose it: a line each.
SUSPENDED=/var/lib/driftless-node/suspended
MOST_SUSPENSIONS=50
# The id of the last switch: on /var, because a machine that went down in the middle has no /run left to tell.
OWNER=/var/lib/driftless-node/owner
# "ID": that switch's system is to be booted once. "ID booted": it was, and is not proven yet.
STAGED=/var/lib/driftless-node/staged
# "BOOT-ID CLOCK SYSTEM": the last order to reboot, the boot it was given in, and what was to come back.
REBOOT=/var/lib/driftless-node/reboot
LIVE=/run/driftless-node
LOCK=$LIVE/lock
ROOTS=/nix/var/nix/gcroots/driftless
PROFILE=/nix/var/nix/profiles/system
# As `nixos-rebuild --profile-name driftless` makes it.
TRIAL=/nix/var/nix/profiles/system-profiles/driftless
KEEP=20
# A tab; a shell that does not have to ask printf for it starts faster.
TAB='	'
NEWLINE='
'

BOOT_NOW='' FAILED_BEFORE='' AFTER_ROLLBACK='' NO_CHECK='' PREVIOUS='' WAITING='' TORN='' RUNNING=''
frame=${1:--} verb=${2:-}

# The previous system is rooted and known to work; /run/current-system becomes the possibly broken one in the middle.
search_path() {
  PATH=${1:+$1/sw/bin:}/run/current-system/sw/bin:/usr/sbin:/usr/bin:/sbin:/bin
  export PATH
}
search_path ''

reply() { printf '%s\n' "$*"; }

# The answer to a question: whole, or broken off.
answer() { # FUNCTION FRAME VERB [ARGUMENT]...
  answers=$1
  shift 3
  # On a line of its own, even where the login shell has written something without an end of line.
  reply ''
  reply "driftless/1 $frame"
  if [ "$verb" = observe ] || is_root; then
    "$answers" "$@"
  else
    reply "error this needs root, and $(id -un) is not; privilegeEscalationCommand says how to become it"
  fi
  reply "end $frame"
}

# --- small things ----------------------------------------------------------------------------------------------------

# Seconds since boot: a clock that is being set must not make deadlines expire.
now() {
  read -r NOW _ </proc/uptime || NOW=0
  NOW=${NOW%%.*}
}

# The time of day, in the form of strftime(3). bash, which is NixOS' sh, needs no program for it.
clock() { # FORMAT -> CLOCK
  if [ -n "${BASH_VERSION:-}" ]; then
    # Out of sight of other shells, which do not know it.
    eval 'TZ=UTC0 printf -v CLOCK "%($1)T" -1' 2>/dev/null && return
  fi
  CLOCK=$(date -u "+$1")
}

read_file() { # FILE -> VALUE
  VALUE=
  [ -r "$1" ] || return 1
  read -r VALUE <"$1" || [ -n "$VALUE" ]
}

last_line() { # FILE -> VALUE
  VALUE=
  [ -r "$1" ] || return 1
  # One that the power has cut short has no end, and is not read.
  while read -r line; do VALUE=$line; done <"$1"
  [ -n "$VALUE" ]
}

# On /run, where there is no disk to wait for, and without a program: who reads in the middle finds nothing, as he does where
# /run is full, and looks at what is on /var.
put_live() {
  { printf '%s\n' "$2" >"$1"; } 2>/dev/null || :
}

# One finished file is linked into place: of all who try, exactly one wins. What they brought goes with the switch.
claim() { # FILE TEXT -> VALUE
  claim_file=$1.$$
  [ -e "$1" ] || { printf '%s\n' "$2" 2>/dev/null >"$claim_file" && ln "$claim_file" "$1" 2>/dev/null; }
  read_file "$1"
}

# No program is started where nothing has to be changed, as almost always.
one_line() { # TEXT -> LINE
  case $1 in
    *"$TAB"* | *"$NEWLINE"*) LINE=$(printf '%s' "$1" | tr '\n\t' '  ') ;;
    *) LINE=$1 ;;
  esac
}

short() { # TEXT -> LINE
  one_line "$1"
  [ ${#LINE} -le 500 ] || LINE=$(printf '%s' "$LINE" | cut -c 1-500)
}

# A moment. bash waits for what nobody writes, and may look often; another shell needs a program for it.
pause() {
  if [ -n "${BASH_VERSION:-}" ] && [ -p "$LIVE/$ID/nothing" ]; then
    eval 'read -r -t 0.05 _ <>"$LIVE/$ID/nothing"' 2>/dev/null
    # More than 128 where the time was up.
    [ $? -le 128 ] || return 0
  fi
  sleep 0.2
}

is_id() {
  case $1 in
    *[!0-9A-Za-z-]* | '' | -*) return 1 ;;
    *) return 0 ;;
  esac
}

is_number() {
  case $1 in
    *[!0-9]* | '') return 1 ;;
    *) return 0 ;;
  esac
}

is_store_path() {
  case $1 in
    /nix/store/*/* | *[!0-9A-Za-z+._?=/-]*) return 1 ;;
    /nix/store/?*) return 0 ;;
    *) return 1 ;;
  esac
}

# By no program; bash and dash know -ef, as POSIX does since 2024.
# shellcheck disable=SC3013
runs() { [ -n "$1" ] && [ /run/current-system -ef "$1" ]; } # SYSTEM

read_running() { RUNNING=$(readlink -f /run/current-system); }
read_booted() { BOOTED_SYSTEM=$(readlink -f /run/booted-system); }

read_boot_id() { # -> BOOT_NOW
  [ -n "$BOOT_NOW" ] || { read_file /proc/sys/kernel/random/boot_id && BOOT_NOW=$VALUE; }
}

# The effective user, by proc_pid_status(5): "Uid: real effective saved file-system".
is_root() {
  while read -r key _ effective _; do
    if [ "$key" = Uid: ]; then
      [ "$effective" = 0 ]
      return
    fi
  done </proc/self/status
  [ "$(id -u)" = 0 ]
}

# --- what is known of a switch --------------------------------------------------------------------------------------

read_summary() { read_file "$LIVE/$1/summary" || last_line "$JOURNAL/$1/summary"; } # ID -> VALUE

# Fails where the switch has not begun.
read_phase() { # ID -> VALUE
  read_summary "$1" || return 1
  VALUE=${VALUE#*"$TAB"*"$TAB"*"$TAB"}
  VALUE=${VALUE%%"$TAB"*}
}

# Of this boot. Also `recontact`, which is no phase of the journal.
live_phase() { # -> VALUE
  [ -e "$LIVE/$ID/phase" ] || return 1
  read_file "$LIVE/$ID/phase" || read_phase "$ID"
}

is_unfinished() { read_phase "$1" && [ "$VALUE" != finished ]; } # ID

# By no program: a broken system may have brought its own, and what it is gone back to is written here.
read_keys() {
  while read -r key value; do
    case $key in
      system) SYSTEM=$value ;;
      expected) EXPECTED=$value ;;
      nonce) NONCE=$value ;;
      goal) GOAL=$value ;;
      unproven) UNPROVEN=$value ;;
      reboots) REBOOTS=$value ;;
      revision) REVISION=$value ;;
      asker) ASKER=$value ;;
      ssh-from) SSH_FROM=$value ;;
      last-resort) LAST_RESORT=$value ;;
      switch-timeout) SWITCH_TIMEOUT=$value ;;
      contact-timeout) CONTACT_TIMEOUT=$value ;;
      health-timeout) HEALTH_TIMEOUT=$value ;;
      ignore-failed) IGNORE_FAILED=$value ;;
      ignore-units) IGNORE_UNITS=$value ;;
      checks) CHECKS=$value ;;
      contact-over) CONTACT_OVER=$value ;;
      previous) PREVIOUS=$value ;;
      profile-before) PROFILE_BEFORE=$value ;;
      listened) LISTENED=$value ;;
      routed) ROUTED=$value ;;
      loader-told) LOADER_TOLD=$value ;;
      proving) PROVING=$value ;;
      ssh-units) SSH_UNITS=$value ;;
      started) STARTED=$value ;;
      boot) BOOT=$value ;;
    esac
  done
}

load() { # ID: sets what `start` was given and what `run` recorded
  ID=$1
  ENTRY=$JOURNAL/$ID
  LOG=$LIVE/$ID/log
  SYSTEM='' PREVIOUS='' PROFILE_BEFORE='' NONCE='' EXPECTED='' GOAL=switch REVISION='' ASKER='' SSH_FROM='' LAST_RESORT=reboot
  SWITCH_TIMEOUT=300 CONTACT_TIMEOUT=60 HEALTH_TIMEOUT=60 IGNORE_FAILED=no IGNORE_UNITS='' LISTENED=no ROUTED=no LOADER_TOLD=no
  STARTED=0 BOOT='' OUTCOME='' CAUSE='' DETAIL='' FINISHED='' PHASE='' SSH_UNITS='' CHECKS='' CONTACT_OVER=''
  UNPROVEN=no REBOOTS=no PROVING=no
  if ! is_id "$ID" || [ ! -r "$ENTRY/order" ]; then return 1; fi
  for file in "$ENTRY/order" "$ENTRY/found"; do
    [ -r "$file" ] && read_keys <"$file"
  done
  if live_phase || read_phase "$ID"; then PHASE=$VALUE; fi
  search_path "$PREVIOUS"
}

# When a process began, in ticks since boot; with its number this names it for good. Field 22 of /proc/PID/stat (proc(5)),
# counted from behind the name, which may contain anything.
read_start() { # PID -> VALUE
  read_file "/proc/$1/stat" || return 1
  # shellcheck disable=SC2086 # split on purpose
  set -- ${VALUE##*) }
  VALUE=${20:-}
}

# Whether somebody watches it: asked by anybody, and without touching the lock. proc(5)'s list of locks would not do: in a
# container it names no lock whose taker has ended, and flock(1) has.
alive() {
  read_file "$LIVE/$ID/holder" || return 1
  # Who may not see the processes of others (hidepid=, proc(5)) cannot tell; root can, and is asked before anything is done.
  [ -r /proc/1/stat ] || return 0
  holder=$VALUE
  read_start "${holder% *}" && [ "$VALUE" = "${holder#* }" ]
}

# The order to boot once that nothing has come after yet: WAITING (its id), BOOTED, WAITS_FOR (its system), STAGED_IN (the
# boot it was given in).
read_staged() {
  WAITING='' BOOTED='' WAITS_FOR='' STAGED_IN=''
  [ -r "$STAGED" ] && read -r WAITING BOOTED <"$STAGED"
  if ! is_id "$WAITING" || [ ! -r "$JOURNAL/$WAITING/summary" ]; then
    WAITING=''
    return 1
  fi
  IFS=$TAB read -r _ WAITS_FOR _ _ _ _ _ _ _ _ STAGED_IN _ <"$JOURNAL/$WAITING/summary"
}

instead_of_staged() { # CAUSE; VALUE: a summary
  case $VALUE in
    *"${TAB}staged$TAB-$TAB"*)
      VALUE=${VALUE%%"${TAB}staged$TAB-$TAB"*}${TAB}rolled-back$TAB$1$TAB${VALUE#*"${TAB}staged$TAB-$TAB"}
      ;;
  esac
}

reply_entry() {
  read_staged
  held=no
  is_unfinished "$ID" && alive && held=yes
  read_boot_id
  # Read again: it may have ended in between, and a switch that has ended well must not look like one that died.
  read_summary "$ID" || return 1
  if [ "$ID" = "$WAITING" ] && [ -z "$BOOTED" ] && [ "$STAGED_IN" != "$BOOT_NOW" ]; then
    read_booted
    [ "$BOOTED_SYSTEM" = "$WAITS_FOR" ] || instead_of_staged did-not-boot
  fi
  forgiven=no
  [ -e "$ENTRY/forgiven" ] && forgiven=yes
  reply "entry $VALUE$TAB$BOOT_NOW$TAB$held$TAB$forgiven"
}
