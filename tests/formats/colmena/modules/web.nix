{ config, ... }: {
  systemd.services.web = {
    description = "A web server";
    wantedBy = [ "multi-user.target" ];
    script = "exec sleep infinity";
  };
  users.users.nginx = { isSystemUser = true; group = "nginx"; };
  users.groups.nginx = { };
  # Modules read each other's keys by their path.
  environment.etc."web.keys".text = toString (map (key: key.path) (builtins.attrValues config.deployment.keys));
}
