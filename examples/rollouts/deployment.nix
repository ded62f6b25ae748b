# A fleet whose releases arrive in waves. docs/rollouts.md says what each setting means.
import ../.. { } ({ ... }: {
  rollout = {
    waves = [
      { on = "@canary"; soak = "30m"; }
      { on = "@web and not @canary"; maxUnavailable = "25%"; maxFailures = 1; soak = "10m"; }
      { on = "*"; order = [ "db2" ]; approval = true; }
    ];
    windows = [
      { on = "@db"; days = [ "tue" "wed" ]; hours = "22:00-04:00"; timeZone = "Europe/Berlin"; }
      { effect = "deny"; from = "2026-12-20"; until = "2027-01-02"; timeZone = "Europe/Berlin"; }
    ];
  };

  defaults.configuration = { boot.isContainer = true; system.stateVersion = "24.05"; };

  nodes.web1.tags = [ "web" "canary" ];
  nodes.web2.tags = [ "web" ];
  nodes.web3.tags = [ "web" ];
  nodes.db1 = { tags = [ "db" ]; after = [ "db2" ]; };
  nodes.db2 = {
    tags = [ "db" ];
    reboot = {
      policy = "when-required";
      window = { days = [ "wed" ]; hours = "02:00-04:00"; timeZone = "Europe/Berlin"; };
    };
  };
})
