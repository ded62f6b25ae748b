#!/bin/sh
# Drives the script under test, /run/lab/switch.sh, on a node itself, where the moments are closest: the races of race.rs, and
# the switches of power.rs up to the phase in which the power goes. $1 says which.
set -u
PATH=/run/current-system/sw/bin:$PATH
J=/var/lib/driftless-node/switches
L=/run/driftless-node
mkdir -p /run/lab
fail() { echo "FAILED: $*"; exit 1; }

start_one() { # ID SYSTEM HEALTH_TIMEOUT [GOAL]
  mkdir -p $L
  cp /run/lab/switch.sh "$L/start-$1.sh"
  sh "$L/start-$1.sh" f start "$1" "$2" "expected=$(readlink -f /run/current-system)" "nonce=n" "goal=${4:-test}" revision=- asker=race \
    "switch-timeout=${SWITCH_TIMEOUT:-60}" contact-timeout=60 "health-timeout=$3" ignore-failed=no ignore-units= last-resort=none ssh-from=
}

await_word() { # FILE WORD
  tries=0
  until [ "$(cat "$1" 2>/dev/null)" = "$2" ]; do
    tries=$((tries + 1))
    [ $tries -lt 600 ] || fail "$1 never says $2, but $(cat "$1" 2>/dev/null)"
    sleep 0.1
  done
}

# Several `start`s at once: one wins, and the others leave nothing behind.
starts() { # SYSTEM CONTENDERS
  mkdir -p $L
  pids=
  for n in $(seq "$2"); do
    (until [ -e /run/lab/go ]; do :; done; start_one "20261122T000000Z-0000000$n" "$1" 1 >"/run/lab/start$n") &
    pids="$pids $!"
  done
  : >/run/lab/go
  # shellcheck disable=SC2086 # split on purpose
  wait $pids
  won=0
  for n in $(seq "$2"); do
    id=20261122T000000Z-0000000$n
    case $(cat "/run/lab/start$n") in
      *"started $id"*) won=$((won + 1)) winner=$id ;;
      *"refused busy"* | *"refused changed"*)
        for left in "$J/$id" "$L/$id" "$L/start-$id.sh" "/nix/var/nix/gcroots/driftless/$id"; do
          [ ! -e "$left" ] || fail "a refused start leaves $left"
        done
        ;;
      *) fail "start $n: $(cat "/run/lab/start$n")" ;;
    esac
  done
  [ $won = 1 ] || fail "$won starts have won"
  await_word "$L/$winner/phase" finished
}

# The node's deadline, an accept and a reject at the same moment. Every one is told the same, and that is what stands.
verdicts() { # ROUNDS SHELL
  # Everything but its last line, which runs it; instead, the watcher's wait with its deadline reached.
  sed '$d' /run/lab/switch.sh >/run/lab/await.sh
  cat >>/run/lab/await.sh <<'SH'
load "$3" && await "$LIVE/$ID/verdict" 0
printf 'verdict %s\n' "$VALUE"
SH
  wins=
  for round in $(seq "$1"); do
    id=20261122T000000Z-$(printf %08x "$round")
    mkdir -p "$J/$id" "$L/$id"
    printf 'system /nix/store/x\nnonce n\n' >"$J/$id/order"
    echo health >"$L/$id/phase"
    : >"$L/$id/log"
    pids=
    for who in 0 1 2; do
      # Whoever is begun first is ahead: each in turn.
      case $(((who + round) % 3)) in
        0) "$2" /run/lab/switch.sh f accept "$id" n >/run/lab/accept & ;;
        1) "$2" /run/lab/switch.sh f reject "$id" n 'not good' >/run/lab/reject & ;;
        2) "$2" /run/lab/await.sh - await "$id" >/run/lab/await & ;;
      esac
      pids="$pids $!"
    done
    # shellcheck disable=SC2086 # split on purpose
    wait $pids
    stands=$(cat "$L/$id/verdict")
    for who in accept reject await; do
      grep -qx "verdict $stands" "/run/lab/$who" || fail "round $round: $stands stands, $who was told $(cat /run/lab/$who)"
    done
    wins="$wins ${stands%% *}"
    rm -r "${J:?}/$id" "${L:?}/$id"
  done
  for who in accept reject timeout; do echo "$who $(echo "$wins" | tr ' ' '\n' | grep -c "$who")"; done
}

