# --- questions about a switch that runs -----------------------------------------------------------------------------

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
  now
  alone_since=$NOW
  while [ "$VALUE" != finished ]; do
    alive && break
    now
    [ $((NOW - alone_since)) -lt 3 ] || break
    pause
    live_phase || break
  done
  reply_entry || reply 'error no-entry'
}

# contact, vouch, recontact, accept and reject touch files only: a sick D-Bus cannot keep anyone from proving that the node is
# well.
verb_contact() { # ID NONCE SSH_CONNECTION, or - where nothing has taken that from the environment
  [ "$2" = "$NONCE" ] || { reply 'refused nonce'; return 1; }
  came_by=$3
  [ "$came_by" != - ] || came_by=${SSH_CONNECTION-}
  if [ -n "$SSH_FROM" ] && [ "$came_by" = "$SSH_FROM" ]; then reply 'refused same-connection'; return 1; fi
  # The way to the previous system proves nothing about the new one's: it is a `recontact`, which counts after a rollback.
  case $verb-$PHASE in
    contact-contact | contact-recontact | vouch-contact | vouch-recontact | recontact-recontact) ;;
    *) reply "refused phase $PHASE"; return 1 ;;
  esac
  if claim "$LIVE/$ID/$PHASE" made; then reply "contact $VALUE"; else reply 'error claim'; fi
  [ "$VALUE" = made ]
}

verb_recontact() { verb_contact "$@"; }

# Contact from one who has nothing else to check: the node hears his verdict with it, as soon as it asks for one.
verb_vouch() { # ID NONCE SSH_CONNECTION
  verb_contact "$@" && [ "$PHASE" = contact ] || return
  now
  vouch_began=$NOW
  while live_phase && [ "$VALUE" = contact ] && [ $((NOW - vouch_began)) -lt 5 ]; do
    pause
    now
  done
  [ "$VALUE" = health ] && PHASE=health && verb_accept "$1" "$2" || return
  # Most switches end at once: then nobody has to ask.
  while live_phase && [ "$VALUE" != finished ]; do
    [ $((NOW - vouch_began)) -lt 5 ] || return
    pause
    now
  done
  reply_entry
}

verb_accept() { # ID NONCE
  [ "$2" = "$NONCE" ] || { reply 'refused nonce'; return; }
  [ "$PHASE" = health ] || { reply "refused phase $PHASE"; return; }
  if claim "$LIVE/$ID/verdict" accept; then reply "verdict $VALUE"; else reply 'error claim'; fi
}

verb_reject() { # ID NONCE REASON
  [ "$2" = "$NONCE" ] || { reply 'refused nonce'; return; }
  short "$3"
  if claim "$LIVE/$ID/verdict" "reject $LINE"; then reply "verdict $VALUE"; else reply 'error claim'; fi
}

verb_log() { # ID
  [ -r "$LOG" ] || LOG=$ENTRY/log
  [ -r "$LOG" ] || { reply 'error no-entry'; return; }
  tail -c 200000 "$LOG" | while IFS= read -r line || [ -n "$line" ]; do reply "log $line"; done
}

about() { # ID [ARGUMENT]...
  if load "$1"; then "verb_$verb" "$@"; else reply 'error no-entry'; fi
}

# To read the rest is what would cost most of the time of an answer. The script is the switch's own, and whole.
case $verb in
  attach | contact | recontact | vouch | accept | reject | log)
    answer about "$@"
    exit 0
    ;;
esac
