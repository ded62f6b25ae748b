#!/bin/sh
# The node's half of driftless: observes the node, and switches it so that it cannot lock anyone out.
#
#   switch.sh FRAME VERB [ARGUMENT]...
#
# Runs on the node, as POSIX sh with coreutils, util-linux, systemd and nix. The controller sends it along; `start` keeps
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
TAB=$(printf '\t')
NEWLINE='
'

# The previous system is rooted and known to work; /run/current-system becomes the possibly broken one in the middle.
search_path() {
  PATH=${1:+$1/sw/bin:}/run/current-system/sw/bin:/usr/sbin:/usr/bin:/sbin:/bin
  export PATH
}

# --- replies -------------------------------------------------------------------------------------------------------

reply() { printf '%s\n' "$*"; }

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

# Also where the power goes: a new name may be on the disk before what it names.
put() { # FILE TEXT: whole, or what stood there before
  if printf '%s\n' "$2" >"$1.new" && { sync "$1.new" 2>/dev/null || :; } && mv -f "$1.new" "$1"; then return 0; fi
  rm -f "$1.new"
  return 1
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
one_line() {
  case $* in
    *"$TAB"* | *"$NEWLINE"*) printf '%s' "$*" | tr '\n\t' '  ' ;;
    *) printf '%s' "$*" ;;
  esac
}
short() {
  if [ ${#1} -gt 500 ]; then one_line "$1" | cut -c 1-500; else one_line "$1"; fi
}

# A moment. bash waits for what nobody writes; another shell needs a program for it.
pause() {
  if [ -n "${BASH_VERSION:-}" ] && [ -p "$LIVE/$ID/nothing" ]; then
    eval 'read -r -t 0.2 _ <>"$LIVE/$ID/nothing"' 2>/dev/null
    # More than 128 where the time was up.
    [ $? -le 128 ] || return 0
  fi
  sleep 0.2
}

# Each question to systemd has a deadline, and none of them inherits the lock.
system_ctl() { timeout -k 5 "${PATIENCE:-30}" systemctl "$@" </dev/null 9>&-; }

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

# The shell of the system before: /bin/sh is what the new one made of it.
find_shell() { # SYSTEM, a store path -> SHELL_BEFORE
  SHELL_BEFORE=$1/sw/bin/sh
  [ -x "$SHELL_BEFORE" ] || SHELL_BEFORE=/bin/sh
}

running() { readlink -f /run/current-system; }
# By no program; bash and dash know -ef, as POSIX does since 2024.
# shellcheck disable=SC3013
runs() { [ -n "$1" ] && [ /run/current-system -ef "$1" ]; } # SYSTEM
booted() { readlink -f /run/booted-system; }
boot_default() { # nothing where there is no such profile
  default=$(readlink -f "$PROFILE")
  if is_store_path "$default"; then printf '%s' "$default"; fi
}

# A unit a line; those of our own do not count.
failed_units() { # [surely]
  listed=$("${1:-system_ctl}" list-units --state=failed --plain --no-legend --no-pager --full 2>/dev/null) || return 1
  printf '%s\n' "$listed" | while read -r unit _; do
    case $unit in driftless-*) ;; ?*) printf '%s\n' "$unit" ;; esac
  done
}

# While systemd re-executes itself nobody answers; silence is not "none".
surely() { # ARGUMENT OF SYSTEMCTL...
  for _ in 1 2 3 4 5 6 7 8 9 10; do
    system_ctl "$@" 2>/dev/null && return
    sleep 0.5
  done
  return 1
}

boot_id() { read_file /proc/sys/kernel/random/boot_id && printf '%s' "$VALUE"; }
read_boot_id() { # -> BOOT_NOW
  [ -n "$BOOT_NOW" ] || BOOT_NOW=$(boot_id)
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

# --- the journal ----------------------------------------------------------------------------------------------------

# One line with everything that anyone may know of a switch. On /run first, because /var may be full; on /var because
# /run is gone after a reboot.
write_summary() {
  summary=$ID$TAB$SYSTEM$TAB$PREVIOUS$TAB$PHASE$TAB${OUTCOME:--}$TAB${CAUSE:--}$TAB$STARTED$TAB${FINISHED:--}
  summary=$summary$TAB${REVISION:--}$TAB${ASKER:--}$TAB$BOOT$TAB${DETAIL:--}
  put_live "$LIVE/$ID/summary" "$summary"
  put "$ENTRY/summary" "$summary" || return 0
  # After a power cut one of these is as good as the one before it: the new name may be on the disk later.
  case $PHASE in checking | contact | health) ;; *) sync "$ENTRY/summary" 2>/dev/null ;; esac
  return 0
}

read_summary() { read_file "$LIVE/$1/summary" || read_file "$JOURNAL/$1/summary"; } # ID -> VALUE

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

# The log grows on /run: /var may be full or turn read-only in the middle, and switch-to-configuration dies of an output
# that it cannot write. Each phase keeps what there is.
note() {
  clock %Y-%m-%dT%H:%M:%SZ
  printf '%s driftless: %s\n' "$CLOCK" "$*" 2>/dev/null >>"$LOG" || :
}

# Who else may read: outcomes are for everybody, orders (with the nonce) and logs are not.
open_live() { mkdir -p "$LIVE/$ID" && (umask 077 && : >>"$LOG"); }

keep_log() {
  if cp "$LOG" "$ENTRY/log.new" 2>/dev/null && mv -f "$ENTRY/log.new" "$ENTRY/log"; then return 0; fi
  rm -f "$ENTRY/log.new" 2>/dev/null
}

enter() { # PHASE
  PHASE=$1
  # A reboot may have taken it away, or a person.
  [ -e "$LOG" ] || open_live
  put_live "$LIVE/$ID/phase" "$PHASE"
  write_summary
  note "phase $PHASE"
  # Only testing writes more than our own few lines, and the end keeps all of them.
  case $PHASE in contact | staging | rolling-back) keep_log ;; esac
}

finish() { # OUTCOME CAUSE DETAIL
  OUTCOME=$1
  CAUSE=$2
  DETAIL=$(short "$3")
  clock %s
  FINISHED=$CLOCK
  PHASE=finished
  note "$OUTCOME${CAUSE:+ ($CAUSE)}${DETAIL:+: $DETAIL}"
  rm -f "$ENTRY/reserve"
  write_summary
  keep_log
  put_live "$LIVE/$ID/phase" finished
  rm -rf "${ROOTS:?}/$ID" "$LIVE/$ID/reserve" "$LIVE/$ID/nothing" "$LIVE/$ID"/fate.* "$LIVE/$ID"/contact.* "$LIVE/$ID"/verdict.*
  forget_old
}

# The id of each switch, oldest first. Ids carry the clocks of those who asked, and clocks go back; the number is the
# node's own. One that a power cut took the number from counts as the oldest.
entries() {
  for dir in "$JOURNAL"/*/; do
    dir=${dir%/}
    is_id "${dir##*/}" || continue
    { read -r number <"$dir/number"; } 2>/dev/null || number=0
    printf '%s %s\n' "$number" "${dir##*/}"
  done | sort -s -n -k 1,1 | cut -d ' ' -f 2
}

