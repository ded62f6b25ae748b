#!/bin/sh
# debian13.sh TARGET: a Debian 13 tree with what a lab node needs, for the nodes whose Nix is 2.26. Built beside
# TARGET and moved into place when complete, so that an interrupted run leaves nothing that looks finished.
# The mirror and the settings of apt are the host's own.
set -eu
target=$1
[ ! -x "$target/usr/bin/curl" ] || exit 0
mkdir -p "$(dirname "$target")"
exec 9>"$target.lock"
flock 9
[ ! -x "$target/usr/bin/curl" ] || exit 0

mirror=${DRIFTLESS_LAB_MIRROR:-$(cat /etc/apt/sources.list.d/*.sources /etc/apt/sources.list 2>/dev/null |
  sed -nE 's/^(URIs:|deb( \[[^]]*\])?)[[:space:]]+([^[:space:]]*\/debian)\/?([[:space:]].*)?$/\3/p' | head -n1)}
[ -n "$mirror" ] || { echo "no Debian mirror among the apt sources of this machine; set DRIFTLESS_LAB_MIRROR" >&2; exit 1; }

new=$target.new
umount_all() { for m in proc sys dev; do umount -l "$new/$m" 2>/dev/null || :; done; }
trap umount_all EXIT
umount_all
rm -rf "$new"

# nix-bin in debootstrap's own --include does not configure: its dependencies arrive in an order that perl's
# database module cannot stand. apt inside the tree can.
debootstrap --variant=minbase trixie "$new" "$mirror" >&2

cp -a /etc/apt/apt.conf.d/. "$new/etc/apt/apt.conf.d/"
[ ! -e /etc/apt/apt.conf ] || cp -a /etc/apt/apt.conf "$new/etc/apt/"
if [ -d /usr/local/share/ca-certificates ]; then
  mkdir -p "$new/usr/local/share"
  cp -a /usr/local/share/ca-certificates "$new/usr/local/share/"
fi
cp -L /etc/resolv.conf "$new/etc/resolv.conf" 2>/dev/null || :
printf '#!/bin/sh\nexit 101\n' >"$new/usr/sbin/policy-rc.d"
chmod 755 "$new/usr/sbin/policy-rc.d"
for m in proc sys dev; do mount --bind "/$m" "$new/$m"; done
DEBIAN_FRONTEND=noninteractive chroot "$new" apt-get -q update >&2
DEBIAN_FRONTEND=noninteractive chroot "$new" apt-get -q -y --no-install-recommends install \
  systemd systemd-sysv dbus openssh-server iproute2 sudo opendoas tcsh procps curl nix-bin ca-certificates >&2
chroot "$new" apt-get clean
umount_all
# One of before, without what has been added to the list since.
rm -rf "$target"
mv "$new" "$target"
