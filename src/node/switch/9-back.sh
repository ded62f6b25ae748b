# --- rollback -------------------------------------------------------------------------------------------------------

roll_back() { # CAUSE DETAIL
  if ! is_ours; then
    finish interfered foreign "$RUNNING runs; nothing was touched. First: $2"
    return
  fi
  CAUSE=$1
  short "$2"
  DETAIL=$LINE
  give_back "$LIVE/$ID/reserve"
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
    finish interfered foreign "$RUNNING runs since the rollback began. First: $2"
  else
    repair_contact rollback-failed "$1" "$2; re-activating $PREVIOUS: $RC; $(last_words)"
  fi
}

# Nobody else has switched the node to a system of theirs.
is_ours() {
  read_running
  case $RUNNING in
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
  read_default
  if [ "$LAST_RESORT" != reboot ] || [ "$DEFAULT" != "$PREVIOUS" ] || ! boots "$PREVIOUS"; then
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
  # Whoever wrote before may have been killed in the middle of a line.
  TORN=yes
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
  read_boot_id
  if [ "$BOOT" != "$BOOT_NOW" ]; then
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
      if [ "$GOAL" = boot ] || runs "$SYSTEM"; then commit; fi
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
    runs "$SYSTEM" && target=$SYSTEM
    read_default
    case $DEFAULT in
      "$SYSTEM" | "$PROFILE_BEFORE")
        if make_default "$target"; then said="$said; $target boots"; else said="$said; $SAID"; fi
        ;;
      *) said="$said; somebody has set the profile since" ;;
    esac
  fi
  finish interrupted killed "$said"
}

# --- the end of the script ------------------------------------------------------------------------------------------

main() { # FRAME VERB [ARGUMENT]...
  [ $# -ge 2 ] || { echo 'usage: switch.sh FRAME VERB [ARGUMENT]...' >&2; exit 64; }
  case $verb in
    run) load "$3" && run ;;
    resume) ID=$3 && resume ;;
    *) answer unknown "$@" ;;
  esac
}

unknown() { reply "error unknown-verb $verb"; }

# Last line: a switch that was begun with a script that was cut off on its way does nothing, and `start` says that it has not
# begun.
main "$@"
