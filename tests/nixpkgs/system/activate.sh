#!/bin/bash
# The activation script: /etc, then the snippets, then the current system. As on NixOS a snippet that fails does not keep the
# rest from being done, and the current system changes all the same.
toplevel=@out@
PATH=$toplevel/sw/bin:/usr/sbin:/usr/bin:/sbin:/bin
status=0

echo "setting up /etc..."
ln -sfn "$toplevel/etc" /etc/static.new && mv -T /etc/static.new /etc/static || status=1
for link in /etc/*; do
  case $(readlink "$link") in
    /etc/static/*) [ -e "$link" ] || rm -f "$link" ;;
  esac
done
for entry in "$toplevel/etc/"*; do
  entry=${entry##*/}
  case $entry in systemd | hostname | ssh | '*') continue ;; esac
  ln -sfn "/etc/static/$entry" "/etc/.lab-new" && mv -T "/etc/.lab-new" "/etc/$entry" || status=1
done

# By this name snippets know the system that they belong to.
# shellcheck disable=SC2034
systemConfig=$toplevel
(
  set -e
  # shellcheck source=/dev/null
  . "$toplevel/lab/activation"
) || status=1
if [ -e "$toplevel/lab/faults/activationFails" ]; then
  echo "Activation script snippet 'lab' failed (1)"
  status=1
fi

ln -sfn "$toplevel" /run/.lab-new && mv -T /run/.lab-new /run/current-system || status=1
exit $status