next_number() {
  newest=0
  for file in "$JOURNAL"/*/number; do
    [ -r "$file" ] && read -r number <"$file" && [ "$number" -gt "$newest" ] 2>/dev/null && newest=$number
  done
  printf '%s' "$((newest + 1))"
}

# The newest switches are kept; an older one that is unfinished belongs to another boot and is kept out of the way too.
forget_old() {
  set -- "$JOURNAL"/*/
  if [ $# -gt "$KEEP" ]; then
    entries | head -n "-$KEEP" | while read -r old; do
      [ "$old" = "$ID" ] || rm -rf "${JOURNAL:?}/$old" "${LIVE:?}/$old" "${ROOTS:?}/$old"
    done
  fi
  # Roots of switches that a power cut ended: no other than this one can be running.
  for root in "$ROOTS"/*/; do
    old=${root%/}
    old=${old##*/}
    if [ -e "$JOURNAL/$old/summary" ] && [ "$old" != "$ID" ]; then rm -rf "${ROOTS:?}/$old"; fi
  done
  # Roots of copies that never became a switch.
  set -- "$ROOTS"/*/
  [ ! -d "$1" ] || find "$ROOTS" -mindepth 1 -maxdepth 1 -type d -mtime +1 -exec rm -rf {} + 2>/dev/null
  # Scripts whose session ended before they had: no `start` takes an hour.
  set -- "$LIVE"/start-*
  [ ! -f "$1" ] || find "$LIVE" -mindepth 1 -maxdepth 1 -type f -name 'start-*' -mmin +60 -exec rm -f {} + 2>/dev/null
  return 0
}

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

# --- what contact means ---------------------------------------------------------------------------------------------

# SSH_CONNECTION is "client-address client-port server-address server-port" (sshd(8)).
ssh_field() { # N
  # shellcheck disable=SC2086 # split on purpose
  set -- "$1" $SSH_FROM
  case $1 in 1) printf '%s' "${2:-}" ;; 4) printf '%s' "${5:-}" ;; esac
}

# Whether something listens on the port we came in by; /proc/net/tcp has it in hexadecimal, state 0A (proc(5)).
listens() {
  port=$(ssh_field 4)
  case $port in '' | *[!0-9]*) return 0 ;; esac
  hex=$(printf '%04X' "$port")
  for table in /proc/net/tcp /proc/net/tcp6; do
    [ -r "$table" ] || continue
    while read -r _ local _ state _; do
      [ "$state" = 0A ] && [ "${local##*:}" = "$hex" ] && return 0
    done <"$table"
  done
  return 1
}

# Whether there is a route back to the controller.
routed() {
  client=$(ssh_field 1)
  [ -n "$client" ] || return 0
  if command -v ip >/dev/null 2>&1; then
    ip route get "${client%%%*}" >/dev/null 2>&1 </dev/null
    return
  fi
  case $client in
    *:*)
      # Any IPv6 route that is not the loopback's.
      while read -r _ _ _ _ _ _ _ _ _ device; do
        [ "$device" != lo ] && return 0
      done </proc/net/ipv6_route
      return 1
      ;;
    # sshd does not know it either ("UNKNOWN").
    *[!0-9.]*) return 0 ;;
  esac
  # /proc/net/route: addresses as hexadecimal numbers, least significant byte first.
  old_ifs=$IFS
  IFS=.
  # shellcheck disable=SC2086 # split on purpose
  set -- $client
  IFS=$old_ifs
  address=$((${1:-0} + ${2:-0} * 256 + ${3:-0} * 65536 + ${4:-0} * 16777216))
  while read -r device target _ _ _ _ _ mask _; do
    case $device in Iface | lo) continue ;; esac
    [ $((address & 0x$mask)) -eq $((0x$target)) ] && return 0
  done </proc/net/route
  return 1
}

# --- switch-to-configuration ----------------------------------------------------------------------------------------

# Runs it in a unit of its own, so that a deadline ends all its descendants: what is left behind would keep its lock and
# block the rollback. Sets RC: its exit code, or "deadline", "killed" or "unstarted".
STC=0
# Written in place: the page is there already where /run is full by then.
# shellcheck disable=SC2016 # expanded by the inner shell
STC_SCRIPT='"$1" "$2"; echo "$?" 1<>"$3"'
stc() { # SYSTEM ACTION
  STC=$((STC + 1))
  # The watcher and a `resume` after its death must not use one unit name.
  unit=driftless-stc-$ID-$$-$STC
  code=$LIVE/$ID/code-$$
  note "$1/bin/switch-to-configuration $2"
  find_shell "$PREVIOUS"
  RC=unstarted
  printf 'pending\n' 1<>"$code"
  tries=0
  # A systemd that re-executes itself refuses for a moment, or starts the unit and does not say so.
  until stc_start "$1" "$2" || stc_answered || system_ctl --quiet is-active "$unit" 2>/dev/null; do
    tries=$((tries + 1))
    [ "$tries" -lt 20 ] || return
    sleep 0.5
  done
  stc_wait
  # What the main program left running (it may hold the lock of switch-to-configuration) ends with its unit.
  is_certainly_gone "$unit" || system_ctl stop "$unit" >/dev/null 2>&1
  note "switch-to-configuration $2: $RC"
}

# The same, where giving up would leave the node half-way: somebody else's switch-to-configuration, or what an activation has
# left behind, may hold the lock. All waits together last no longer than one switch-to-configuration may, and end as soon
# as somebody has switched the node to something else.
BUSY_SINCE=''
stc_in_turn() { # SYSTEM ACTION
  turn_running=$(running)
  stc "$1" "$2"
  while is_busy && runs "$turn_running"; do
    now
    [ -n "$BUSY_SINCE" ] || BUSY_SINCE=$NOW
    [ $((NOW - BUSY_SINCE)) -lt "$SWITCH_TIMEOUT" ] || return
    sleep 1
    stc "$1" "$2"
  done
}

# Older ones have an exit code for it; since nixpkgs 24.11 it is one of the many meanings of 1.
is_busy() { [ "$RC" = 11 ] || { [ "$RC" = 1 ] && log_says 'could not acquire lock'; }; }

stc_start() { # SYSTEM ACTION
  # The lock's descriptor is closed: a daemon that activation leaves behind must not hold our lock.
  timeout -k 5 60 systemd-run --quiet --collect --no-ask-password --service-type=exec --unit="$unit" \
    -p IgnoreOnIsolate=yes -p KillMode=control-group -p "RuntimeMaxSec=$SWITCH_TIMEOUT" -p TimeoutStopSec=5 \
    -p "StandardOutput=append:$LOG" -p "StandardError=append:$LOG" \
    --setenv="PATH=$PATH" --setenv=LC_ALL=C ${NO_CHECK:+--setenv=NIXOS_NO_CHECK=1} \
    "$SHELL_BEFORE" -c "$STC_SCRIPT" sh "$1/bin/switch-to-configuration" "$2" "$code" </dev/null >>"$LOG" 2>&1 9>&-
}

stc_answered() { read_file "$code" && [ "$VALUE" != pending ]; }

# Where systemd has a unified hierarchy, a unit's cgroup is there for as long as a process of it is.
is_certainly_gone() { [ -d /sys/fs/cgroup/system.slice ] && [ ! -e "/sys/fs/cgroup/system.slice/$1.service" ]; } # UNIT

stc_wait() {
  now
  stc_began=$NOW
  stc_checked=$NOW
  while ! stc_answered; do
    now
    if [ $((NOW - stc_began)) -gt $((SWITCH_TIMEOUT + 15)) ]; then
      system_ctl kill --signal=KILL "$unit" >/dev/null 2>&1
      break
    fi
    if [ "$NOW" -ne "$stc_checked" ]; then
      stc_checked=$NOW
      # While systemd re-executes itself it answers nothing; only a clear word counts.
      case $(system_ctl show --property=ActiveState "$unit" 2>/dev/null) in
        ActiveState=inactive | ActiveState=failed) break ;;
      esac
    fi
    pause
  done
  if stc_answered; then
    RC=$VALUE
    # 128 and a signal's number: the kernel or a person ended it, it did not say that it failed.
    if [ "$RC" -gt 128 ] && [ "$RC" -lt 193 ]; then RC=killed; fi
  elif [ $((NOW - stc_began)) -ge "$SWITCH_TIMEOUT" ]; then
    RC=deadline
  else
    RC=killed
  fi
}

new_failed_units() {
  # IGNORE_UNITS are patterns of units, not of files.
  set -f
  { failed_units surely || echo systemd-does-not-answer; } | while read -r unit; do
    case " $FAILED_BEFORE " in *" $unit "*) continue ;; esac
    for pattern in $IGNORE_UNITS; do
      # shellcheck disable=SC2254 # a pattern on purpose
      case $unit in $pattern) continue 2 ;; esac
    done
    printf '%s ' "$unit"
  done
  set +f
}

# --- the guard ------------------------------------------------------------------------------------------------------

# A unit of its own that waits for the lock as long as the switch lasts, and ends what is unfinished then. It shares nothing
# with the watcher that one signal could take: killed alone it is started again, in a new cgroup (on Linux 6.18 a cgroup that
# was once killed as a whole kills what systemd 257 starts in it, so the watcher's own ExecStopPost= would not do); stopped,
# also together with the watcher, it ends the switch first.
guard() { # ID
  unit=driftless-guard-$1
  tries=0
  until guard_start "$1" || system_ctl --quiet is-active "$unit" 2>/dev/null; do
    tries=$((tries + 1))
    [ "$tries" -lt 6 ] || return 1
    sleep 0.5
  done
}

guard_start() { # ID
  guarded=$JOURNAL/$1/switch.sh
  find_shell "${PREVIOUS:-$(running)}"
  # Its end is the switch's, which has deadlines.
  timeout -k 5 20 systemd-run --quiet --collect --no-ask-password --service-type=exec --unit="$unit" \
    -p OOMPolicy=continue -p OOMScoreAdjust=-900 -p IgnoreOnIsolate=yes -p TimeoutStopSec=infinity \
    -p Restart=on-failure -p RestartSec=1 -p StartLimitIntervalSec=600 -p StartLimitBurst=100 \
    -p "ExecStopPost=-$SHELL_BEFORE $guarded - resume $1" \
    "$SHELL_BEFORE" "$guarded" - resume "$1" </dev/null >>"$LOG" 2>&1 9>&-
}

# --- the phases -----------------------------------------------------------------------------------------------------

refuse() { # WORD...
  put "$LIVE/$ID/refusal" "$*" || put "$ENTRY/refusal" "$*"
  exit 75
}


# One question for both: which units have failed, and which of those that let people in are active.
read_units() { # -> FAILED_BEFORE SSH_UNITS
  listed=$(surely list-units --state=failed,active --plain --no-legend --no-pager --full) || return 1
  FAILED_BEFORE='' SSH_UNITS=''
  old_ifs=$IFS
  set -f
  IFS=$NEWLINE
  for line in $listed; do
    IFS=' '
    # shellcheck disable=SC2086 # split on purpose: UNIT LOAD ACTIVE SUB DESCRIPTION (systemctl(1), list-units)
    set -- $line
    case ${3:-}:${1:-} in
      failed:driftless-*) ;;
      failed:*) FAILED_BEFORE="$FAILED_BEFORE $1" ;;
      active:sshd.socket | active:ssh.socket | active:sshd.service | active:ssh.service) SSH_UNITS="$SSH_UNITS $1" ;;
    esac
  done
  IFS=$old_ifs
  set +f
  FAILED_BEFORE=${FAILED_BEFORE# } SSH_UNITS=${SSH_UNITS# }
}

# Everything the rest of the switch, or whoever has to finish it, needs to know of the time before.
record_found() {
  BOOT=$(boot_id)
  clock %s
  STARTED=$CLOCK
  PROFILE_BEFORE=$(boot_default)
  read_units || return 1
  # Units that failed while it was booted are its own failures.
  if [ "$PROVING" = yes ]; then FAILED_BEFORE=$(failed_before_staging); fi
  listens && LISTENED=yes
  routed && ROUTED=yes
  boots "$PROFILE_BEFORE" && LOADER_TOLD=yes
  put "$ENTRY/found" "previous $PREVIOUS
profile-before $PROFILE_BEFORE
listened $LISTENED
routed $ROUTED
loader-told $LOADER_TOLD
proving $PROVING
failed-before $FAILED_BEFORE
ssh-units $SSH_UNITS
started $STARTED
boot $BOOT" || return 1
  # Given back for the rollback: a unit cannot be started on a full /run.
  printf '%0262144d' 0 >"$LIVE/$ID/reserve" || return 1
  # Given back for the last word: after the next boot only /var can tell how it ended.
  printf '%016384d' 0 >"$ENTRY/reserve"
}

root_systems() {
  [ -d "$ROOTS/$ID" ] || mkdir -p "$ROOTS/$ID" || return 1
  ln -sfn "$SYSTEM" "$ROOTS/$ID/system" && ln -sfn "$PREVIOUS" "$ROOTS/$ID/previous" || return 1
  if [ -n "$PROFILE_BEFORE" ]; then ln -sfn "$PROFILE_BEFORE" "$ROOTS/$ID/profile" || return 1; fi
}

# Nobody but root may open it: whoever can, can hold it and keep all switches away.
take_lock() { # [SECONDS]
  [ -d "$LIVE" ] || mkdir -p "$LIVE" || return 1
  # In a shell of its own, which is all that a failed redirection of `:` ends.
  [ -e "$LOCK" ] || (umask 077 && : >>"$LOCK") || return 1
  # A failed redirection of exec alone ends the shell.
  command exec 9>>"$LOCK" || return 1
  flock ${1:+-w "$1"} 9
}

# Says who holds the lock for this switch, for those who may not open it. Whole or not at all: who finds nothing takes the
# switch for dead.
hold() {
  read_start $$ && printf '%s\n' "$$ $VALUE" 2>/dev/null >"$LIVE/$ID/holder.new" &&
    mv -f "$LIVE/$ID/holder.new" "$LIVE/$ID/holder"
}

# When a process began, in ticks since boot; with its number this names it for good. Field 22 of /proc/PID/stat (proc(5)),
# counted from behind the name, which may contain anything.
read_start() { # PID -> VALUE
  read_file "/proc/$1/stat" || return 1
  # shellcheck disable=SC2086 # split on purpose
  set -- ${VALUE##*) }
  VALUE=${20:-}
}

# An earlier switch that has not ended: its watcher has just died, or the machine went down. Its guard ends it before
# anything begins, or what it left behind would be taken for the way back.
end_former() {
  read_file "$OWNER" && is_id "$VALUE" || return 0
  former=$VALUE
  is_unfinished "$former" || return 0
  exec 9>&-
  guard "$former"
  now
  former_began=$NOW
  while is_unfinished "$former"; do
    [ $((NOW - former_began)) -lt 20 ] || refuse unfinished "$former"
    pause
    now
  done
  take_lock 3 || refuse busy
}

is_unfinished() { read_phase "$1" && [ "$VALUE" != finished ]; } # ID

run() {
  # Of a version before, which let others read it, and so hold it.
  [ ! -e "$LOCK" ] || chmod 0600 "$LOCK" || refuse unwritable "$LOCK"
  # The guard of the switch before may hold it for one more moment.
  take_lock 3 || refuse busy
  end_former
  hold
  mkfifo -m 600 "$LIVE/$ID/nothing" 2>/dev/null
  PREVIOUS=$(running)
  [ "$PREVIOUS" = "$EXPECTED" ] || refuse changed "${PREVIOUS:--}"
  [ -x "$SYSTEM/bin/switch-to-configuration" ] || refuse missing "$SYSTEM"
  if proves; then PROVING=yes PREVIOUS=$(boot_default); fi
  [ -x "$PREVIOUS/bin/switch-to-configuration" ] || refuse no-way-back "$PREVIOUS"
  search_path "$PREVIOUS"
  record_found || refuse unwritable "$ENTRY"
  root_systems || refuse unwritable "$ROOTS"
  put "$OWNER" "$ID" || refuse unwritable "$OWNER"
  guard "$ID" || refuse unit "driftless-guard-$ID"
  # `start` may have given us up meanwhile; then it has said so, and nothing may happen any more.
  claim "$LIVE/$ID/fate" run && [ "$VALUE" = run ] || exit 75
  settle_staged || refuse staged "$WAITS_FOR is to be booted once, and the boot loader does not forget it"
  enter checking
  # A unit that never says that it is ready is ended by systemd, in the middle of whatever it is doing by then.
  if ! systemd-notify --ready; then
    finish rolled-back killed 'systemd-notify failed: systemd would end this switch in the middle'
    exit 0
  fi
  # Each phase that ends the switch ends the process.
  if [ "$GOAL" = boot ] && [ "$PROVING" = no ]; then
    if [ "$PROFILE_BEFORE" = "$SYSTEM" ]; then commit; fi
    stage
  fi
  # What is still starting has not failed yet.
  if [ "$PROVING" = yes ]; then PATIENCE=$SWITCH_TIMEOUT system_ctl is-system-running --wait >/dev/null 2>&1; fi
  check_before
  activate
  await_contact
  await_verdict
  if [ "$GOAL" = test ]; then
    still_ours
    finish succeeded '' 'goal test: profile and boot loader are as before'
  else
    commit
  fi
  exit 0
}

# What only a boot changes.
check_before() {
  check_inhibitors
  if may_stage && other_kernels; then stage_instead 'kernel, initrd or modules are not those that have booted'; fi
}

# Whether the asker reboots the node where that is needed.
may_stage() { [ "$REBOOTS" = allowed ] && [ "$GOAL" = switch ] && [ "$PROVING" = no ]; }

# A system without kernel (a container) has no other one.
other_kernels() {
  wanted=$(kernels_of "$SYSTEM") booted=$(kernels_of /run/booted-system)
  [ -n "$wanted" ] && [ -n "$booted" ] && [ "$wanted" != "$booted" ]
}

# From here on it is a switch with the goal to boot, also for whoever has to finish it.
stage_instead() { # REASON
  note "$1: it is booted once instead"
  GOAL=boot
  if ! found=$(cat "$ENTRY/found") || ! put "$ENTRY/found" "$found${NEWLINE}goal boot"; then
    untouched killed "$ENTRY/found cannot be written"
  fi
  if [ "$PROFILE_BEFORE" = "$SYSTEM" ]; then commit; fi
  stage
}

# nixpkgs' switch inhibitors (system.switch.inhibitors) compare with the *booted* system; a system without the file has none.
check_inhibitors() {
  [ -r "$SYSTEM/switch-inhibitors" ] || return 0
  ! cmp -s "$SYSTEM/switch-inhibitors" /run/booted-system/switch-inhibitors 2>/dev/null || return 0
  wanted=$(cat "$SYSTEM/switch-inhibitors")
  booted=$(cat /run/booted-system/switch-inhibitors 2>/dev/null || printf '{}')
  [ "$wanted" = "$booted" ] && return 0
  if may_stage; then stage_instead "switch inhibitors differ from the booted system's"; fi
  finish rolled-back needs-reboot "switch inhibitors differ from the booted system's: $booted -> $wanted"
  exit 0
}

activate() {
  enter testing
  stc "$SYSTEM" test
  case $RC in
    0) return ;;
    4)
      fresh=$(new_failed_units)
      if [ -z "$fresh" ] || [ "$IGNORE_FAILED" = yes ]; then
        note "failed units${fresh:+ (ignored: $fresh)}: none that count"
        return
      fi
      roll_back units "$fresh"
      ;;
    100)
      if may_stage && runs "$PREVIOUS"; then stage_instead 'switch-to-configuration asks for a reboot (exit 100)'; fi
      untouched needs-reboot 'switch-to-configuration: a reboot is needed (exit 100)'
      ;;
    deadline) roll_back deadline "switch-to-configuration test did not end within $SWITCH_TIMEOUT s" ;;
    killed) roll_back killed "switch-to-configuration test was killed; $(last_words)" ;;
    unstarted) untouched killed "switch-to-configuration test could not be started; $(last_words)" ;;
    *)
      # Both come before it does anything.
      if is_busy; then untouched busy 'the lock of switch-to-configuration is taken'; fi
      if [ "$RC" = 1 ] && log_says 'pre-switch checks failed'; then untouched check "$(last_words)"; fi
      roll_back activation "switch-to-configuration test: exit code $RC; $(last_words)"
      ;;
  esac
  exit 0
}

# The last switch-to-configuration.
log_says() {
  tail -n 60 "$LOG" 2>/dev/null | sed -n 'H; / driftless: .*\/bin\/switch-to-configuration /h; ${ g; p; }' | grep -qi "$1"
}
last_words() { grep -v ' driftless: ' "$LOG" 2>/dev/null | tail -n 3; }

# Nothing was activated: there is nothing to undo, unless it was after all.
untouched() { # CAUSE DETAIL
  if runs "$PREVIOUS"; then
    finish rolled-back "$1" "$2"
  else
    roll_back "$1" "$2"
  fi
  exit 0
}

# Waits until somebody, or the deadline, has claimed FILE. Sets VALUE to what stands there.
await() { # FILE SECONDS
  now
  await_began=$NOW
  while [ ! -e "$1" ]; do
    now
    if [ $((NOW - await_began)) -ge "$2" ]; then
      claim "$1" timeout || VALUE=timeout
      return
    fi
    pause
  done
  read_file "$1" || VALUE=timeout
}

await_contact() {
  enter contact
  await "$LIVE/$ID/contact" "$CONTACT_TIMEOUT"
  [ "$VALUE" = made ] && return
  roll_back contact "no new login within $CONTACT_TIMEOUT s${CONTACT_OVER:+ $CONTACT_OVER}"
  exit 0
}

await_verdict() {
  enter health
  await "$LIVE/$ID/verdict" "$HEALTH_TIMEOUT"
  case $VALUE in
    accept) return ;;
    reject*) roll_back rejected "${VALUE#reject }" ;;
    *) roll_back silence "no verdict within $HEALTH_TIMEOUT s" ;;
  esac
  exit 0
}

set_profile() { # SYSTEM
  # shellcheck disable=SC3013 # as in `runs`
  [ "$PROFILE" -ef "$1" ] && return
  point "$PROFILE" "$1"
}

point() { # PROFILE SYSTEM
  note "nix-env --profile $1 --set $2"
  HOME=${HOME:-/root} timeout -k 5 120 nix-env --profile "$1" --set "$2" \
    </dev/null >>"$LOG" 2>&1 9>&- && [ "$(readlink -f "$1")" = "$2" ]
}

# Whether the boot loader's default entry starts SYSTEM. A loader that cannot be read is believed.
boots() { # SYSTEM
  for esp in /boot /efi /boot/efi; do
    [ -r "$esp/loader/loader.conf" ] || continue
    default=
    while read -r key value _; do
      [ "$key" = default ] && default=$value
    done <"$esp/loader/loader.conf"
    [ -n "$default" ] || return 0
    entries=no
    for place in /boot /efi /boot/efi; do
      # The default may be a pattern (loader.conf(5)), and the entries may be on another partition than it.
      for file in "$place"/loader/entries/$default "$place"/loader/entries/$default.conf; do
        starts "$1" "$file" && return 0
      done
      for file in "$place"/loader/entries/*.conf; do [ -e "$file" ] && entries=yes; done
    done
    # Unified kernel images (lanzaboote) have no entry files: nothing to read.
    [ "$entries" = no ]
    return
  done
  if [ -r /boot/grub/grub.cfg ]; then
    # NixOS writes its default first, then all the older generations.
    [ "$(grep -m 1 -o 'init=[^ ]*' /boot/grub/grub.cfg)" = "init=$1/init" ]
    return
  fi
  return 0
}

# Whether an entry of the boot loader starts SYSTEM.
starts() { # SYSTEM FILE
  [ -r "$2" ] || return 1
  while read -r line || [ -n "$line" ]; do
    case "$line " in *" init=$1/init "* | *"${TAB}init=$1/init "*) return 0 ;; esac
  done <"$2"
  return 1
}

# Somebody else's switch meanwhile is not ours to prove.
still_ours() {
  runs "$SYSTEM" && return
  finish interfered foreign "$(running) runs, not $SYSTEM"
  exit 0
}

commit() {
  if [ "$GOAL" = switch ] || [ "$PROVING" = yes ]; then still_ours; fi
  enter committing
  if make_default "$SYSTEM"; then
    [ ! -e "$STAGED" ] || rm -f "$STAGED"
    finish succeeded '' ''
    exit 0
  fi
  said=$SAID
  note "commit failed: $said"
  restore_profile || said="$said; and the profile could not be restored"
  if [ "$GOAL" = boot ]; then
    finish commit-failed commit "$said"
    exit 0
  fi
  AFTER_ROLLBACK=commit-failed
  roll_back commit "$said"
  exit 0
}

# Profile and boot loader, both looked at afterwards.
make_default() { # SYSTEM -> SAID
  if ! set_profile "$1"; then
    SAID="nix-env could not set the profile; $(last_words)"
    return 1
  fi
  stc_in_turn "$1" boot
  if [ "$RC" != 0 ]; then
    SAID="switch-to-configuration boot: $RC; $(last_words)"
    return 1
  fi
  # Files of a loader that is no longer the machine's (a former systemd-boot) did not tell the truth before either.
  if [ "$LOADER_TOLD" = yes ] && ! boots "$1"; then
    SAID="the boot loader's default entry is not $1"
    return 1
  fi
}

restore_profile() {
  [ -n "$PROFILE_BEFORE" ] || return 0
  # Somebody else's since.
  case $(boot_default) in "$SYSTEM" | "$PROFILE_BEFORE") ;; *) return 0 ;; esac
  # It was the default before: its own checks have no say in becoming it again.
  NO_CHECK=1
  make_default "$PROFILE_BEFORE"
}

# --- booting once ---------------------------------------------------------------------------------------------------

# A system that only a reboot can start is booted once and made the default only after it has proven itself. It gets a
# profile of its own, for which NixOS' builders of boot loaders make an entry beside those of the system profile. So
# neither that profile nor the loader's default ever points to it, whenever the power goes.
stage() {
  enter staging
  can_boot_once || unproven_boot
  if try_stage; then
    finish staged '' ''
    exit 0
  fi
  note "staging failed: $said"
  unstage || said="$said; and the boot loader may still start it once"
  # Without its profile it loses its entry too.
  write_loader
  [ "$cause" = commit ] || unproven_boot
  finish commit-failed commit "$said"
  exit 0
}

unproven_boot() {
  if [ "$UNPROVEN" = yes ]; then
    note "$said: it becomes the default without proof"
    commit
  fi
  finish rolled-back unproven-boot "$said"
  exit 0
}

try_stage() {
  cause=commit
  said='its profile could not be made'
  mkdir -p "${TRIAL%/*}" && point "$TRIAL" "$SYSTEM" || return 1
  write_loader
  said="switch-to-configuration boot: $RC; $(last_words)"
  [ "$RC" = 0 ] || return 1
  said="the boot loader's default entry is not $PROFILE_BEFORE"
  boots "$PROFILE_BEFORE" || return 1
  said="$STAGED cannot be written"
  put "$STAGED" "$ID" && sync "$STAGED" || return 1
  cause=unproven-boot
  said='the boot loader has no entry for it'
  entry=$(entry_of "$SYSTEM")
  [ -n "$entry" ] || return 1
  once "$entry" && return
  said="the boot loader takes no order for one boot; $(last_words)"
  return 1
}

# The default is as before: its own checks have no say in staying that.
write_loader() {
  NO_CHECK=1
  stc "$PROFILE_BEFORE" boot
  NO_CHECK=''
}

# Forgets what was to be booted once. The entry goes when the boot loader is written the next time.
unstage() {
  once '' || return 1
  rm -f "$TRIAL" "$TRIAL"-*-link "$STAGED"
}

can_boot_once() {
  said='this boot loader cannot boot a system once'
  case $(loader) in
    systemd-boot) ;;
    grub) grub_forgets || return 1 ;;
    *) return 1 ;;
  esac
  said="the boot loader's files do not say that it starts $PROFILE_BEFORE"
  if [ -z "$PROFILE_BEFORE" ] || [ "$LOADER_TOLD" = no ]; then return 1; fi
  # To take an order back needs the same as to give one: UEFI variables, a loader that reads them.
  once '' && return
  said="the boot loader takes no order for one boot; $(last_words)"
  return 1
}

# As `boots` finds it.
loader() {
  for esp in /boot /efi /boot/efi; do
    if [ -r "$esp/loader/loader.conf" ]; then
      echo systemd-boot
      return
    fi
  done
  if [ -r /boot/grub/grub.cfg ]; then echo grub; fi
}

# An order for one boot is worse than none where GRUB cannot cross it out: it writes its environment block in place, on few
# file systems, and not on LVM, RAID or encryption (GRUB manual, "Environment block").
grub_forgets() {
  grep -q 'save_env next_entry' /boot/grub/grub.cfg || return 1
  case $(stat -f -c %T /boot/grub) in
    ext2/ext3 | msdos | xfs) ;;
    *) return 1 ;;
  esac
  device=$(findmnt -n -o SOURCE -T /boot/grub) && device=$(readlink -f "$device") || return 1
  case $device in
    /dev/dm-* | /dev/md*) return 1 ;;
    /dev/*) return 0 ;;
    *) return 1 ;;
  esac
}

# What the boot loader starts at the next boot only; nothing: nothing any more.
once() { # ENTRY
  note "boot once: ${1:-nothing}"
  case $(loader) in
    systemd-boot) set -- bootctl set-oneshot "$1" ;;
    grub)
      # What grub-reboot does.
      if [ -n "$1" ]; then set -- set "next_entry=$1"; else set -- unset next_entry; fi
      set -- grub-editenv /boot/grub/grubenv "$@"
      ;;
    *) return 1 ;;
  esac
  timeout -k 5 60 "$@" </dev/null >>"$LOG" 2>&1 9>&-
}

# The boot loader's name for the entry of a system, if it has one.
entry_of() { # SYSTEM
  if [ "$(loader)" = grub ]; then
    grub_entry_of "$1" </boot/grub/grub.cfg
    return
  fi
  for file in /boot/loader/entries/*.conf /efi/loader/entries/*.conf /boot/efi/loader/entries/*.conf; do
    starts "$1" "$file" || continue
    file=${file##*/}
    # The counter of boot attempts is no part of the name (systemd-boot(7), "Boot counting").
    case $file in *+*) file=${file%+*}.conf ;; esac
    printf '%s' "$file"
    return
  done
}

