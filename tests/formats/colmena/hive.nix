# A Colmena hive as people have one: packages with an overlay, another nixpkgs for one node, arguments, keys.
{
  meta = {
    name = "example";
    description = "Two web servers and a database";
    nixpkgs = import <nixpkgs> {
      system = "x86_64-linux";
      overlays = [ (final: prev: { motd = final.writeText "motd" "made by the overlay"; }) ];
    };
    nodeNixpkgs.db = <nixpkgs>;
    specialArgs.domain = "example.org";
    nodeSpecialArgs.web2.domain = "example.net";
    allowApplyAll = false;
    machinesFile = ./machines.client;
  };

  defaults = { name, lib, ... }: {
    imports = [ ./modules/common.nix ];
    networking.hostName = lib.mkDefault name;
  };

  web1 = { name, domain, pkgs, ... }: {
    imports = [ ./modules/web.nix ];
    deployment = {
      targetHost = "${name}.${domain}";
      targetPort = 2222;
      targetUser = "deploy";
      tags = [ "web" "canary" ];
      sshOptions = [ "-J" "bastion.example.org" "-o" "ServerAliveInterval=5" "-i" "/run/keys/deploy" ];
      privilegeEscalationCommand = [ "doas" ];
      keys."tls.key" = {
        keyFile = ./keys/tls.key;
        destDir = "/var/keys";
        user = "nginx";
        permissions = "0400";
      };
    };
    environment.etc.motd.source = pkgs.motd;
  };

  web2 = { domain, nodes, ... }: {
    imports = [ ./modules/web.nix ];
    deployment.tags = [ "web" ];
    deployment.replaceUnknownProfiles = false;
    environment.etc.domain.text = domain;
    environment.etc.peer.text = nodes.web1.config.networking.hostName;
  };

  db = ./nodes/db.nix;

  laptop = [
    { deployment = { targetHost = null; allowLocalDeployment = true; }; }
    { networking.hostName = "t480"; }
  ];
}
