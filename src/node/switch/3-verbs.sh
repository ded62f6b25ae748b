# --- questions about the node ---------------------------------------------------------------------------------------

# Also where the power goes: a new name may be on the disk before what it names.
put() { # FILE TEXT: whole, or what stood there before
  if printf '%s\n' "$2" >"$1.new" && { sync "$1.new" 2>/dev/null || :; } && mv -f "$1.new" "$1"; then return 0; fi
  rm -f "$1.new"
  return 1
}

# Each question to systemd has a deadline, and none of them inherits the lock.
system_ctl() { timeout -k 5 "${PATIENCE:-30}" systemctl "$@" </dev/null 9>&-; }

# While systemd re-executes itself nobody answers; silence is not "none".
surely() { # ARGUMENT OF SYSTEMCTL...
  for _ in 1 2 3 4 5 6 7 8 9 10; do
    system_ctl "$@" 2>/dev/null && return
    sleep 0.5
  done
  return 1
}

# Separated by blanks; those of our own do not count.
read_failed() { # [surely] -> FAILED
  FAILED=
  listed=$("${1:-system_ctl}" list-units --state=failed --plain --no-legend --no-pager --full 2>/dev/null) || return 1
  old_ifs=$IFS
  IFS=$NEWLINE
  set -f
  for line in $listed; do
    IFS=' '
    # shellcheck disable=SC2086 # split on purpose: UNIT LOAD ACTIVE SUB DESCRIPTION (systemctl(1), list-units)
    set -- $line
    case ${1:-} in driftless-* | '') ;; *) FAILED="$FAILED $1" ;; esac
  done
  IFS=$old_ifs
  set +f
}

read_default() { # -> DEFAULT, empty where there is no such profile
  DEFAULT=$(readlink -f "$PROFILE")
  is_store_path "$DEFAULT" || DEFAULT=
}

# The id of each switch, oldest first, a line each. Ids carry the clocks of those who asked, and clocks go back; the number
# is the node's own. One that a power cut took the number from counts as the oldest.
read_entries() { # -> ENTRIES
  ENTRIES='' numbered='' last=0 sorted=yes
  for dir in "$JOURNAL"/*/; do
    dir=${dir%/}
    is_id "${dir##*/}" || continue
    { read -r number <"$dir/number"; } 2>/dev/null || number=0
    is_number "$number" || number=0
    [ "$number" -ge "$last" ] || sorted=no
    last=$number
    ENTRIES=$ENTRIES${dir##*/}$NEWLINE
    numbered="$numbered$number ${dir##*/}$NEWLINE"
  done
  # As a rule the clocks have gone on, and there is nothing to sort.
  [ "$sorted" = yes ] || ENTRIES=$(printf '%s' "$numbered" | sort -s -n -k 1,1 | cut -d ' ' -f 2)
}