# "Title of the submenu>title of the entry".
grub_entry_of() { # SYSTEM
  menu='' title=''
  while read -r word line; do
    case $word in
      submenu | menuentry)
        line=${line#\"}
        line=${line%%\"*}
        if [ "$word" = submenu ]; then menu="$line>"; else title=$line; fi
        ;;
      '}') if [ -n "$title" ]; then title=''; else menu=''; fi ;;
      *)
        case " $line " in
          *" init=$1/init "*)
            printf '%s' "$menu$title"
            return
            ;;
        esac
        ;;
    esac
  done
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

# Whether this switch is the proof of what was booted once: only then the way back is a reboot.
proves() {
  read_staged && [ "$WAITS_FOR" = "$SYSTEM" ] && [ "$SYSTEM" = "$PREVIOUS" ] && [ "$STAGED_IN" != "$(boot_id)" ] &&
    [ "$(booted)" = "$SYSTEM" ] && default=$(boot_default) &&
    [ -n "$default" ] && [ "$default" != "$SYSTEM" ]
}

# A new switch ends what waited for a reboot; the journal keeps what became of it.
settle_staged() {
  if [ -z "$WAITING" ]; then
    :
  elif [ "$STAGED_IN" = "$BOOT" ]; then
    once '' || return 1
    settle superseded
  elif [ -z "$BOOTED" ]; then
    if [ "$(booted)" = "$WAITS_FOR" ]; then put "$STAGED" "$WAITING booted"; else settle did-not-boot; fi
  fi
  if [ -n "$WAITING" ] || [ -L "$TRIAL" ]; then rm -f "$TRIAL" "$TRIAL"-*-link; fi
  [ "$PROVING" = yes ] || [ ! -e "$STAGED" ] || rm -f "$STAGED"
}

