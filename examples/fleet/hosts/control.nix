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
    # A file that only root can read; the service gets it as a credential.
    sshKeyFile = "/etc/driftless/ssh-key";
  };
  # Also for root alone: what is built here is signed as it is built, and the other machines take nothing else.
  nix.settings.secret-key-files = [ "/etc/driftless/signing-key" ];

  # The controller's own user has the usual name.
  services.driftless-node.user = "deploy";
  driftless.host = "deploy@control.example.org";
}
