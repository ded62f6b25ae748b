# A web server that is well when its page can be read.
{ pkgs, ... }:
{
  networking.hostName = "web1";

  systemd.services.web = {
    wantedBy = [ "multi-user.target" ];
    path = [ pkgs.python3 ];
    script = "cd /var/empty && exec python3 -m http.server 8080";
    serviceConfig.DynamicUser = true;
  };

  driftless.tags = [ "web" ];
  driftless.healthChecks.units = [ "web.service" ];
  driftless.healthChecks.commands.page = "curl --fail --silent --max-time 5 http://localhost:8080/";
}