failed_before_staging() {
  while read -r key value; do
    if [ "$key" = failed-before ]; then printf '%s' "$value"; fi
  done <"$JOURNAL/$WAITING/found"
}

settle() { # CAUSE
  read_file "$JOURNAL/$WAITING/summary" || return
  instead_of_staged "$1"
  put "$JOURNAL/$WAITING/summary" "$VALUE"
  rm -f "$LIVE/$WAITING/summary"
}

instead_of_staged() { # CAUSE; VALUE: a summary
  case $VALUE in
    *"${TAB}staged$TAB-$TAB"*)
      VALUE=${VALUE%%"${TAB}staged$TAB-$TAB"*}${TAB}rolled-back$TAB$1$TAB${VALUE#*"${TAB}staged$TAB-$TAB"}
      ;;
  esac
}

# --- rollback -------------------------------------------------------------------------------------------------------

roll_back() { # CAUSE DETAIL
  if ! is_ours; then
    finish interfered foreign "$(running) runs; nothing was touched. First: $2"
    return
  fi
  CAUSE=$1
  DETAIL=$(short "$2")
  rm -f "$LIVE/$ID/reserve"
  enter rolling-back
  if [ "$PROVING" = yes ]; then
    leave "$1" "$2"
    return
  fi
  # The previous system ran here a moment ago: its own checks have no say in getting back to it.
  NO_CHECK=1
  if reactivate || { sleep 1 && is_ours && reactivate; }; then
    repair_contact "${AFTER_ROLLBACK:-rolled-back}" "$1" "$2"
  elif ! is_ours; then
    finish interfered foreign "$(running) runs since the rollback began. First: $2"
  else
    repair_contact rollback-failed "$1" "$2; re-activating $PREVIOUS: $RC; $(last_words)"
  fi
}

