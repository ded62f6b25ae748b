#!/bin/sh
# assemble.sh BASE LAB DIR NAME NIX_BYTES VAR_BYTES ETC: the root file system of one node, from what a machine with systemd
# shares (/usr, read-only) and what it must not (everything else). Nothing of the base is visible that is not named here.
set -eu
base=${1%/} lab=$2 dir=$3 name=$4 nix_bytes=$5 var_bytes=$6 etc=$7
root=$dir/root
mkdir -p "$root"
mount --bind "$root" "$root"
mount --make-private "$root"
cd "$root"
mkdir -p usr nix var boot/loader/entries root home tmp run proc sys dev mnt srv opt
chmod 700 root
for link in bin sbin lib lib32 lib64 libx32; do
  if [ -L "$base/$link" ]; then cp -P "$base/$link" "$link"
  elif [ -d "$base/$link" ]; then
    mkdir "$link"
    mount --bind "$base/$link" "$link"
  fi
done
mount --bind "$base/usr" usr
mount -o remount,bind,ro usr
mount -t tmpfs -o "mode=755,size=$nix_bytes" nix nix
mount -t tmpfs -o "mode=755,size=$var_bytes" var var

mkdir -p var/cache var/lib/systemd var/lib/dbus var/lib/private var/log/journal var/log/private var/spool var/empty
mkdir -m 1777 var/tmp
ln -s /run var/run
ln -s /run/lock var/lock

cp -a "$etc" etc
echo "$name" >etc/hostname
printf '127.0.0.1 localhost\n::1 localhost\n127.0.1.1 %s\n' "$name" >etc/hosts
tr -d - </proc/sys/kernel/random/uuid >etc/machine-id
ln -s /etc/machine-id var/lib/dbus/machine-id
ssh-keygen -q -t ed25519 -N '' -C "$name" -f etc/ssh/ssh_host_ed25519_key
mkdir -m 700 root/.ssh
cp "$lab/identity.pub" root/.ssh/authorized_keys
chmod 600 root/.ssh/authorized_keys
