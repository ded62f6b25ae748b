#!/bin/sh
# keeper.sh LAB CGROUP BRIDGE GATEWAY: makes what a lab needs on the host, says "ready", waits for the end of its
# standard input, removes everything. Its input is a pipe held by the lab's owner: however the owner ends (even by
# SIGKILL) the pipe closes.
# keeper.sh LAB CGROUP BRIDGE: only removes, what a lab left whose keeper was killed, too.
set -u
lab=$1 cgroup=$2 bridge=$3 gateway=${4-}
trap '' HUP INT TERM

set_up() {
  mkdir -p "$lab" && mount -t tmpfs -o mode=755,size=8g,nr_inodes=0 driftless-lab "$lab" &&
    mount --make-private "$lab" && mkdir -p "$cgroup" && echo $$ >"$lab/keeper.pid" && : >"$lab/alive" &&
    ip addr add "$gateway/24" dev "$bridge" && ip link set "$bridge" up
}

remove() {
  [ ! -e "$cgroup/cgroup.kill" ] || echo 1 >"$cgroup/cgroup.kill"
  # The nodes' ports, and the bridges of their wires.
  for port in "/sys/class/net/${bridge}n"*; do
    [ ! -e "$port" ] || ip link del "${port##*/}" 2>/dev/null
  done
  umount -l "$lab" 2>/dev/null
  # What was written after the file system had gone.
  [ ! -d "$lab" ] || mountpoint -q "$lab" || find "$lab" -xdev -depth -delete 2>/dev/null
  [ ! -d "$cgroup" ] || find "$cgroup" -depth -type d -exec rmdir {} + 2>/dev/null
}

remains() {
  for place in "$lab" "$cgroup" "/sys/class/net/${bridge}n"*; do
    [ ! -e "$place" ] || return 0
  done
  return 1
}

tear_down() {
  # First the sign that boots look for, then the kill: a boot that joined its cgroup too late sees the sign missing.
  rm -f "$lab/alive"
  tries=0
  remove
  # Killed processes and their networks take their time to end.
  while remains && [ $tries -lt 200 ]; do
    sleep 0.05
    remove
    tries=$((tries + 1))
  done
  # Last: who has the bridge has the lab's number, and the next lab may take it.
  ip link del "$bridge" 2>/dev/null
}

if [ -z "$gateway" ]; then
  tear_down
  exit 0
fi
if set_up; then
  echo ready
  cat >/dev/null
fi
tear_down
