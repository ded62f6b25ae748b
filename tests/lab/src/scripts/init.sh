#!/bin/sh
# init.sh DIR NAME SYSTEM: the first process of a node, inside its new namespaces: its file systems, its root, its systemd.
set -eu
dir=$1 name=$2 system=$3
root=$dir/root
# /proc is still the host's here: this is our number as the host sees it.
read -r pid _ </proc/self/stat
echo "$pid" >"$dir/pid1.new"
mv "$dir/pid1.new" "$dir/pid1"

mount --make-rprivate /
mount -t proc proc "$root/proc"
mount --bind "$dir/boot_id" "$root/proc/sys/kernel/random/boot_id"
mount -t sysfs sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t tmpfs -o mode=1777,size=64m tmp "$root/tmp"
mount -t tmpfs -o mode=755,size=1m dev "$root/dev"
for device in null zero full random urandom tty; do
  : >"$root/dev/$device"
  mount --bind "/dev/$device" "$root/dev/$device"
done
mkdir "$root/dev/pts" "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts "$root/dev/pts"
mount -t tmpfs -o mode=1777,size=16m shm "$root/dev/shm"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
ln -s fd/0 "$root/dev/stdin"
ln -s fd/1 "$root/dev/stdout"
ln -s fd/2 "$root/dev/stderr"
hostname "$name"

cd "$root"
pivot_root . mnt
cd /
umount -l /mnt
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
# What stage 2 does on a real machine: the booted system activates itself before systemd starts.
[ ! -x "$system/lab-boot" ] || "$system/lab-boot" || echo "lab-boot of $system failed: $?" >&2
exec env -i container=lab PATH="$PATH" /lib/systemd/systemd --log-target=journal --show-status=0
