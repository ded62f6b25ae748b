# --- the beginning --------------------------------------------------------------------------------------------------

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
    one_line "${pair#*=}"
    order="$order$NEWLINE${pair%%=*} $LINE"
  done
  LOG=$LIVE/$ID/log
  next_number
  # Nobody knows of the entry before this has succeeded: its files need no names of their own until they are whole.
  {
    mkdir "$ENTRY" && printf '%s\n' "$number" >"$ENTRY/number" &&
      privately write_secretly && open_live && there_is_room &&
      { sync "$ENTRY/number" "$ENTRY/order" "$ENTRY/switch.sh" || :; }
  } 2>/dev/null
}

# What `run` reserves, and systemd needs to begin it: where there is none, its words would not say why.
there_is_room() { printf '%0262144d' 0 >"$LIVE/$ID/reserve" && printf '' >"$LIVE/$ID/reserve"; }

# The nonce is for nobody else, and what root runs later neither.
write_secretly() {
  printf '%s\n' "$order" >"$ENTRY/order" || return
  case $0 in
    "$LIVE"/start-*) mv "$0" "$ENTRY/switch.sh" ;;
    *) cp "$0" "$ENTRY/switch.sh" ;;
  esac
}

# The shell of the system before: /bin/sh is what the new one made of it.
find_shell() { # SYSTEM, a store path -> SHELL_BEFORE
  SHELL_BEFORE=$1/sw/bin/sh
  [ -x "$SHELL_BEFORE" ] || SHELL_BEFORE=/bin/sh
}

start_unit() {
  find_shell "$EXPECTED"
  said=$(exec timeout -k 5 80 systemd-run --quiet --collect --no-ask-password --service-type=notify --unit="driftless-switch-$ID" \
    -p NotifyAccess=all -p OOMPolicy=continue -p OOMScoreAdjust=-900 -p IgnoreOnIsolate=yes -p TimeoutStartSec=60 \
    "$SHELL_BEFORE" "$ENTRY/switch.sh" - run "$ID" 2>&1 </dev/null)
  if read_file "$LIVE/$ID/refusal" || read_file "$ENTRY/refusal"; then
    reply "refused $VALUE"
    rm -rf "${ENTRY:?}" "${LIVE:?}/$ID"
  elif claim "$LIVE/$ID/fate" given-up && [ "$VALUE" = run ]; then
    # Also where systemd did not get to say so: a unit that has begun goes on.
    reply "started $ID"
    live_phase && reply "phase $VALUE"
  else
    short "$said"
    reply "refused unit $LINE"
    rm -rf "${ENTRY:?}" "${LIVE:?}/$ID"
  fi
}

if [ "$verb" = start ]; then
  answer verb_start "$@"
  # The script as it came, where no switch has taken it.
  case $0 in "$LIVE"/start-*) [ ! -e "$0" ] || rm -f "$0" ;; esac
  exit 0
fi
