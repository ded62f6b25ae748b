#!/bin/sh
# switch-to-configuration for lab nodes: check | switch | boot | test | dry-activate. In the order of the real one: lock,
# pre-switch checks, boot loader, init interface, activation, units. Exit codes: 0; 1 usage, checks, boot loader; 2 activation
# failed; 4 some unit is failed (also one that failed long ago); 11 or 1 lock held; 100 needs a reboot.
toplevel=@out@
PATH=$toplevel/sw/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH LC_ALL=C
action=${1-}
faults=$toplevel/lab/faults

case $action in
  check | switch | boot | test | dry-activate) ;;
  *)
    echo "Usage: $0 [check|switch|boot|test|dry-activate]" >&2
    exit 1
    ;;
esac

fault() { [ -e "$faults/$1" ]; }
value() { cat "$faults/$1"; }

log() {
  read -r uptime _ </proc/uptime
  echo "$uptime $action $toplevel $*" >>/var/log/lab-switch.log
}

finish() {
  log "exit $1"
  exit "$1"
}

forever() {
  log "$1"
  # In the foreground and without a parent that waits: what is killed is exactly what a deadline reaches.
  exec sleep 86400
}

take_lock() {
  mkdir -p /run/nixos
  exec 8>/run/nixos/switch-to-configuration.lock
  flock -n 8 && return
  if [ "$(cat "$toplevel/lab/lock")" = ng ]; then
    echo "Could not acquire lock" >&2
    finish 1
  fi
  echo "Could not acquire lock - Resource temporarily unavailable at $0 line 76." >&2
  finish 11
}

pre_switch_checks() {
  [ "${NIXOS_NO_CHECK-}" != 1 ] || return 0
  if fault preSwitchCheckFails; then
    echo "Pre-switch check 'lab' failed" >&2
    return 1
  fi
  [ "$action" != boot ] || return 0
  booted=$(cat /run/booted-system/switch-inhibitors 2>/dev/null || echo '{}')
  [ "$booted" != "$(cat "$toplevel/switch-inhibitors")" ] || return 0
  cat >&2 <<TEXT

There are changes to critical components of the system:

-$booted
+$(cat "$toplevel/switch-inhibitors")

Switching into this system is not recommended.
You probably want to run 'nixos-rebuild boot' and reboot your system instead.

If you really want to switch into this configuration directly, then
you can set NIXOS_NO_CHECK=1 to ignore pre-switch checks.

WARNING: doing so might cause the switch to fail or your system to become unstable.

TEXT
  return 1
}

# Whoever opens it has done first what is to be done first.
wait_at_gate() {
  if ! fault gate || [ "$(value gate)" != "$action" ]; then return 0; fi
  log "waits at the gate"
  for _ in $(seq 600); do
    [ ! -e /run/lab-gate ] || return 0
    sleep 0.1
  done
}

write_entry() { # write_entry ID VERSION SYSTEM
  printf 'title NixOS\nversion %s\nlinux %s\ninitrd %s\noptions init=%s/init %s\nsort-key nixos\n' "$2" \
    "$(readlink -f "$3/kernel")" "$(readlink -f "$3/initrd")" "$3" "$(cat "$3/kernel-params")" \
    >"$loader/entries/$1.new" && mv "$loader/entries/$1.new" "$loader/entries/$1"
}

install_boot_loader() {
  if fault bootLoaderHangs; then forever "boot loader hangs"; fi
  if fault bootLoaderFails; then
    echo "Failed to install bootloader" >&2
    return 1
  fi
  echo "updating the lab's boot loader..."
  if fault bootLoaderLies; then return 0; fi
  loader=/boot/loader default=
  mkdir -p "$loader/entries" || return 1
  current=$(readlink /nix/var/nix/profiles/system)
  kept=
  for link in /nix/var/nix/profiles/system-*-link /nix/var/nix/profiles/system-profiles/*-*-link; do
    [ -e "$link/init" ] || continue
    system=$(readlink -f "$link")
    number=${link%-link}
    number=${number##*-}
    # As systemd-boot-builder.py names them.
    case $link in
      */system-profiles/*)
        entry=${link##*/}
        entry=nixos-${entry%-"$number"-link}-generation-$number.conf
        ;;
      *) entry=nixos-generation-$number.conf ;;
    esac
    write_entry "$entry" "Generation $number NixOS $(cat "$system/nixos-version")" "$system" || return 1
    kept="$kept $entry "
    if [ "$system" = "$toplevel" ] && { [ -z "$default" ] || [ "${link##*/}" = "$current" ]; }; then default=$entry; fi
  done
  if [ -z "$default" ]; then
    default=nixos-not-a-generation.conf
    write_entry "$default" "NixOS $(cat "$toplevel/nixos-version")" "$toplevel" || return 1
    kept="$kept $default "
  fi
  printf 'timeout 0\ndefault %s\n' "$default" >"$loader/loader.conf.new" &&
    mv "$loader/loader.conf.new" "$loader/loader.conf" || return 1
  for entry in "$loader"/entries/*.conf; do
    case $kept in *" ${entry##*/} "*) ;; *) rm -f "$entry" ;; esac
  done
}

