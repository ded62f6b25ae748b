# --- the journal ----------------------------------------------------------------------------------------------------

# One line with everything that anyone may know of a switch. On /run first, because /var may be full; on /var because
# /run is gone after a reboot.
write_summary() {
  summary=$ID$TAB$SYSTEM$TAB$PREVIOUS$TAB$PHASE$TAB${OUTCOME:--}$TAB${CAUSE:--}$TAB$STARTED$TAB${FINISHED:--}
  summary=$summary$TAB${REVISION:--}$TAB${ASKER:--}$TAB$BOOT$TAB${DETAIL:--}
  put_live "$LIVE/$ID/summary" "$summary"
  write_line || return 0
  # After a power cut one of these is as good as the one before it.
  case $PHASE in checking | contact | health) ;; *) sync "$ENTRY/summary" 2>/dev/null ;; esac
  return 0
}

# A line more, by no program: where the power goes, the last whole one counts. Of a switch that has ended there is no other.
write_line() {
  if [ "$PHASE" != finished ] && [ -z "$TORN" ] && { printf '%s\n' "$summary" >>"$ENTRY/summary"; } 2>/dev/null; then
    return 0
  fi
  # What could not be written whole is no line to put another one behind.
  TORN=yes
  put "$ENTRY/summary" "$summary" && TORN=''
}

# The log grows on /run: /var may be full or turn read-only in the middle, and switch-to-configuration dies of an output
# that it cannot write. Each phase keeps what there is.
note() {
  clock %Y-%m-%dT%H:%M:%SZ
  printf '%s driftless: %s\n' "$CLOCK" "$*" 2>/dev/null >>"$LOG" || :
}

# Who else may read: outcomes are for everybody, orders (with the nonce) and logs are not.
open_live() {
  mkdir -p "$LIVE/$ID" || return
  privately open_log
}
open_log() { printf '' >>"$LOG"; }

privately() { # FUNCTION
  umask 077
  "$1"
  did=$?
  umask 022
  return "$did"
}

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
  short "$3"
  DETAIL=$LINE
  clock %s
  FINISHED=$CLOCK
  PHASE=finished
  note "$OUTCOME${CAUSE:+ ($CAUSE)}${DETAIL:+: $DETAIL}"
  give_back "$ENTRY/reserve"
  write_summary
  keep_log
  put_live "$LIVE/$ID/phase" finished
  rm -rf "${ROOTS:?}/$ID" "$ENTRY/reserve" "$LIVE/$ID/reserve" "$LIVE/$ID/nothing" "$LIVE/$ID"/fate.* "$LIVE/$ID"/contact.* "$LIVE/$ID"/verdict.*
  forget_old
}

# What was kept for a full disk, by no program. What is left of it goes with the switch.
give_back() { # FILE
  [ ! -e "$1" ] || { printf '' >"$1"; } 2>/dev/null || rm -f "$1"
}

next_number() { # -> number
  newest=0
  for file in "$JOURNAL"/*/number; do
    [ -r "$file" ] && read -r number <"$file" && [ "$number" -gt "$newest" ] 2>/dev/null && newest=$number
  done
  number=$((newest + 1))
}

# The newest switches are kept; an older one that is unfinished belongs to another boot and is kept out of the way too.
forget_old() {
  set -- "$JOURNAL"/*/
  if [ $# -gt "$KEEP" ]; then
    read_entries
    # shellcheck disable=SC2086 # split on purpose: ids have no blanks
    set -- $ENTRIES
    while [ $# -gt "$KEEP" ]; do
      [ "$1" = "$ID" ] || rm -rf "${JOURNAL:?}/$1" "${LIVE:?}/$1" "${ROOTS:?}/$1"
      shift
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