# A whole switch whose deadline, accept and reject come at the same moment: the journal says what all were told.
switches() { # NUMBER SYSTEM
  id=20261122T000000Z-$(printf %08x "$1")
  before=$(readlink -f /run/current-system)
  mkdir -p $L
  start_one "$id" "$2" 2 >/run/lab/start
  grep -q "started $id" /run/lab/start || fail "$(cat /run/lab/start)"
  await_word "$L/$id/phase" contact
  sh "$J/$id/switch.sh" f contact "$id" n '192.0.2.1 1 192.0.2.2 22' | grep -qx 'contact made' || fail contact
  await_word "$L/$id/phase" health
  (sleep 1.9; sh "$J/$id/switch.sh" f accept "$id" n >/run/lab/accept) &
  accept=$!
  (sleep 1.9; sh "$J/$id/switch.sh" f reject "$id" n 'not good' >/run/lab/reject) &
  wait $! $accept
  await_word "$L/$id/phase" finished
  stands=$(cat "$L/$id/verdict")
  ended=$(cut -f 5,6 "$J/$id/summary" | tr '\t' ' ')
  case "$stands: $ended" in
    'accept: succeeded -') runs=$2 ;;
    'reject not good: rolled-back rejected' | 'timeout: rolled-back silence') runs=$before ;;
    *) fail "the verdict is $stands, the journal says $ended" ;;
  esac
  [ "$(readlink -f /run/current-system)" = "$runs" ] || fail "$stands, and it runs $(readlink -f /run/current-system)"
  for who in accept reject; do
    # Late ones are told so: of a phase that is over, or of the verdict that stands.
    grep -qxE "verdict $stands|refused phase [a-z-]+" "/run/lab/$who" || fail "$stands stands, $who was told $(cat /run/lab/$who)"
  done
  left=$(cd "$L/$id" && echo contact* fate* verdict*)
  [ "$left" = 'contact fate verdict' ] || fail "the end leaves $left"
  echo "${stands%% *}"
}

# A switch that stays in this phase; somebody takes the power away then.
begin() { # PHASE SYSTEM
  id=20261122T000000Z-00000001
  # A boot loader that hangs is what the next switch waits for, too.
  [ "$1" != committing ] || SWITCH_TIMEOUT=8
  start_one "$id" "$2" 600 switch >/run/lab/start
  grep -q "started $id" /run/lab/start || fail "$(cat /run/lab/start)"
  case $1 in
    health | committing)
      await_word "$L/$id/phase" contact
      sh "$J/$id/switch.sh" f contact "$id" n '192.0.2.1 1 192.0.2.2 22' | grep -qx 'contact made' || fail contact
      ;;
  esac
  if [ "$1" = committing ]; then
    await_word "$L/$id/phase" health
    sh "$J/$id/switch.sh" f accept "$id" n | grep -qx 'verdict accept' || fail accept
  fi
  await_word "$L/$id/phase" "$1"
  case $1 in
    # Until it is really in the middle of it.
    testing | committing | rolling-back)
      tries=0
      until tail -n 1 /var/log/lab-switch.log | grep -qE ' (test|boot) .* (slow|boot loader hangs)$'; do
        tries=$((tries + 1))
        [ $tries -lt 300 ] || fail "$(cat /var/log/lab-switch.log)"
        sleep 0.1
      done
      ;;
  esac
  sync
}

# A switch that everybody agrees to.
succeed() { # SYSTEM
  id=20261122T000000Z-00000002
  tries=0
  # The one before is ended first, which may take a while.
  while start_one "$id" "$1" 600 switch >/run/lab/start; grep -q 'refused unfinished' /run/lab/start; do
    tries=$((tries + 1))
    [ $tries -lt 30 ] || fail "$(cat /run/lab/start)"
  done
  grep -q "started $id" /run/lab/start || fail "$(cat /run/lab/start)"
  await_word "$L/$id/phase" contact
  sh "$J/$id/switch.sh" f contact "$id" n '192.0.2.1 1 192.0.2.2 22' | grep -qx 'contact made' || fail contact
  await_word "$L/$id/phase" health
  sh "$J/$id/switch.sh" f accept "$id" n | grep -qx 'verdict accept' || fail accept
  await_word "$L/$id/phase" finished
  grep -q 'finished.succeeded' "$J/$id/summary" || fail "$(cat "$J/$id/summary")"
}

case $1 in
  begin) begin "$2" "$3" ;;
  succeed) succeed "$2" ;;
  starts) starts "$2" "$3" ;;
  verdicts) verdicts "$2" "$3" ;;
  switches) switches "$2" "$3" ;;
esac