# The units that activation starts here and that were not started by the system before, or are another text now.
new_units() {
  while read -r unit || [ -n "$unit" ]; do
    [ -n "$unit" ] || continue
    cmp -s "$toplevel/etc/systemd/system/$unit" "/run/lab-units/$unit" || echo "$unit"
  done <"$toplevel/lab/start"
}

gone_units() {
  for unit in /run/lab-units/*; do
    unit=${unit##*/}
    [ "$unit" = '*' ] || grep -qxF "$unit" "$toplevel/lab/start" || echo "$unit"
  done
}

dry_activate() {
  for unit in $(gone_units); do echo "would stop the following units: $unit"; done
  echo "would activate the configuration..."
  for unit in $(new_units); do
    if [ -e "/run/lab-units/$unit" ]; then echo "would restart the following units: $unit"
    else echo "would start the following units: $unit"; fi
  done
}

change_units() {
  mkdir -p /run/lab-units /run/systemd/system
  gone=$(gone_units) new=$(new_units)
  for unit in $gone; do
    echo "stopping the following units: $unit"
    systemctl stop "$unit"
    rm -f "/run/lab-units/$unit" "/run/systemd/system/$unit" "/run/systemd/system/lab.target.wants/$unit"
  done
  for unit in $new; do
    cp "$toplevel/etc/systemd/system/$unit" "/run/lab-units/$unit"
    cp "$toplevel/etc/systemd/system/$unit" "/run/systemd/system/$unit"
  done
  [ -z "$gone$new" ] || systemctl daemon-reload
  # A unit that went away failed would be reported as failed for ever.
  for unit in $gone; do systemctl reset-failed "$unit" 2>/dev/null; done
  for unit in $new; do
    echo "restarting the following units: $unit"
    systemctl restart "$unit"
  done
}

# What a NixOS system's own units do at activation: sshd and the network are as it declares them.
repair() {
  if ! fault dropAddress && ! fault dropRoute && [ -e /run/lab-network ]; then
    ip -batch /run/lab-network
  fi
  if ! fault killSsh; then
    if [ -e /run/systemd/system.control/sshd.service ]; then
      rm -f /run/systemd/system.control/sshd.service
      systemctl daemon-reload
    fi
    systemctl is-active -q sshd.service || systemctl start sshd.service
  fi
  fault stopDbus || systemctl is-active -q dbus.socket || systemctl start dbus.socket
}

do_harm() {
  if fault leaveChild; then setsid sleep "$(value leaveChild)" >/dev/null 2>&1 </dev/null & fi
  if fault leaveUnit; then
    systemd-run --quiet --collect "$toplevel/sw/bin/flock" /run/nixos/switch-to-configuration.lock \
      "$toplevel/sw/bin/sleep" "$(value leaveUnit)"
  fi
  if fault fillDisk; then
    place=$(value fillDisk)
    fallocate -l "$(($(stat -f -c '%a * %S' "$place")))" "$place/.lab-fill"
  fi
  if fault stopDbus; then systemctl stop dbus.socket dbus.service; fi
  if fault dropRoute; then ip route del default; fi
  if fault dropAddress; then ip addr flush dev eth0 scope global; fi
  if fault killSsh; then
    # Its sessions are killed with it. Who runs this from such a session does not see the end of it, as in life.
    systemctl kill --signal=KILL sshd.service 2>/dev/null
    systemctl stop sshd.service ssh.socket 2>/dev/null
  fi
  if fault hangStubbornly; then
    trap '' TERM
    forever "hangs stubbornly"
  fi
  if fault hang; then forever "hangs"; fi
}

log start
take_lock
if [ "$action" != dry-activate ] && ! pre_switch_checks; then
  echo "Pre-switch checks failed" >&2
  finish 1
fi
[ "$action" != check ] || finish 0
wait_at_gate
case $action in boot | switch) install_boot_loader || finish 1 ;; esac
[ "$action" != boot ] || finish 0

if [ "${NIXOS_NO_CHECK-}" != 1 ] &&
  [ "$(cat /run/current-system/init-interface-version 2>/dev/null)" != "$(cat "$toplevel/init-interface-version")" ]; then
  needs_reboot=1
fi
if fault exit; then code=$(value exit); else code=${needs_reboot:+100}; fi
case $code in
  '') ;;
  11) echo "Could not acquire lock - Resource temporarily unavailable at $0 line 76." >&2 ;;
  100)
    echo "Warning: the new NixOS configuration has an 'init' that is incompatible with the current configuration." >&2
    echo "The new configuration won't take effect until you reboot the system." >&2
    ;;
esac
[ -z "$code" ] || finish "$code"

if [ "$action" = dry-activate ]; then
  dry_activate
  finish 0
fi

if fault slow; then
  log "slow"
  sleep "$(value slow)"
fi
result=0
echo "activating the configuration..."
"$toplevel/activate" || result=2
change_units
repair
do_harm
failed=$(systemctl list-units --state=failed --plain --no-legend | cut -d' ' -f1)
if [ -n "$failed" ]; then
  for unit in $failed; do echo "warning: the following units failed: $unit" >&2; done
  [ $result != 0 ] || result=4
fi
finish $result