# Nobody else has switched the node to a system of theirs.
is_ours() {
  case $(running) in
    "$SYSTEM" | "$PREVIOUS") return 0 ;;
    /nix/store/*) return 1 ;;
    *) note 'no system is the current one' ;;
  esac
}

reactivate() {
  stc_in_turn "$PREVIOUS" test
  case $RC in
    0 | 4) runs "$PREVIOUS" ;;
    *) return 1 ;;
  esac
}

lost_contact() {
  if [ "$LISTENED" = yes ] && ! listens; then return 0; fi
  if [ "$ROUTED" = yes ] && ! routed; then return 0; fi
  return 1
}

# The machine is rebooted only when the way in is visibly gone, nobody gets in, and it would boot the previous system.
repair_contact() { # OUTCOME CAUSE DETAIL
  if [ "$LISTENED" = yes ] && ! listens; then
    for unit in $SSH_UNITS; do
      note "restarting $unit"
      PATIENCE=60 system_ctl restart "$unit" >>"$LOG" 2>&1
    done
    # A daemon may take a moment to listen.
    for _ in 1 2 3 4 5 6 7 8 9 10; do
      listens && break
      sleep 0.5
    done
  fi
  if lost_contact; then
    # A file of its own: what was said of the new system, and only now arrives, proves nothing here.
    rm -f "$LIVE/$ID/recontact"
    put "$LIVE/$ID/phase" recontact
    await "$LIVE/$ID/recontact" "$CONTACT_TIMEOUT"
    if [ "$VALUE" != made ]; then
      last_resort "$@" 'the way in stayed shut after the rollback'
      return
    fi
  fi
  finish "$@"
}

# What was booted once is left as it came, by a reboot. A controller that fell silent is no reason for one, nor is a boot
# loader that cannot be changed: then the system goes on running, and any boot starts the default.
leave() { # CAUSE DETAIL
  case $1 in
    rejected | units | activation | deadline | check)
      last_resort rolled-back "$1" "$2" 'it was booted once'
      return
      ;;
    contact)
      if lost_contact; then
        repair_contact rolled-back "$1" "$2"
        return
      fi
      set -- silence "$2"
      ;;
  esac
  finish "${AFTER_ROLLBACK:-rolled-back}" "$1" "$2; it still runs, the boot default is $PREVIOUS"
}

last_resort() { # OUTCOME CAUSE DETAIL REASON
  if [ "$LAST_RESORT" != reboot ] || [ "$(boot_default)" != "$PREVIOUS" ] || ! boots "$PREVIOUS"; then
    finish rollback-failed "$2" "$4, and a reboot is not allowed or would not boot $PREVIOUS; $3"
    return
  fi
  # The reboot is what puts the previous system back, whatever its re-activation said. First, because a detail is cut short.
  finish "${AFTER_ROLLBACK:-rolled-back}" "$2" "$4: rebooting into $PREVIOUS; $3"
  # No `sync`: what is mounted over the network that is gone would keep it for ever. The journal is on the disk.
  system_ctl reboot >>"$LOG" 2>&1 || system_ctl reboot --force >>"$LOG" 2>&1 ||
    finish rollback-failed "$2" "$4, and the reboot failed; $3"
}

# --- the end of a switch whose watcher is gone ----------------------------------------------------------------------

resume() {
  # For PATH: what the current system has in it may be what is broken.
  load "$ID" || exit 0
  take_lock || exit 1
  # Much may have happened while it waited.
  load "$ID" || exit 0
  read_file "$OWNER" && [ "$VALUE" = "$ID" ] || exit 0
  # Whose end is written has ended, also where the word had no time to become its phase.
  is_unfinished "$ID" || exit 0
  case $PHASE in '' | finished) exit 0 ;; esac
  [ "$(system_ctl is-system-running 2>/dev/null)" = stopping ] && exit 0
  [ -e "$LOG" ] || open_live
  hold
  note "the watcher ended in phase $PHASE"
  if [ "$BOOT" != "$(boot_id)" ]; then
    end_after_boot
    exit 0
  fi
  # What it had started still runs, and holds the lock of switch-to-configuration.
  system_ctl stop "driftless-stc-$ID-*" >>"$LOG" 2>&1
  said="the watcher ended in phase $PHASE"
  case $PHASE in
    checking) untouched killed "$said" ;;
    staging)
      unstage || said="$said, and the boot loader may still start it once"
      finish rolled-back killed "$said"
      exit 0
      ;;
    committing)
      if [ "$GOAL" = boot ] || [ "$(running)" = "$SYSTEM" ]; then commit; fi
      restore_profile || note "the profile could not be restored: $SAID"
      ;;
  esac
  roll_back killed "$said"
  exit 0
}

# The machine went down in the middle and has booted since: there is nothing to roll back. But in the middle of a commit
# profile and boot loader may have been left to different systems, and the profile to one that cannot boot.
end_after_boot() {
  said="the machine went down in phase $PHASE"
  if [ "$PHASE" = committing ]; then
    target=$PROFILE_BEFORE
    # What has booted, or was the default before, needs no checks of its own.
    NO_CHECK=1
    [ "$(running)" = "$SYSTEM" ] && target=$SYSTEM
    case $(boot_default) in
      "$SYSTEM" | "$PROFILE_BEFORE")
        if make_default "$target"; then said="$said; $target boots"; else said="$said; $SAID"; fi
        ;;
      *) said="$said; somebody has set the profile since" ;;
    esac
  fi
  finish interrupted killed "$said"
}

# --- verbs ----------------------------------------------------------------------------------------------------------

verb_observe() { # [nix]
  system=$(running)
  if [ ! -e /etc/NIXOS ] || ! is_store_path "$system"; then
    reply "error not-nixos"
    return
  fi
  reply "boot-id $(boot_id)"
  read_file /etc/machine-id && reply "machine-id $VALUE"
  now
  reply "uptime $NOW"
  clock %s
  reply "clock $CLOCK"
  reply "running $system"
  reply "boot-default $(boot_default)"
  link=$(readlink "$PROFILE")
  link=${link##*/}
  link=${link#system-}
  reply "generation ${link%-link}"
  booted=$(booted)
  reply "booted $booted"
  reply_kernels booted "$booted"
  if [ "$booted" = "$system" ]; then
    printf '%s\n' "$kernels" | while read -r path; do reply "running-kernel $path"; done
  else
    reply_kernels running "$system"
  fi
  failed_units | while read -r unit; do reply "failed-unit $unit"; done
  reply_free
  if read_staged && [ "$STAGED_IN" = "$(boot_id)" ]; then reply "staged $WAITS_FOR"; fi
  if [ "${1:-}" = nix ]; then reply "nix-version $(nix --version 2>/dev/null </dev/null)"; fi
  # Of the driftless-node that nix/node.nix installed.
  if read_file /run/current-system/etc/driftless-node/protocol; then reply "protocol $VALUE"; fi
  if [ -r "$PIN" ]; then
    while read -r line; do reply "pin $line"; done <"$PIN"
  fi
  if [ -r "$SUSPENDED" ]; then
    while IFS= read -r line; do reply "suspended $line"; done <"$SUSPENDED"
  fi
  if read_file "$REBOOT"; then reply "reboot $VALUE"; fi
  observe_journal
}

