{ lib, ... }: {
  boot.isContainer = true;
  system.stateVersion = "24.05";
  # A name with dots is no host name.
  networking.hostName = lib.mkForce "host";
}
