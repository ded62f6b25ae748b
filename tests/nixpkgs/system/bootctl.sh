#!/bin/sh
# The part of bootctl(1) that chooses what is booted, for the lab's modelled boot loader: systemd-boot's files without
# EFI variables.
loader=/boot/loader
if [ -e /boot/no-uefi ] && [ "${1-}" = set-oneshot ]; then
  echo "Not booted with UEFI." >&2
  exit 1
fi
case ${1-} in
  set-oneshot)
    if [ -z "${2-}" ]; then rm -f "$loader/entries.oneshot"; exit 0; fi
    printf '%s\n' "$2" >"$loader/entries.oneshot.new"
    mv "$loader/entries.oneshot.new" "$loader/entries.oneshot"
    ;;
  set-default)
    printf 'timeout 0\ndefault %s\n' "${2:?an entry}" >"$loader/loader.conf.new"
    mv "$loader/loader.conf.new" "$loader/loader.conf"
    ;;
  is-installed) echo yes ;;
  list)
    for entry in "$loader"/entries/*.conf; do
      echo "         type: Boot Loader Specification Type #1 (.conf)"
      echo "           id: ${entry##*/}"
      echo "       source: $entry"
      sed -n 's/^options /      options: /p' "$entry"
      echo
    done
    ;;
  status | '')
    echo "System:"
    echo "     Firmware: lab"
    echo "Current Boot Loader:"
    echo "      Product: systemd-boot (lab)"
    echo "Default Boot Loader Entry:"
    echo "           id: $(sed -n 's/^default *//p' "$loader/loader.conf")"
    ;;
  *)
    echo "Unknown command verb '$1'." >&2
    exit 1
    ;;
esac
