# Who gets in and what they may do: accounts, keys, rules of sudo and doas, sshd's and Nix's further settings, as a node of the
# lab reads them. Accounts are added, never taken away: a lab node's others are the host's.
{ lib, config, pkgs, ... }:
let
  inherit (lib) mkOption mkEnableOption types;
  rules = mkOption { type = types.listOf types.attrs; default = [ ]; };

  # Those that NixOS would make, and that the lab has no other need of.
  accounts = lib.filterAttrs (_: user: user.isSystemUser or false && user ? shell) config.users.users;
  shellOf = user: if user.shell ? shellPath then "/run/current-system/sw${user.shell.shellPath}" else user.shell;

  commandOf = command: "${lib.concatMapStrings (option: "${option}: ") command.options}${command.command}";
  sudoRule = rule: lib.concatMapStrings
    (user: "${user} ALL=(${rule.runAs or "ALL:ALL"}) ${lib.concatMapStringsSep ", " commandOf rule.commands}\n")
    rule.users;
  doasRule = rule: lib.concatMapStrings
    (user: "permit ${lib.optionalString rule.noPass "nopass "}${user} as ${rule.runAs} cmd ${rule.cmd}\n")
    rule.users;
in
{
  options = {
    security.wrapperDir = mkOption { type = types.path; default = "/usr/bin"; };
    security.sudo = { enable = mkOption { type = types.bool; default = true; }; extraRules = rules; };
    security.doas = { enable = mkEnableOption "doas"; extraRules = rules; };
    services.openssh.extraConfig = mkOption { type = types.lines; default = ""; };
    nix.settings = mkOption { type = types.attrsOf types.anything; default = { }; };
  };

  config.environment.etc = lib.filterAttrs (_: file: file.text != "") {
    "access/sshd.conf".text = config.services.openssh.extraConfig;
    "access/sudoers".text = lib.concatMapStrings sudoRule config.security.sudo.extraRules;
    "access/doas.conf".text = lib.concatMapStrings doasRule config.security.doas.extraRules;
    "access/nix.conf".text = lib.concatStrings (lib.mapAttrsToList
      (name: value: "${name} = ${if builtins.isBool value then lib.boolToString value else toString value}\n")
      config.nix.settings);
  };

  # /etc of a lab node belongs to its base: what is declared is put beside that.
  config.system.activationScripts = lib.mkIf (accounts != { }) {
    users.text = lib.concatStrings (lib.mapAttrsToList
      (name: user: ''
        grep -q '^${user.group}:' /etc/group || echo '${user.group}:x:990:' >>/etc/group
        grep -q '^${name}:' /etc/passwd || echo '${name}:x:990:990::${user.home}:${shellOf user}' >>/etc/passwd
        grep -q '^${name}:' /etc/shadow || echo '${name}:*:19000:0:99999:7:::' >>/etc/shadow
      '')
      accounts);
    access.text = ''
      given=/etc/static/access
      [ ! -e $given/sshd.conf ] || install -m 644 $given/sshd.conf /etc/ssh/sshd_config.d/nixos.conf
      [ ! -e $given/sudoers ] || install -m 440 $given/sudoers /etc/sudoers.d/nixos
      [ ! -e $given/doas.conf ] || install -m 400 $given/doas.conf /etc/doas.conf
      mkdir -p /etc/ssh/authorized_keys.d /var/empty
      for keys in /etc/static/ssh/authorized_keys.d/*; do
        [ ! -e "$keys" ] || install -m 444 "$keys" /etc/ssh/authorized_keys.d/
      done
      if [ -e $given/nix.conf ] && ! grep -q '^# by NixOS' /etc/nix/nix.conf; then
        { echo '# by NixOS'; cat $given/nix.conf; } >>/etc/nix/nix.conf
      fi
      if [ -e /run/systemd/system ]; then
        systemctl reload-or-restart sshd.service
        systemctl try-restart nix-daemon.service
      fi
    '';
  };
}