# By one program where all of them are there, as they almost always are.
read_systems() { # -> RUNNING DEFAULT BOOTED_SYSTEM
  if [ -e /run/current-system ] && [ -e "$PROFILE" ] && [ -e /run/booted-system ]; then
    # shellcheck disable=SC2046 # split on purpose: a store path has no blanks
    set -- $(exec readlink -f /run/current-system "$PROFILE" /run/booted-system)
    if [ $# -eq 3 ] && is_store_path "$2"; then
      RUNNING=$1 DEFAULT=$2 BOOTED_SYSTEM=$3
      return
    fi
  fi
  read_running
  read_default
  read_booted
}

verb_observe() { # [nix]
  read_systems
  system=$RUNNING
  if [ ! -e /etc/NIXOS ] || ! is_store_path "$system"; then
    reply "error not-nixos"
    return
  fi
  read_boot_id
  reply "boot-id $BOOT_NOW"
  read_file /etc/machine-id && reply "machine-id $VALUE"
  now
  reply "uptime $NOW"
  clock %s
  reply "clock $CLOCK"
  reply "running $system"
  reply "boot-default $DEFAULT"
  link=$(readlink "$PROFILE")
  link=${link##*/}
  link=${link#system-}
  reply "generation ${link%-link}"
  booted=$BOOTED_SYSTEM
  reply "booted $booted"
  reply_kernels booted "$booted"
  if [ "$booted" = "$system" ]; then
    reply_each running-kernel "$KERNELS"
  else
    reply_kernels running "$system"
  fi
  read_failed && reply_words failed-unit "$FAILED"
  reply_free
  if read_staged && [ "$STAGED_IN" = "$BOOT_NOW" ]; then reply "staged $WAITS_FOR"; fi
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

# A line for each of many.
reply_each() { # KEY LINES
  old_ifs=$IFS
  IFS=$NEWLINE
  set -f
  for line in $2; do
    IFS=$old_ifs
    reply "$1 $line"
  done
  IFS=$old_ifs
  set +f
}

# The names of units may hold what is a pattern of files.
reply_words() { # KEY WORDS
  set -f
  for word in $2; do reply "$1 $word"; done
  set +f
}

# What only a boot changes.
reply_kernels() { # booted|running SYSTEM -> KERNELS
  read_kernels "$2"
  [ -z "$KERNELS" ] || reply_each "$1-kernel" "$KERNELS"
}

read_kernels() { # SYSTEM -> KERNELS, a line each
  system_of_parts=$1
  KERNELS=
  set --
  for part in kernel initrd kernel-modules; do
    [ -e "$system_of_parts/$part" ] && set -- "$@" "$system_of_parts/$part"
  done
  [ $# -eq 0 ] || KERNELS=$(exec readlink -f "$@")
}

reply_free() {
  # A line of titles, then one for each place that there is.
  if listed=$(exec df -B1 --output=avail /nix /boot 2>/dev/null); then
    # shellcheck disable=SC2086 # split on purpose
    set -- $listed
    reply "free-nix ${2:-}"
    reply "free-boot ${3:-}"
  else
    # shellcheck disable=SC2046 # split on purpose
    set -- $(exec df -B1 --output=avail /nix 2>/dev/null)
    reply "free-nix ${2:-}"
    reply 'free-boot '
  fi
}

observe_journal() {
  newest=
  read_entries
  for ID in $ENTRIES; do
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
    [ "$key" != failed-before ] || reply_words baseline-unit "$value"
  done <"$JOURNAL/$1/found"
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
    reply_absent
  elif invalid=$(printf '%s\n' "$WANTED" | xargs nix-store --check-validity --print-invalid 2>&1); then
    printf '%s\n' "$invalid" | while read -r path; do
      if is_store_path "$path"; then reply "missing $path"; fi
    done
  else
    short "$invalid"
    reply "error nix-store --check-validity: $LINE"
  fi
}

reply_absent() {
  old_ifs=$IFS
  IFS=$NEWLINE
  set -f
  for path in $WANTED; do [ -e "$path" ] || reply "missing $path"; done
  IFS=$old_ifs
  set +f
}

verb_abandon() { # ID: the copy failed, the root goes
  is_id "$1" || { reply 'error bad-argument'; return; }
  rm -rf "${ROOTS:?}/$1"
  reply ok
}

# A person deployed by hand: the controller keeps off until then.
verb_pin() { # BY UNTIL REASON
  pin=
  for word in "by $1" "until $2" "reason $3"; do
    short "$word"
    pin=$pin${pin:+$NEWLINE}$LINE
  done
  mkdir -p "${PIN%/*}" && put "$PIN" "$pin" && { reply ok; return; }
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
  short "$2"
  by=$LINE
  short "$4"
  mkdir -p "${SUSPENDED%/*}" && put "$SUSPENDED" "$VALUE$1$TAB$3$TAB$by$TAB$LINE" && { reply ok; return; }
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

# Nobody but root may open it: whoever can, can hold it and keep all switches away.
take_lock() { # [SECONDS]
  [ -d "$LIVE" ] || mkdir -p "$LIVE" || return 1
  # In a shell of its own, which is all that a failed redirection of `:` ends.
  [ -e "$LOCK" ] || (umask 077 && : >>"$LOCK") || return 1
  # A failed redirection of exec alone ends the shell.
  command exec 9>>"$LOCK" || return 1
  flock ${1:+-w "$1"} 9
}

# Only out of the boot that the asker has seen: a lost answer must not cost two reboots. With SYSTEM the order is remembered,
# over the reboot: whoever asks then knows that it came to nothing where another system has booted.
verb_reboot() { # BOOT-ID [SYSTEM]
  read_boot_id
  [ "$1" = "$BOOT_NOW" ] || { reply 'refused booted'; return; }
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

case $verb in
  observe | prepare | abandon | pin | unpin | suspend | unsuspend | forgive | reboot)
    answer "verb_$verb" "$@"
    exit 0
    ;;
esac
