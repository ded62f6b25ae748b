{
  proxy = { ... }: {
    deployment = {
      targetEnv = "none";
      targetHost = "192.0.2.30";
      targetUser = "deploy";
      targetPort = 2222;
      hasFastConnection = true;
      sshOptions = [ "-o" "IdentitiesOnly=yes" "-p" "2200" ];
    };
    networking.privateIPv4 = "10.0.0.1";
  };

  backend1 = { ... }: {
    deployment.targetHost = "192.0.2.31";
    deployment.privilegeEscalationCommand = [ "doas" ];
    services.openssh.ports = [ 2022 ];
  };

  cloud = { ... }: {
    deployment.targetEnv = "ec2";
    deployment.ec2.region = "eu-west-1";
    deployment.ec2.instanceType = "t3.micro";
  };
}
