{
  networking.hostName = "web";
  systemd.services.web = { wantedBy = [ "multi-user.target" ]; script = "exec sleep infinity"; };
}
