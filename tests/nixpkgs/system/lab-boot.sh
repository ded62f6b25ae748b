#!/bin/sh
# Runs as stage 2 does, before systemd: the system that was booted activates itself. Only the lab calls it.
toplevel=@out@
PATH=/usr/sbin:/usr/bin:/sbin:/bin
faults=$toplevel/lab/faults

if [ -e "$faults/panicAtBoot" ]; then
  # reboot(2) from inside the namespace: the supervisor boots the machine again, as panic=1 would.
  echo "kernel panic - not syncing: the lab was told so" >&2
  systemctl reboot -ff
  sleep 60
fi
"$toplevel/activate" >/dev/null
mkdir -p /run/systemd/system /run/lab-units
while read -r unit || [ -n "$unit" ]; do
  [ -n "$unit" ] || continue
  cp "$toplevel/etc/systemd/system/$unit" "/run/systemd/system/$unit"
  cp "$toplevel/etc/systemd/system/$unit" "/run/lab-units/$unit"
  mkdir -p /run/systemd/system/lab.target.wants
  ln -sfn "../$unit" "/run/systemd/system/lab.target.wants/$unit"
done <"$toplevel/lab/start"
if [ -e "$faults/killSsh" ]; then
  mkdir -p /run/systemd/system.control
  ln -sfn /dev/null /run/systemd/system.control/sshd.service
fi
[ ! -e "$faults/dropRoute" ] || ip route del default
[ ! -e "$faults/dropAddress" ] || ip addr flush dev eth0 scope global
exit 0
