# A NixOps network as people have one: what the machines do is here, where they are in the file that it requires.
{
  network = {
    description = "Load balanced network";
    enableRollback = true;
    storage.legacy.databasefile = "~/.nixops/deployments.nixops";
  };

  require = [ ./physical.nix ];

  defaults = {
    imports = [ ./common.nix ];
  };

  proxy = { nodes, resources, ... }: {
    environment.etc.backends.text = nodes.backend1.config.networking.hostName;
    environment.etc.all.text = toString (builtins.attrNames resources.machines);
    deployment.keys.token = "plain text";
    deployment.keys.tls = { keyFile = /etc/hostname; destDir = "/run/tls"; };
    systemd.services.proxy = { after = [ "tls-key.service" ]; wants = [ "tls-key.service" ]; script = "exec cat /run/tls/tls"; };
  };

  backend1 = { config, ... }: {
    deployment.owners = [ "ops@example.org" ];
    environment.etc.hello.text = "hello from ${config.networking.hostName}";
  };

  cloud = { ... }: { };
}