# What only a boot changes.
reply_kernels() { # booted|running SYSTEM -> kernels
  system_of_kernels=$1
  kernels=$(kernels_of "$2")
  [ -n "$kernels" ] || return 0
  printf '%s\n' "$kernels" | while read -r path; do reply "$system_of_kernels-kernel $path"; done
}

kernels_of() { # SYSTEM
  system_of_parts=$1
  set --
  for part in kernel initrd kernel-modules; do
    [ -e "$system_of_parts/$part" ] && set -- "$@" "$system_of_parts/$part"
  done
  [ $# -eq 0 ] || readlink -f "$@"
}

reply_free() {
  # A line of titles, then one for each place that there is.
  if listed=$(df -B1 --output=avail /nix /boot 2>/dev/null); then
    # shellcheck disable=SC2086 # split on purpose
    set -- $listed
    reply "free-nix ${2:-}"
    reply "free-boot ${3:-}"
  else
    # shellcheck disable=SC2046 # split on purpose
    set -- $(df -B1 --output=avail /nix 2>/dev/null)
    reply "free-nix ${2:-}"
    reply 'free-boot '
  fi
}

observe_journal() {
  newest=
  for ID in $(entries); do
    ENTRY=$JOURNAL/$ID
    reply_entry || continue
    case $VALUE in *"${TAB}finished$TAB"*) newest=$ID ;; esac
  done
  if [ -n "$newest" ]; then reply_baseline "$newest"; fi
}

