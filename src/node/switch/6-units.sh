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
stc_in_turn() { # SYSTEM ACTION; RUNNING, where it is known
  [ -n "$RUNNING" ] || read_running
  turn_running=$RUNNING
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
  read_failed surely || FAILED=systemd-does-not-answer
  # Patterns of units, not of files.
  set -f
  for unit in $FAILED; do
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
  [ -n "$PREVIOUS" ] || read_running
  find_shell "${PREVIOUS:-$RUNNING}"
  # Its end is the switch's, which has deadlines.
  timeout -k 5 20 systemd-run --quiet --collect --no-ask-password --service-type=exec --unit="$unit" \
    -p OOMPolicy=continue -p OOMScoreAdjust=-900 -p IgnoreOnIsolate=yes -p TimeoutStopSec=infinity \
    -p Restart=on-failure -p RestartSec=1 -p StartLimitIntervalSec=600 -p StartLimitBurst=100 \
    -p "ExecStopPost=-$SHELL_BEFORE $guarded - resume $1" \
    "$SHELL_BEFORE" "$guarded" - resume "$1" </dev/null >>"$LOG" 2>&1 9>&-
}
