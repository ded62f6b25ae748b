#!/bin/sh
# keeper.sh LAB CGROUP BRIDGE GATEWAY: makes what a lab needs on the host, says "ready", waits for the end of its
# standard input, removes everything. Its input is a pipe held by the lab's owner: however the owner ends (even by
# SIGKILL) the pipe closes. With nothing on its input it is the broom for a lab whose keeper died.
set -u
lab=$1 cgroup=$2 bridge=$3 gateway=$4
trap '' HUP INT TERM

set_up() {
  mkdir -p "$lab" && mount -t tmpfs -o mode=755,size=8g,nr_inodes=0 driftless-lab "$lab" &&
    mount --make-private "$lab" && mkdir -p "$cgroup" && echo $$ >"$lab/keeper.pid" && : >"$lab/alive" &&
    ip addr add "$gateway/24" dev "$bridge" && ip link set "$bridge" up
}

tear_down() {
  # First the sign that boots look for, then the kill: a boot that joined its cgroup too late sees the sign missing.
  rm -f "$lab/alive"
  [ ! -e "$cgroup/cgroup.kill" ] || echo 1 >"$cgroup/cgroup.kill"
  # The nodes' ports, and the bridges of their wires.
  for port in "/sys/class/net/${bridge}n"*; do
    [ ! -e "$port" ] || ip link del "${port##*/}" 2>/dev/null
  done
  ip link del "$bridge" 2>/dev/null
  umount -l "$lab" 2>/dev/null
  rmdir "$lab" 2>/dev/null
  tries=0
  while [ -d "$cgroup" ] && [ $tries -lt 100 ]; do
    find "$cgroup" -depth -type d -exec rmdir {} + 2>/dev/null
    [ ! -d "$cgroup" ] || sleep 0.05
    tries=$((tries + 1))
  done
}

if [ -e "$lab/keeper.pid" ]; then
  tear_down
  exit 0
fi
if set_up; then
  echo ready
  cat >/dev/null
fi
tear_down