# What had failed before a switch is not of its making.
reply_baseline() { # ID
  [ -r "$JOURNAL/$1/found" ] || return 0
  while read -r key value; do
    [ "$key" = failed-before ] || continue
    set -f
    for unit in $value; do reply "baseline-unit $unit"; done
    set +f
  done <"$JOURNAL/$1/found"
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

reply_entry() {
  read_staged
  held=no
  is_unfinished "$ID" && alive && held=yes
  # Read again: it may have ended in between, and a switch that has ended well must not look like one that died.
  read_summary "$ID" || return 1
  read_boot_id
  if [ "$ID" = "$WAITING" ] && [ -z "$BOOTED" ] && [ "$STAGED_IN" != "$BOOT_NOW" ] && [ "$(booted)" != "$WAITS_FOR" ]; then
    instead_of_staged did-not-boot
  fi
  forgiven=no
  [ -e "$ENTRY/forgiven" ] && forgiven=yes
  reply "entry $VALUE$TAB$BOOT_NOW$TAB$held$TAB$forgiven"
}

# Roots the system before it is copied: a collection between copy and switch must not take it. Then says which paths of
# WANTED (set by a line before this script) are missing, and what is free.
verb_prepare() { # ID SYSTEM
  if ! is_id "$1" || ! is_store_path "$2"; then
    reply 'error bad-argument'
    return
  fi
  if ! { { [ -d "$ROOTS/$1" ] || mkdir -p "$ROOTS/$1"; } && ln -sfn "$2" "$ROOTS/$1/system"; }; then
    reply "error root $ROOTS/$1"
    return
  fi
  reply_free
  [ -n "${WANTED:-}" ] || return
  # What is not there needs no look into Nix's database, which is the dear part. A path that is there and not valid is left
  # of a copy that broke off; Nix looks itself at what it copies, and here is only asked whether there is anything to copy.
  if [ ! -e "$2" ]; then
    printf '%s\n' "$WANTED" | while read -r path; do [ -e "$path" ] || reply "missing $path"; done
  elif invalid=$(printf '%s\n' "$WANTED" | xargs nix-store --check-validity --print-invalid 2>&1); then
    printf '%s\n' "$invalid" | while read -r path; do
      if is_store_path "$path"; then reply "missing $path"; fi
    done
  else
    reply "error nix-store --check-validity: $(short "$invalid")"
  fi
}

verb_abandon() { # ID: the copy failed, the root goes
  is_id "$1" || { reply 'error bad-argument'; return; }
  rm -rf "${ROOTS:?}/$1"
  reply ok
}

verb_start() { # ID SYSTEM KEY=VALUE...
  ID=$1 SYSTEM=$2
  shift 2
  ENTRY=$JOURNAL/$ID
  if ! is_id "$ID" || ! is_store_path "$SYSTEM"; then
    reply 'refused bad-argument'
    return
  fi
  { [ -d "$JOURNAL" ] && [ -d "$LIVE" ]; } || mkdir -p "$JOURNAL" "$LIVE" 2>/dev/null || { reply "refused unwritable $JOURNAL or $LIVE"; return; }
  if [ -e "$ENTRY" ]; then reply 'refused exists'; return; fi
  if ! write_order "$@"; then
    rm -rf "${ENTRY:?}" "${LIVE:?}/$ID"
    reply "refused unwritable $ENTRY or $LIVE"
    return
  fi
  load "$ID"
  start_unit
}

write_order() { # KEY=VALUE...
  order="system $SYSTEM"
  for pair in "$@"; do
    order="$order
${pair%%=*} $(one_line "${pair#*=}")"
  done
  LOG=$LIVE/$ID/log
  number=$(next_number)
  # Nobody knows of the entry before this has succeeded: its files need no names of their own until they are whole.
  {
    mkdir "$ENTRY" && printf '%s\n' "$number" >"$ENTRY/number" &&
      (umask 077 && printf '%s\n' "$order" >"$ENTRY/order" && keep_script) && open_live &&
      { sync "$ENTRY/number" "$ENTRY/order" "$ENTRY/switch.sh" || :; }
  } 2>/dev/null
}

keep_script() {
  case $0 in
    "$LIVE"/start-*) mv "$0" "$ENTRY/switch.sh" ;;
    *) cp "$0" "$ENTRY/switch.sh" ;;
  esac
}

start_unit() {
  find_shell "$EXPECTED"
  said=$(timeout -k 5 80 systemd-run --quiet --collect --no-ask-password --service-type=notify --unit="driftless-switch-$ID" \
    -p NotifyAccess=all -p OOMPolicy=continue -p OOMScoreAdjust=-900 -p IgnoreOnIsolate=yes -p TimeoutStartSec=60 \
    "$SHELL_BEFORE" "$ENTRY/switch.sh" - run "$ID" 2>&1 </dev/null)
  if read_file "$LIVE/$ID/refusal" || read_file "$ENTRY/refusal"; then
    reply "refused $VALUE"
    rm -rf "${ENTRY:?}" "${LIVE:?}/$ID"
  elif claim "$LIVE/$ID/fate" given-up && [ "$VALUE" = run ]; then
    # Also where systemd did not get to say so: a unit that has begun goes on.
    reply "started $ID"
  else
    reply "refused unit $(short "$said")"
    rm -rf "${ENTRY:?}" "${LIVE:?}/$ID"
  fi
}

# Answers as soon as the phase is none of SEEN, or after SECONDS.
verb_attach() { # ID "SEEN..." SECONDS
  now
  attach_began=$NOW
  while live_phase && [ $((NOW - attach_began)) -lt "$3" ]; do
    case " $2 " in *" $VALUE "*) ;; *) break ;; esac
    pause
    now
  done
  live_phase && reply "phase $VALUE"
  reply "nonce $NONCE"
  reply "deadlines $SWITCH_TIMEOUT $CONTACT_TIMEOUT $HEALTH_TIMEOUT"
  [ -n "$CHECKS" ] && reply "checks $CHECKS"
  # Between the death of a watcher and its successor nobody holds the lock for a moment.
  for _ in 1 2 3 4 5 6 7 8 9 10; do
    [ "$VALUE" = finished ] && break
    alive && break
    pause
    live_phase || break
  done
  reply_entry || reply 'error no-entry'
}

