#!/bin/sh
# assemble.sh BASE LAB DIR NAME NIX_BYTES VAR_BYTES: the root file system of one node, from what a machine with systemd
# shares (/usr, read-only) and what it must not (everything else). Nothing of the base is visible that is not named here.
set -eu
base=${1%/} lab=$2 dir=$3 name=$4 nix_bytes=$5 var_bytes=$6
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

mkdir etc
for item in passwd group shadow gshadow subuid subgid login.defs nsswitch.conf pam.conf pam.d security shells protocols \
  services ld.so.cache ld.so.conf ld.so.conf.d alternatives bash.bashrc profile profile.d dbus-1 sudoers host.conf \
  gai.conf default/locale localtime inputrc skel nanorc debian_version; do
  [ -e "$base/etc/$item" ] || continue
  mkdir -p "etc/$(dirname "$item")"
  cp -a "$base/etc/$item" "etc/$item"
done
# Key logins of an account whose password is locked ("!") are refused; "*" only means that no password fits.
sed -i 's/^root:[^:]*:/root:*:/' etc/shadow

touch etc/NIXOS etc/fstab
echo "$name" >etc/hostname
printf '127.0.0.1 localhost\n::1 localhost\n127.0.1.1 %s\n' "$name" >etc/hosts
printf 'NAME=NixOS\nID=nixos\nVERSION_ID="24.05"\nPRETTY_NAME="NixOS-shaped lab node"\n' >etc/os-release
tr -d - </proc/sys/kernel/random/uuid >etc/machine-id
ln -s /etc/machine-id var/lib/dbus/machine-id

mkdir -p etc/systemd/system etc/systemd/system-generators
units=etc/systemd/system
for wants in sysinit basic sockets timers local-fs multi-user; do
  for unit in "$base/usr/lib/systemd/system/$wants.target.wants/"* "$base/lib/systemd/system/$wants.target.wants/"*; do
    case ${unit##*/} in
      '*' | systemd-journald* | systemd-journal-flush.service | dbus.socket) ;;
      *) ln -sfn /dev/null "$units/${unit##*/}" ;;
    esac
  done
done
ln -sfn /dev/null "$units/systemd-udevd.service"
ln -sfn /dev/null "$units/systemd-logind.service"
ln -sfn /dev/null "$units/systemd-user-sessions.service"
for generator in "$base/usr/lib/systemd/system-generators/"* "$base/lib/systemd/system-generators/"*; do
  [ ! -e "$generator" ] || ln -sfn /dev/null "etc/systemd/system-generators/${generator##*/}"
done
mkdir -p etc/systemd/journald.conf.d
printf '[Journal]\nStorage=persistent\nSystemMaxUse=24M\nSyncIntervalSec=5s\n' >etc/systemd/journald.conf.d/lab.conf

cat >"$units/lab.target" <<'UNIT'
[Unit]
Description=What a lab node starts
Requires=basic.target
Wants=dbus.socket nix-daemon.socket sshd.service
After=basic.target
AllowIsolate=yes
UNIT
ln -s lab.target "$units/default.target"
# sshd comes last: who can log in finds the rest in place. Sessions outlive a restart of sshd, as on NixOS.
cat >"$units/sshd.service" <<'UNIT'
[Unit]
Description=SSH daemon
Wants=nix-daemon.socket
After=dbus.socket nix-daemon.socket
[Service]
Type=notify
ExecStart=/usr/sbin/sshd -D
ExecReload=/bin/kill -HUP $MAINPID
KillMode=process
Restart=always
RestartSec=200ms
RuntimeDirectory=sshd
RuntimeDirectoryMode=0755
RuntimeDirectoryPreserve=yes
UNIT
ln -s sshd.service "$units/ssh.service"
ln -s /dev/null "$units/ssh.socket"
cat >"$units/nix-daemon.socket" <<'UNIT'
[Unit]
Description=Nix daemon socket
Before=multi-user.target
[Socket]
ListenStream=/nix/var/nix/daemon-socket/socket
UNIT
cat >"$units/nix-daemon.service" <<'UNIT'
[Unit]
Description=Nix daemon
Requires=nix-daemon.socket
[Service]
ExecStart=/usr/bin/nix-daemon
KillMode=process
UNIT

mkdir -p etc/ssh/sshd_config.d
ssh-keygen -q -t ed25519 -N '' -C "$name" -f etc/ssh/ssh_host_ed25519_key
cat >etc/ssh/sshd_config <<'CONF'
Include /etc/ssh/sshd_config.d/*.conf
HostKey /etc/ssh/ssh_host_ed25519_key
AuthorizedKeysFile .ssh/authorized_keys
PermitRootLogin prohibit-password
PasswordAuthentication no
UsePAM no
UseDNS no
PrintMotd no
MaxStartups 100:30:200
MaxSessions 100
SetEnv PATH=/run/wrappers/bin:/run/current-system/sw/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
Subsystem sftp internal-sftp
CONF
mkdir -m 700 root/.ssh
cp "$lab/identity.pub" root/.ssh/authorized_keys
chmod 600 root/.ssh/authorized_keys

mkdir -p etc/nix etc/sudoers.d
printf '%s\n' 'sandbox = false' 'substitute = false' 'build-users-group =' 'require-sigs = false' \
  'experimental-features = nix-command flakes' >etc/nix/nix.conf
