#!/bin/sh
# etc.sh BASE ETC: the part of /etc that all nodes of a lab with the same base share: the base's accounts and shell set-up,
# and the lab's own systemd, sshd and Nix configuration.
set -eu
base=${1%/} etc=$2
mkdir -p "$etc"
cd "$etc"
for item in passwd group shadow gshadow subuid subgid login.defs nsswitch.conf pam.conf pam.d security shells protocols \
  services ld.so.cache ld.so.conf ld.so.conf.d alternatives bash.bashrc profile profile.d dbus-1 sudoers host.conf \
  gai.conf localtime inputrc skel debian_version; do
  [ ! -e "$base/etc/$item" ] || echo "$item"
done | (cd "$base/etc" && xargs cp -a -t "$etc")
rm -f alternatives/*.gz
# Key logins of an account whose password is locked ("!") are refused; "*" only means that no password fits.
sed -i 's/^root:[^:]*:/root:*:/' shadow
: >NIXOS
: >fstab
printf 'NAME=NixOS\nID=nixos\nVERSION_ID="24.05"\nPRETTY_NAME="NixOS-shaped lab node"\n' >os-release

mkdir -p systemd/system systemd/system-generators systemd/journald.conf.d systemd/system.conf.d ssh/sshd_config.d nix sudoers.d
units=systemd/system

# No unit of the base starts by itself, except the journal and D-Bus; and no generator makes any.
set -- systemd-udevd.service systemd-logind.service systemd-user-sessions.service ssh.socket
for wants in sysinit basic sockets timers local-fs multi-user; do
  for unit in "$base/usr/lib/systemd/system/$wants.target.wants/"* "$base/lib/systemd/system/$wants.target.wants/"*; do
    case ${unit##*/} in
      '*' | systemd-journald* | systemd-journal-flush.service | dbus.socket | dbus.service) ;;
      *) set -- "$@" "${unit##*/}" ;;
    esac
  done
done
# An empty file masks as a link to /dev/null does, and needs no process to make.
for unit; do : >"$units/$unit"; done
for generator in "$base/usr/lib/systemd/system-generators/"* "$base/lib/systemd/system-generators/"*; do
  generator=${generator##*/}
  [ "$generator" = '*' ] || : >"systemd/system-generators/$generator"
done
printf '[Journal]\nStorage=persistent\nSystemMaxUse=24M\nSyncIntervalSec=5s\n' >systemd/journald.conf.d/lab.conf
# As on NixOS a transient unit finds systemd's programs by its PATH, and no coreutils: who needs them must say so.
printf '[Manager]\nDefaultEnvironment=PATH=/run/current-system/systemd/bin\n' >systemd/system.conf.d/lab.conf

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

cat >ssh/sshd_config <<'CONF'
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
printf '%s\n' 'sandbox = false' 'substitute = false' 'build-users-group =' 'require-sigs = false' \
  'experimental-features = nix-command flakes' >nix/nix.conf
