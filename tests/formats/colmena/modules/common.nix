{
  boot.isContainer = true;
  system.stateVersion = "24.05";
}
