{ ... }: {
  deployment = {
    targetHost = "192.0.2.20";
    targetUser = null;
    tags = [ "db" ];
    keys.backup = { keyCommand = [ "pass" "show" "backup" ]; uploadAt = "post-activation"; };
  };
}
