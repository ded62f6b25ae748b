# A NixOS VM test, for `pkgs.testers.runNixOSTest`: a controller with its module and two managed nodes with theirs, on real
# kernels, with real boot loaders' profiles, sudo wrappers and PAM. What lab nodes cannot show. Needs KVM.
#
# The machines have no network and build nothing: what is deployed is evaluated with the test and lies in the controller's
# store. Only the manifest is read by driftless there, from a Git repository.
{ driftless }:
{ lib, pkgs, ... }:
let
  keys = import (pkgs.path + "/nixos/tests/ssh-keys.nix") pkgs;
  # For this test alone; everybody has the secret half.
  signing = {
    public = lib.removeSuffix "\n" (builtins.readFile ./signing.pub);
    secret = ./signing.key;
  };
  names = [ "web1" "web2" ];

  web = { extendModules, ... }: {
    imports = [ ../node.nix ];
    services.openssh.enable = true;
    services.driftless-node = {
      enable = true;
      authorizedKeys = [ keys.snakeOilPublicKey ];
      trustedPublicKeys = [ signing.public ];
      checks.version = "test -e /etc/version";
    };
    environment.etc.version.text = lib.mkDefault "one";
    virtualisation.writableStore = true;
    # VMs of tests have none: they are never switched.
    system.switch.enable = true;
    system.build.next = variant: (extendModules { modules = [ variant ]; }).config.system.build.toplevel;
  };

  # What a node becomes: a new version, and one that shuts everybody out.
  good = { environment.etc.version.text = "two"; };
  bad = { environment.etc.version.text = "three"; services.openssh.enable = lib.mkForce false; };
in
{
  name = "driftless-fleet";

  nodes = lib.genAttrs names (_: web) // {
    controller = { nodes, ... }:
      let
        manifest = variant: {
          format = "driftless";
          inherit names;
          node = lib.genAttrs names (name: {
            host = "driftless@${name}";
            system = nodes.${name}.system.build.next variant;
          });
        };
        # A deployment that is evaluated already: paths, not packages.
        deployment = variant: pkgs.writeText "deployment.nix" ''
          let
            defaults = import ${../.}/formats/defaults.nix;
            nodes = builtins.fromJSON '''${builtins.toJSON (lib.mapAttrs
              (_: node: {
                inherit (node) host;
                toplevel = "${node.system}";
                drv = builtins.unsafeDiscardOutputDependency node.system.drvPath;
              })
              (manifest variant).node)}''';
          in
          {
            driftless.manifest = {
              format = "driftless";
              names = builtins.attrNames nodes;
              rollout = defaults.rollout;
              node = name:
                let given = nodes.''${name}; in
                import ${../.}/node-spec.nix
                  (defaults.nodeWith {
                    inherit (given) host;
                    successTimeout = 30;
                    healthChecks = { units = [ ]; commands.version = "true"; };
                    hasFastConnection = true;
                  })
                  { drvPath = given.drv; outPath = given.toplevel; system = "${pkgs.stdenv.hostPlatform.system}"; };
            };
          }
        '';
      in
      {
        imports = [ ../module.nix ];
        environment.systemPackages = [ pkgs.git ];
        environment.etc = {
          "deployments/good.nix".source = deployment good;
          "deployments/bad.nix".source = deployment bad;
        };
        virtualisation.writableStore = true;
        virtualisation.memorySize = 2048;
        services.driftless = {
          enable = true;
          package = driftless;
          sshKeyFile = "/run/keys/ssh";
          settings = {
            source = { url = "/srv/infra"; poll = "5s"; };
            ssh.unknown_hosts = "trust-first";
            nix.options.substitute = "false";
            observe.interval = "5s";
          };
        };
        # The test starts it, when there is a repository.
        systemd.services.driftless.wantedBy = lib.mkForce [ ];
      };
  };

  testScript = { nodes, ... }: ''
    start_all()
    webs = [web1, web2]
    for web in webs:
        web.wait_for_unit("sshd.service")
        web.succeed("test $(cat /etc/version) = one")

    git = "git -C /srv/infra -c user.name=Alice -c user.email=alice@example.org"
    controller.succeed(
        "install -D -m 0600 ${keys.snakeOilPrivateKey} /run/keys/ssh",
        "git init -q -b main /srv/infra",
        "cp /etc/deployments/good.nix /srv/infra/deployment.nix",
        f"{git} add --all && {git} commit -q -m two",
        "chown -R driftless /srv/infra",
        # By root, once; a controller does it with a key of its own.
        "nix --extra-experimental-features nix-command store sign --recursive --key-file ${signing.secret} ${
          toString (lib.concatMap (name: map nodes.${name}.system.build.next [ good bad ]) names)
        }",
        "systemctl start driftless",
    )

    with subtest("a commit becomes the fleet, through the accounts that can do nothing else"):
        for web in webs:
            web.wait_until_succeeds("test $(cat /etc/version) = two", timeout=180)
        controller.wait_until_succeeds("driftless status | grep -q '2 of 2 nodes in sync'", timeout=120)

    with subtest("who has the key gets no shell"):
        for line in ["id", "sh -c id", "driftless-node 1 x observe", ""]:
            said = controller.fail(
                f"ssh -o StrictHostKeyChecking=no -i /run/keys/ssh driftless@web1 '{line}' 2>&1"
            )
            assert "driftless-node: refused" in said, said
        web1.fail("setpriv --reuid=driftless --regid=driftless --clear-groups /run/wrappers/bin/sudo -n id")

    with subtest("a system without sshd is left again, by the node itself"):
        controller.succeed(
            "cp /etc/deployments/bad.nix /srv/infra/deployment.nix",
            f"{git} -c safe.directory=/srv/infra commit -q -a -m three",
        )
        controller.wait_until_succeeds("driftless status | grep -q 'rolled back'", timeout=240)
        for web in webs:
            web.wait_until_succeeds("test $(cat /etc/version) = two", timeout=120)
            web.succeed("systemctl is-active sshd.service")

    with subtest("the controller's secrets are its own"):
        controller.fail("grep -r PRIVATE /etc/driftless /var/lib/driftless")
        controller.succeed("test $(stat -c %a /run/credentials/driftless.service/ssh-key) != 644")
  '';
}
