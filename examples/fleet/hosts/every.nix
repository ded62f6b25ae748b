# What all machines have in common: how they are reached, and by whom they may be deployed to.
{ lib, config, ... }:
{
  driftless.host = lib.mkDefault "driftless@${config.networking.hostName}.example.org";
  # ssh-keyscan -t ed25519 HOST
  # driftless.hostKeys = [ "ssh-ed25519 AAAA..." ];

  services.openssh.enable = true;
  services.driftless-node = {
    enable = true;
    # /etc/driftless/ssh-key.pub of the controller.
    authorizedKeys = [ "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ0aWwVN7rCUNHwYuMFbQVCWGtGd0rZvLKyJ1YqZpDDD driftless" ];
    # Its /etc/driftless/signing-key.pub.
    trustedPublicKeys = [ "fleet-1:kFnRqHGZJLgZOFsnvgmKpcs60vHVMRRgWmVpjNNbXkQ=" ];
  };

  # Each machine's own: nixos-generate-config makes it.
  boot.isContainer = lib.mkDefault true;
  system.stateVersion = "24.05";
}
