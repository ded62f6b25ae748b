#!/bin/sh
# boot.sh DIR CGROUP VETH BRIDGE ADDRESS GATEWAY NAME: one boot of a node, from the firmware to PID 1. Runs until the node
# ends and ends with the node's signal: SIGHUP after reboot(2) restart, SIGINT after halt and power-off.
set -eu
dir=$1 cgroup=$2 veth=$3 bridge=$4 address=$5 gateway=$6 name=$7
root=$dir/root

# Everything of this boot lives in this cgroup, so that one write kills it; a lab that is being removed has no `alive`.
# Each boot has another: Linux 6.18 also kills what enters a once killed cgroup by way of CLONE_INTO_CGROUP, as systemd 257
# starts its services.
mkdir -p "$cgroup"
find "$cgroup" -mindepth 1 -depth -type d -exec rmdir {} + 2>/dev/null || :
boot=$(mktemp -d "$cgroup/boot-XXXXXX")
echo $$ >"$boot/cgroup.procs"
[ -e "$dir/../alive" ]

umount -l "$root/run" 2>/dev/null || :
mount -t tmpfs -o mode=755,size=64m run "$root/run"
cat /proc/sys/kernel/random/uuid >"$dir/boot_id"

# The modelled boot loader, systemd-boot's files: a one-shot entry is used once, and one that does not exist is ignored.
loader=$root/boot/loader
entry=
if [ -e "$loader/entries.oneshot" ]; then
  entry=$(cat "$loader/entries.oneshot")
  rm -f "$loader/entries.oneshot"
  [ -e "$loader/entries/$entry" ] || entry=
fi
[ -n "$entry" ] || entry=$(sed -n 's/^default[[:space:]]*//p' "$loader/loader.conf")
system=$(sed -nE 's/^options .*init=([^ ]*)\/init( .*)?$/\1/p' "$loader/entries/$entry")
if [ -z "$system" ] || [ ! -d "$root$system" ]; then
  echo "the boot loader's entry $entry names no system that exists: '$system'" >&2
  exit 70
fi
ln -s "$system" "$root/run/current-system"
ln -s "$system" "$root/run/booted-system"

ip link del "$veth" 2>/dev/null || :
umount -l "$dir/net" 2>/dev/null || :
: >"$dir/net"
unshare --net="$dir/net" ip link set lo up
# The same card after each boot: neighbours remember its hardware address for half a minute.
mac=$(echo "$address" | awk -F. '{ printf "02:64:%02x:%02x:%02x:%02x", $1, $2, $3, $4 }')
ip link add "$veth" type veth peer name eth0 address "$mac" netns "$dir/net"
# The wire of a test, where one was laid.
[ ! -e "/sys/class/net/${veth}w" ] || bridge=${veth}w
ip link set "$veth" master "$bridge" up
cat >"$root/run/lab-network" <<IP
addr replace $address/24 dev eth0
link set eth0 up
route replace default via $gateway
IP
nsenter --net="$dir/net" ip -batch "$root/run/lab-network"

exec nsenter --net="$dir/net" \
  unshare --mount --pid --uts --ipc --cgroup --fork --kill-child sh "$dir/../init.sh" "$dir" "$name" "$system"
