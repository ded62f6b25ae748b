# The machine that deploys the others, and itself.
{ driftless, ... }:
{
  imports = [ driftless.nixosModules.controller ];

  networking.hostName = "control";

  services.driftless = {
    enable = true;
    settings.source = {
      url = "https://git.example.org/infra.git";
      deployment = ".";
    };
    # Files that only root can read; the service gets them as credentials.
    sshKeyFile = "/etc/driftless/ssh-key";
  };
  # The controller's own user has the usual name.
  services.driftless-node.user = "deploy";
  driftless.host = "deploy@control.example.org";
}
