# A system for a lab node: a real derivation, laid out as NixOS lays out `system.build.toplevel`, made with nothing but
# `builtins.derivation`, /bin/sh and the programs of /usr/bin. It needs no nixpkgs, so anything may import it:
#
#   import ./system.nix { name = "web"; text = "one"; }        a toplevel (a derivation)
#
# Its bin/switch-to-configuration does for a node what the real one does for a machine, in the same order and with the same
# exit codes (./system/switch-to-configuration.sh). Every argument is optional:
#
#   name         host name; the derivation is nixos-system-NAME-VERSION
#   version      NixOS version
#   text         content of /etc/lab-text: what makes two systems differ
#   packages     [ { name = "openssh"; version = "9.7"; bytes = 0; } ... ]: each its own derivation NAME-VERSION, linked from
#                sw, with a file of so many bytes if `bytes` is given;
#                a derivation in this list is linked as it is
#   units        { "web.service" = "[Service]..."; }: in etc/systemd/system; started, restarted and stopped at activation
#                when `start` names them (all by default). As NixOS does, each service is given a PATH with coreutils
#   start        names among `units` that activation starts
#   etc          { "motd" = "text"; }: linked into the node's /etc by way of /etc/static
#   kernel       version: the paths of kernel, initrd and modules follow it
#   systemd      version of the systemd package
#   params       kernel parameters
#   interface    init-interface-version: another one than the running system's makes switch and test exit 100
#   lock         "perl" (exit code 11 when the lock is held, as before 24.11) or "ng" (1, as since); both say "Could not acquire lock"
#   activation   shell text run by activate, before the system becomes the current one
#   extraDependencies  further store paths of its closure
#   specialisations  { NAME = toplevel; }
#   extra        { ATTRIBUTE = string; }: further environment of the derivation, e.g. closurePaths
#   faults       what it does wrong; the value is a string, "1" where it has no meaning:
#     activationFails      a snippet of activate fails: the rest is done, exit code 2
#     unitFails            brings a unit lab-broken.service that fails: exit code 4 (as does any unit that had failed before)
#     slow = SECONDS       waits before it activates
#     gate = ACTION        with this action, waits until /run/lab-gate is there (a minute at most)
#     hang                 never returns, after having activated; hangStubbornly also ignores SIGTERM
#     killSsh              sshd is stopped, its sessions are killed; when booted, sshd never starts
#     dropRoute            the default route goes (also when booted); dropAddress: the address goes
#     stopDbus             D-Bus is stopped
#     fillDisk = PATH      fills the file system that holds PATH, with PATH/.lab-fill
#     leaveChild = SECONDS leaves a child in a session of its own that keeps the lock
#     leaveUnit = SECONDS leaves a unit that takes the lock next and keeps it so long
#     exit = CODE          switch and test exit with CODE at once, with the real messages for 11 and 100
#     inhibitor = VALUE    switch-inhibitors differ from those of systems with another value: the pre-switch check fails (1)
#     preSwitchCheckFails  exit code 1, unless NIXOS_NO_CHECK=1
#     bootLoaderFails      switch and boot exit with 1 before they have done anything; bootLoaderHangs: never return
#     bootLoaderLies       switch and boot leave the boot loader as it is and say that they have not
#     panicAtBoot          a boot of it ends in a reboot before systemd runs
{ name ? "node"
, version ? "24.05"
, text ? ""
, packages ? [ ]
, units ? { }
, start ? null
, etc ? { }
, kernel ? "6.6.1"
, systemd ? "255.4"
, params ? [ "loglevel=4" ]
, interface ? "2"
, lock ? "perl"
, activation ? ""
, extraDependencies ? [ ]
, specialisations ? { }
, extra ? { }
, faults ? { }
, system ? builtins.currentSystem or "x86_64-linux"
}:
let
  inherit (builtins) attrNames concatStringsSep genList elemAt length listToAttrs replaceStrings;

  quote = s: "'" + replaceStrings [ "'" ] [ "'\\''" ] (toString s) + "'";
  lines = concatStringsSep "\n";

  # A derivation whose builder is shell text. Store paths and texts go in by its environment.
  shell = name: environment: script: derivation ({
    inherit name system;
    builder = "/bin/sh";
    args = [ "-e" "-c" script ];
    PATH = "/usr/bin:/bin";
    preferLocalBuild = true;
    allowSubstitutes = false;
  } // environment);

  # Writes { NAME = text; } under DIRECTORY (an expression of the builder's shell), by variables text0, text1, ...
  files = prefix: set:
    let names = attrNames set;
    in {
      environment = listToAttrs (genList (i: { name = "${prefix}${toString i}"; value = set.${elemAt names i}; }) (length names));
      script = directory: lines (genList
        (i: ''
          f="${directory}"/${quote (elemAt names i)}
          mkdir -p "''${f%/*}"
          printf '%s' "''$${prefix}${toString i}" >"$f"
        '')
        (length names));
    };

  package = p:
    if p ? type && p.type == "derivation" then p
    else shell "${p.name}-${p.version}" { inherit (p) version; program = p.name; bytes = p.bytes or 0; } ''
      mkdir -p $out/bin
      printf '#!/bin/sh\necho %s %s\n' "$program" "$version" >"$out/bin/$program"
      chmod 755 "$out/bin/$program"
      if [ "$bytes" -gt 0 ]; then yes "$program" | head -c "$bytes" >$out/bulk; fi
    '';

  # What NixOS puts into every system path, from the node's /usr. A program that the node lacks is a dangling link, which
  # a search of PATH passes over.
  hostPrograms = shell "host-programs" { } ''
    mkdir -p $out/bin
    for p in basename bash cat chgrp chmod chown cksum cmp comm cp cut date dd df dirname du echo env expr false fallocate find \
      findmnt flock fmt fold free getent grep groups gzip head hostname id install ionice ip join journalctl kill link ln \
      logger login ls lsof mkdir mkfifo mknod mktemp more mount mountpoint mv nice nix nix-build nix-channel \
      nix-collect-garbage nix-copy-closure nix-daemon nix-env nix-hash nix-instantiate nix-store nl nohup nproc nsenter od \
      paste pgrep pkill printenv printf prlimit ps pwd readlink realpath rm rmdir sed seq setsid sh sha256sum sleep sort \
      split ss ssh ssh-keygen stat stdbuf stty sudo sync systemctl systemd-analyze systemd-cat systemd-cgls \
      systemd-notify systemd-run systemd-tmpfiles tac tail tar tee test timeout touch tr true truncate tsort tty umount \
      uname uniq unlink unshare uptime vmstat wc who xargs yes awk diff less; do
      case $p in ip | nologin) d=/usr/sbin ;; *) d=/usr/bin ;; esac
      ln -sfn $d/$p $out/bin/$p
    done
    # As on NixOS sh is bash.
    ln -sfn /usr/bin/bash $out/bin/sh
    # Debian 13 has it in /usr/bin alone, and both have it there.
    ln -sfn /usr/bin/ip $out/bin/ip
  '';

  linux = shell "linux-${kernel}" { inherit kernel; } ''
    mkdir -p "$out/lib/modules/$kernel"
    echo "kernel $kernel" >$out/bzImage
    echo "modules $kernel" >"$out/lib/modules/$kernel/modules.order"
  '';
  initrd = shell "initrd-linux-${kernel}" { inherit kernel; } ''
    mkdir -p $out
    echo "initrd $kernel" >$out/initrd
  '';
  systemdPackage = shell "systemd-${systemd}" { } ''
    mkdir -p $out/lib/systemd $out/bin
    ln -s /lib/systemd/systemd $out/lib/systemd/systemd
    for p in systemctl systemd-run systemd-notify systemd-cat systemd-tmpfiles journalctl busctl; do
      ln -s /usr/bin/$p $out/bin/$p
    done
  '';

  bootctl = shell "bootctl-of-the-lab" { script = builtins.readFile ./system/bootctl.sh; } ''
    mkdir -p $out/bin
    printf '%s' "$script" >$out/bin/bootctl
    chmod 755 $out/bin/bootctl
  '';

  sw = shell "system-path" { packages = [ bootctl hostPrograms systemdPackage ] ++ map package packages; inherit version; } ''
    mkdir -p $out/bin
    for p in $packages; do
      for f in $p/bin/*; do
        [ -e "$out/bin/''${f##*/}" ] || [ -L "$out/bin/''${f##*/}" ] || ln -s "$f" $out/bin/
      done
    done
    printf '#!/bin/sh\ncat /run/current-system/nixos-version\necho\n' >$out/bin/nixos-version
    chmod 755 $out/bin/nixos-version
  '';

  allUnits = units // (if faults ? unitFails then {
    "lab-broken.service" = "[Service]\nType=oneshot\nExecStart=/bin/false\n";
  } else { });
  startNames = if start == null then attrNames allUnits
    else start ++ (if faults ? unitFails then [ "lab-broken.service" ] else [ ]);

  etcFiles = files "etc" ({
    lab-text = text;
    hostname = name;
  } // etc);
  # The units that NixOS declares get a PATH with coreutils; transient units get none (see etc.sh of the lab).
  withPath = unit: unitText:
    if builtins.match ".*\\.service" unit == null then unitText
    else "[Service]\nEnvironment=PATH=${hostPrograms}/bin:${systemdPackage}/bin\n\n${unitText}";
  unitFiles = files "unit" (builtins.mapAttrs withPath allUnits);
  etcTree = shell "etc" (etcFiles.environment // unitFiles.environment) ''
    mkdir -p $out/etc/systemd/system
    ${etcFiles.script "$out/etc"}
    ${unitFiles.script "$out/etc/systemd/system"}
  '';

  faultFiles = files "fault" faults;
  specialisationNames = attrNames specialisations;

in
shell "nixos-system-${name}-${version}"
  ({
    inherit version interface linux initrd sw etcTree activation lock;
    params = concatStringsSep " " params;
    systemdPackage = systemdPackage;
    hostSystem = system;
    hostName = name;
    switchScript = builtins.readFile ./system/switch-to-configuration.sh;
    activateScript = builtins.readFile ./system/activate.sh;
    bootScript = builtins.readFile ./system/lab-boot.sh;
    startNames = lines startNames;
    inhibitors = if faults ? inhibitor then ''{"lab":"${faults.inhibitor}"}'' else "{}";
    inherit specialisationNames;
    specialisationPaths = map (n: specialisations.${n}) specialisationNames;
  } // faultFiles.environment // { inherit extraDependencies; } // extra) ''
  mkdir -p $out/bin $out/lab/faults $out/specialisation
  printf '%s' "$version" >$out/nixos-version
  printf '%s' "$interface" >$out/init-interface-version
  printf '%s' "$hostSystem" >$out/system
  printf '%s' "$params" >$out/kernel-params
  printf '%s\n' "$inhibitors" >$out/switch-inhibitors
  printf '%s' "$startNames" >$out/lab/start
  printf '%s' "$lock" >$out/lab/lock
  ln -s $linux/bzImage $out/kernel
  ln -s $linux $out/kernel-modules
  ln -s $initrd/initrd $out/initrd
  ln -s $systemdPackage $out/systemd
  ln -s $sw $out/sw
  ln -s $etcTree/etc $out/etc
  [ -z "$extraDependencies" ] || printf '%s\n' $extraDependencies >$out/extra-dependencies
  ${faultFiles.script "$out/lab/faults"}
  set -- $specialisationPaths
  for n in $specialisationNames; do
    ln -s "$1" "$out/specialisation/$n"
    shift
  done
  cat >$out/boot.json <<JSON
  {"org.nixos.bootspec.v1":{"init":"$out/init","initrd":"$initrd/initrd","kernel":"$linux/bzImage","kernelParams":[],"label":"NixOS $version (lab)","system":"$hostSystem","toplevel":"$out"},"org.nixos.specialisation.v1":{}}
  JSON
  script() {
    printf '%s' "$2" | sed "s|@out@|$out|g" >"$out/$1"
    chmod 755 "$out/$1"
  }
  script bin/switch-to-configuration "$switchScript"
  script activate "$activateScript"
  script lab-boot "$bootScript"
  printf '%s\n' "$activation" >$out/lab/activation
  printf '#!/bin/sh\nsystemConfig=%s\n"$systemConfig/activate"\nexec /run/current-system/systemd/lib/systemd/systemd "$@"\n' "$out" >$out/init
  chmod 755 $out/init
''
