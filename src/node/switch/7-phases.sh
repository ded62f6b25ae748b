# --- what contact means ---------------------------------------------------------------------------------------------

# SSH_CONNECTION is "client-address client-port server-address server-port" (sshd(8)).
read_ssh_from() { # -> CLIENT PORT
  # shellcheck disable=SC2086 # split on purpose
  set -- $SSH_FROM
  CLIENT=${1:-} PORT=${4:-}
}

# Whether something listens on the port we came in by; /proc/net/tcp has it in hexadecimal, state 0A (proc(5)).
listens() {
  read_ssh_from
  is_number "$PORT" || return 0
  for table in /proc/net/tcp /proc/net/tcp6; do
    [ -r "$table" ] || continue
    while read -r _ local _ state _; do
      [ "$state" = 0A ] && [ $((0x${local##*:})) -eq "$PORT" ] && return 0
    done <"$table"
  done
  return 1
}

# Whether there is a route back to the controller.
routed() {
  read_ssh_from
  [ -n "$CLIENT" ] || return 0
  if command -v ip >/dev/null 2>&1; then
    ip route get "${CLIENT%%%*}" >/dev/null 2>&1 </dev/null
    return
  fi
  case $CLIENT in
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
  set -- $CLIENT
  IFS=$old_ifs
  address=$((${1:-0} + ${2:-0} * 256 + ${3:-0} * 65536 + ${4:-0} * 16777216))
  while read -r device target _ _ _ _ _ mask _; do
    case $device in Iface | lo) continue ;; esac
    [ $((address & 0x$mask)) -eq $((0x$target)) ] && return 0
  done </proc/net/route
  return 1
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
  read_boot_id
  BOOT=$BOOT_NOW
  clock %s
  STARTED=$CLOCK
  read_default
  PROFILE_BEFORE=$DEFAULT
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

# `prepare` may have rooted the system already, and the profile is the previous system as a rule.
root_systems() {
  [ -d "$ROOTS/$ID" ] || mkdir -p "$ROOTS/$ID" || return 1
  root "$SYSTEM" system && root "$PREVIOUS" previous || return 1
  if [ -n "$PROFILE_BEFORE" ] && [ "$PROFILE_BEFORE" != "$PREVIOUS" ]; then root "$PROFILE_BEFORE" profile; fi
}

root() { # SYSTEM NAME
  # shellcheck disable=SC3013 # as in `runs`
  [ "$ROOTS/$ID/$2" -ef "$1" ] || ln -sfn "$1" "$ROOTS/$ID/$2"
}

# Says who holds the lock for this switch, for those who may not open it. Who finds nothing, or half of it, takes the switch for
# dead, as he does before it is said at all.
hold() { read_start $$ && put_live "$LIVE/$ID/holder" "$$ $VALUE"; }

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

run() {
  # A version before let others read it, and so hold it.
  if [ -e "$LOCK" ] && [ ! -e "$LOCK.closed" ]; then chmod 0600 "$LOCK" || refuse unwritable "$LOCK"; fi
  printf '' >"$LOCK.closed" || refuse unwritable "$LOCK.closed"
  # The guard of the switch before may hold it for one more moment.
  take_lock 3 || refuse busy
  end_former
  hold
  [ -z "${BASH_VERSION:-}" ] || mkfifo -m 600 "$LIVE/$ID/nothing" 2>/dev/null
  read_running
  PREVIOUS=$RUNNING
  [ "$PREVIOUS" = "$EXPECTED" ] || refuse changed "${PREVIOUS:--}"
  [ -x "$SYSTEM/bin/switch-to-configuration" ] || refuse missing "$SYSTEM"
  if proves; then PROVING=yes PREVIOUS=$DEFAULT; fi
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
  read_kernels "$SYSTEM"
  wanted=$KERNELS
  read_kernels /run/booted-system
  [ -n "$wanted" ] && [ -n "$KERNELS" ] && [ "$wanted" != "$KERNELS" ]
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

read_all() { # FILE -> VALUE
  VALUE=
  while IFS= read -r line || [ -n "$line" ]; do VALUE=$VALUE${VALUE:+$NEWLINE}$line; done <"$1"
}

# nixpkgs' switch inhibitors (system.switch.inhibitors) compare with the *booted* system; a system without the file has none.
check_inhibitors() {
  [ -r "$SYSTEM/switch-inhibitors" ] || return 0
  read_all "$SYSTEM/switch-inhibitors"
  wanted=$VALUE
  booted='{}'
  if [ -r /run/booted-system/switch-inhibitors ]; then
    read_all /run/booted-system/switch-inhibitors
    booted=$VALUE
  fi
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

# Somebody else's switch meanwhile is not ours to prove.
still_ours() {
  if runs "$SYSTEM"; then
    RUNNING=$SYSTEM
    return
  fi
  read_running
  finish interfered foreign "$RUNNING runs, not $SYSTEM"
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
