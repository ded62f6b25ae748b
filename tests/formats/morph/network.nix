# A morph network as people have one: pinned packages, an argument for every node, checks and a secret.
let
  pkgs = import <nixpkgs> { system = "x86_64-linux"; };
in
{
  network = {
    inherit pkgs;
    description = "simple hosts";
    specialArgs.release = "blue";
    ordering.tags = [ "db" "web" ];
    nixConfig.extra-sandbox-paths = "/opt";
  };

  defaults = ./common.nix;

  "web01.example.org" = { release, nodes, pkgs, ... }: {
    deployment = {
      targetUser = "admin";
      targetPort = 2222;
      tags = [ "web" release ];
      substituteOnDestination = true;
      secrets."tls.key" = {
        source = "../secrets/tls.key";
        destination = "/var/secrets/tls.key";
        owner.user = "nginx";
        action = [ "sudo" "systemctl" "reload" "nginx.service" ];
      };
      healthChecks.cmd = [
        { cmd = [ "${pkgs.hello}/bin/hello" "--greeting" "'it works'" ]; description = "hello"; timeout = 10; }
        { cmd = [ "test \"$(systemctl list-units --failed --no-legend | wc -l)\" -eq 0" ]; description = "no failed units"; }
      ];
      healthChecks.http = [
        { description = "front page"; port = 80; headers.Host = "example.org"; }
        { description = "front page"; scheme = "https"; port = 443; path = "/health"; insecureSSL = true; timeout = 3; host = "lb.example.org"; }
      ];
      preDeployChecks.cmd = [ { cmd = [ "true" ]; description = "is it up"; } ];
    };
    users.users.nginx = { isSystemUser = true; group = "nginx"; };
    users.groups.nginx = { };
    environment.etc.database.text = nodes.db01.config.networking.hostName;
  };

  db01 = { ... }: {
    deployment.targetHost = "192.0.2.21";
    deployment.tags = [ "db" ];
  };

  image = { ... }: {
    deployment.buildOnly = true;
  };
}