# contact, vouch, recontact, accept and reject touch files only: a sick D-Bus cannot keep anyone from proving that the node is
# well.
verb_contact() { # ID NONCE SSH_CONNECTION
  [ "$2" = "$NONCE" ] || { reply 'refused nonce'; return 1; }
  if [ -n "$SSH_FROM" ] && [ "$3" = "$SSH_FROM" ]; then reply 'refused same-connection'; return 1; fi
  # The way to the previous system proves nothing about the new one's: it is a `recontact`, which counts after a rollback.
  case $verb-$PHASE in
    contact-contact | contact-recontact | vouch-contact | vouch-recontact | recontact-recontact) ;;
    *) reply "refused phase $PHASE"; return 1 ;;
  esac
  if claim "$LIVE/$ID/$PHASE" made; then reply "contact $VALUE"; else reply 'error claim'; fi
  [ "$VALUE" = made ]
}

# Contact from one who has nothing else to check: the node hears his verdict with it, as soon as it asks for one.
verb_vouch() { # ID NONCE SSH_CONNECTION
  verb_contact "$@" && [ "$PHASE" = contact ] || return
  now
  vouch_began=$NOW
  while live_phase && [ "$VALUE" = contact ] && [ $((NOW - vouch_began)) -lt 5 ]; do
    sleep 0.1
    now
  done
  [ "$VALUE" = health ] && PHASE=health && verb_accept "$1" "$2"
}

verb_accept() { # ID NONCE
  [ "$2" = "$NONCE" ] || { reply 'refused nonce'; return; }
  [ "$PHASE" = health ] || { reply "refused phase $PHASE"; return; }
  if claim "$LIVE/$ID/verdict" accept; then reply "verdict $VALUE"; else reply 'error claim'; fi
}

verb_reject() { # ID NONCE REASON
  [ "$2" = "$NONCE" ] || { reply 'refused nonce'; return; }
  if claim "$LIVE/$ID/verdict" "reject $(short "$3")"; then reply "verdict $VALUE"; else reply 'error claim'; fi
}

verb_log() { # ID
  [ -r "$LOG" ] || LOG=$ENTRY/log
  [ -r "$LOG" ] || { reply 'error no-entry'; return; }
  tail -c 200000 "$LOG" | while IFS= read -r line || [ -n "$line" ]; do reply "log $line"; done
}

# A person deployed by hand: the controller keeps off until then.
verb_pin() { # BY UNTIL REASON
  mkdir -p "${PIN%/*}" && put "$PIN" "by $(short "$1")
until $(short "$2")
reason $(short "$3")" && { reply ok; return; }
  reply "error pin $PIN"
}

verb_unpin() {
  rm -f "$PIN"
  if [ -e "$PIN" ]; then reply "error pin $PIN"; else reply ok; fi
}

# A person wants the node left alone. This script does not heed it: whoever plans does, whatever else he has forgotten.
verb_suspend() { # ID BY UNTIL REASON; UNTIL in seconds, or -
  if ! is_id "$1" || { [ "$3" != - ] && ! is_number "$3"; }; then
    reply 'error bad-argument'
    return
  fi
  if ! other_suspensions "$1" || [ "$OTHERS" -ge "$MOST_SUSPENSIONS" ]; then
    reply "error suspend $SUSPENDED cannot be read, or has too many lines"
    return
  fi
  mkdir -p "${SUSPENDED%/*}" &&
    put "$SUSPENDED" "$VALUE$1$TAB$3$TAB$(short "$2")$TAB$(short "$4")" && { reply ok; return; }
  reply "error suspend $SUSPENDED"
}

verb_unsuspend() { # ID
  if ! is_id "$1"; then
    reply 'error bad-argument'
  elif ! other_suspensions "$1"; then
    reply "error unsuspend $SUSPENDED cannot be read"
  elif [ "$OTHERS" -eq 0 ]; then
    rm -f "$SUSPENDED"
    if [ -e "$SUSPENDED" ]; then reply "error unsuspend $SUSPENDED"; else reply ok; fi
  elif put "$SUSPENDED" "${VALUE%"$NEWLINE"}"; then
    reply ok
  else
    reply "error unsuspend $SUSPENDED"
  fi
}

other_suspensions() { # ID -> VALUE, the lines of all others; OTHERS, how many
  VALUE='' OTHERS=0
  [ -e "$SUSPENDED" ] || return 0
  [ -r "$SUSPENDED" ] || return 1
  while IFS= read -r line || [ -n "$line" ]; do
    [ "${line%%"$TAB"*}" != "$1" ] || continue
    VALUE=$VALUE$line$NEWLINE
    OTHERS=$((OTHERS + 1))
  done <"$SUSPENDED"
}

# `driftless retry`: failures so far no longer count.
verb_forgive() {
  for dir in "$JOURNAL"/*/; do
    [ -e "$dir/summary" ] || continue
    touch "$dir/forgiven" || { reply "error journal $dir"; return; }
  done
  [ ! -e "$REBOOT" ] || rm -f "$REBOOT" || { reply "error reboot $REBOOT"; return; }
  reply ok
}

# Only out of the boot that the asker has seen: a lost answer must not cost two reboots. With SYSTEM the order is remembered,
# over the reboot: whoever asks then knows that it came to nothing where another system has booted.
verb_reboot() { # BOOT-ID [SYSTEM]
  [ "$1" = "$(boot_id)" ] || { reply 'refused booted'; return; }
  if ! mkdir -p "$LIVE" "${REBOOT%/*}" || ! take_lock 3; then
    reply 'refused busy'
    return
  fi
  if [ -n "${2:-}" ]; then
    is_store_path "$2" || { reply 'error bad-argument'; return; }
    clock %s
    { put "$REBOOT" "$1 $CLOCK $2" && sync "$REBOOT"; } || { reply "refused unwritable $REBOOT"; return; }
  fi
  if system_ctl --no-block reboot >/dev/null 2>&1; then reply ok; else reply 'error systemctl reboot failed'; fi
}

needs_entry() { # ID
  load "$1" && return 0
  reply 'error no-entry'
  return 1
}

main() {
  BOOT_NOW='' FAILED_BEFORE='' AFTER_ROLLBACK='' NO_CHECK='' PREVIOUS='' WAITING=''
  frame=${1:--} verb=${2:-}
  [ $# -ge 2 ] || { echo 'usage: switch.sh FRAME VERB [ARGUMENT]...' >&2; exit 64; }
  shift 2
  search_path ''
  case $verb in
    run) load "$1" && run; exit ;;
    resume) ID=$1 && resume ;;
  esac
  # On a line of its own, even where the login shell has written something without an end of line.
  reply ''
  reply "driftless/1 $frame"
  if [ "$verb" != observe ] && ! is_root; then
    reply "error this needs root, and $(id -un) is not; privilegeEscalationCommand says how to become it"
    verb=none
  fi
  case $verb in
    none) ;;
    observe) verb_observe "$@" ;;
    prepare) verb_prepare "$@" ;;
    abandon) verb_abandon "$@" ;;
    start)
      verb_start "$@"
      # The script as it came, where no switch has taken it.
      case $0 in "$LIVE"/start-*) [ ! -e "$0" ] || rm -f "$0" ;; esac
      ;;
    attach) needs_entry "$1" && verb_attach "$@" ;;
    contact | recontact) needs_entry "$1" && verb_contact "$@" ;;
    vouch) needs_entry "$1" && verb_vouch "$@" ;;
    accept) needs_entry "$1" && verb_accept "$@" ;;
    reject) needs_entry "$1" && verb_reject "$@" ;;
    log) needs_entry "$1" && verb_log "$@" ;;
    pin) verb_pin "$@" ;;
    unpin) verb_unpin ;;
    suspend) verb_suspend "$@" ;;
    unsuspend) verb_unsuspend "$@" ;;
    forgive) verb_forgive ;;
    reboot) verb_reboot "$@" ;;
    *) reply "error unknown-verb $verb" ;;
  esac
  reply "end $frame"
}

# Last line: a script that was cut off on its way does nothing.
main "$@"
