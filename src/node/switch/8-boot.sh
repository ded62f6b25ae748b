# --- the boot default -----------------------------------------------------------------------------------------------

set_profile() { # SYSTEM
  # shellcheck disable=SC3013 # as in `runs`
  [ "$PROFILE" -ef "$1" ] && return
  point "$PROFILE" "$1"
}

# shellcheck disable=SC3013 # as in `runs`
point() { # PROFILE SYSTEM
  note "nix-env --profile $1 --set $2"
  HOME=${HOME:-/root} timeout -k 5 120 nix-env --profile "$1" --set "$2" \
    </dev/null >>"$LOG" 2>&1 9>&- && [ "$1" -ef "$2" ]
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
  read_default
  case $DEFAULT in "$SYSTEM" | "$PROFILE_BEFORE") ;; *) return 0 ;; esac
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

proves() { # -> DEFAULT
  read_staged && [ "$WAITS_FOR" = "$SYSTEM" ] && [ "$SYSTEM" = "$PREVIOUS" ] || return
  read_boot_id
  read_booted
  read_default
  [ "$STAGED_IN" != "$BOOT_NOW" ] && [ "$BOOTED_SYSTEM" = "$SYSTEM" ] && [ -n "$DEFAULT" ] && [ "$DEFAULT" != "$SYSTEM" ]
}

# A new switch ends what waited for a reboot; the journal keeps what became of it.
settle_staged() {
  if [ -z "$WAITING" ]; then
    :
  elif [ "$STAGED_IN" = "$BOOT" ]; then
    once '' || return 1
    settle superseded
  elif [ -z "$BOOTED" ]; then
    read_booted
    if [ "$BOOTED_SYSTEM" = "$WAITS_FOR" ]; then put "$STAGED" "$WAITING booted"; else settle did-not-boot; fi
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
