# `vpn.networks`: private networks over WireGuard, each from one description of its server and its clients. Keys are made
# and kept by people; here are only the public ones and the places of the others on the nodes.
{ lib, config, options, ... }:
let
  inherit (lib) mkOption types;
  ip = import ../ip.nix;
  option = options.vpn.networks;
  mistakes = import ./mistakes.nix { inherit lib option; inherit (config) nodes; };
  inherit (mistakes) at isNode noNode;

  checked = description: check: types.addCheck types.str check // { name = "address"; inherit description; };
  address = checked "IPv4 or IPv6 address" (text: ip.parse text != null);
  flag = default: description: mkOption { type = types.bool; inherit default description; };

  wireguard = {
    publicKey = mkOption { type = types.str; description = "The public key, from `wg pubkey`."; };
    privateKeyFile = mkOption {
      # A path of Nix would be copied into the store, where everybody on the node may read it.
      type = types.addCheck types.path (path: !(builtins.isPath path))
        // { name = "path on the node"; description = "path on the node, as a string: the store, where a path literal would be copied to, can be read by everybody"; };
      example = "/var/lib/wireguard/home.key";
      description = "Where the private key lies on the node.";
    };
  };

  network = { name, config, ... }: {
    options = {
      enable = flag true "Whether there is such a network.";
      backend = mkOption { type = types.enum [ "wireguard" ]; default = "wireguard"; description = "What it is made of."; };
      interface = mkOption {
        type = types.str;
        default = "nixus-${name}";
        description = "The name of its network interface on every node, at most 15 bytes.";
      };
      subnet = mkOption {
        type = checked "subnet, for example 10.9.0.0/24" (text: ip.parseSubnet text != null);
        example = "10.9.0.0/24";
        description = "The addresses of the network.";
      };
      server = {
        node = mkOption { type = types.str; description = "The node that everybody connects to."; };
        port = mkOption { type = types.port; default = 51820; description = "The UDP port there."; };
        subnetIp = mkOption { type = address; description = "Its address in the network."; };
        internetGateway = flag false "Whether clients may reach the internet through it.";
        internetGatewayInterface = mkOption {
          type = types.nullOr types.str;
          default = null;
          example = "eth0";
          description = "The interface of the server towards the internet.";
        };
        inherit wireguard;
      };
      clients = mkOption {
        type = types.attrsOf (types.submodule {
          options = {
            enable = flag true "Whether this client takes part.";
            subnetIp = mkOption { type = address; description = "Its address in the network."; };
            internetGateway = mkOption {
              type = types.bool;
              default = config.server.internetGateway;
              defaultText = "server.internetGateway";
              description = "Whether it reaches everything through the server.";
            };
            inherit wireguard;
          };
        });
        default = { };
        description = "The other nodes, by name.";
      };
    };
  };

  networks = lib.filterAttrs (_: net: net.enable) config.vpn.networks;
  clientsOf = net: lib.filterAttrs (_: client: client.enable) net.clients;
  takesPart = node: net: net.server.node == node || clientsOf net ? ${node};
  subnetOf = net: ip.parseSubnet net.subnet;
  publicOf = node: config.nodes.${node}.configuration.networking.public;

  server = net:
    let
      subnet = subnetOf net;
      alone = toString (ip.bits subnet.base);
    in
    lib.mkMerge [
      {
        networking.firewall.allowedUDPPorts = [ net.server.port ];
        # Between clients, too. IPv6 knows no forwarding by interface (ip-sysctl: it makes a router of the whole machine).
        boot.kernel.sysctl.${
          if subnet.family == 4 then "net.ipv4.conf.${net.interface}.forwarding" else "net.ipv6.conf.all.forwarding"
        } = true;
        networking.wg-quick.interfaces.${net.interface} = {
          address = [ "${net.server.subnetIp}/${toString subnet.prefix}" ];
          listenPort = net.server.port;
          inherit (net.server.wireguard) privateKeyFile;
          peers = lib.mapAttrsToList
            (_: client: {
              inherit (client.wireguard) publicKey;
              allowedIPs = [ "${client.subnetIp}/${alone}" ];
            })
            (clientsOf net);
        };
      }
      (lib.mkIf net.server.internetGateway {
        # NixOS's own NAT does it with iptables and with nftables.
        networking.nat = {
          enable = true;
          externalInterface = net.server.internetGatewayInterface;
          internalInterfaces = [ net.interface ];
        } // lib.optionalAttrs (subnet.family == 6) { enableIPv6 = true; };
      })
    ];

  client = net: client:
    let
      subnet = subnetOf net;
      public = publicOf net.server.node;
      host = if public.hasIpv4 then public.ipv4 else "[${public.ipv6}]";
    in
    {
      networking.wg-quick.interfaces.${net.interface} = {
        address = [ "${client.subnetIp}/${toString subnet.prefix}" ];
        inherit (client.wireguard) privateKeyFile;
        peers = [{
          inherit (net.server.wireguard) publicKey;
          allowedIPs = [
            (if !client.internetGateway then subnet.text else if subnet.family == 4 then "0.0.0.0/0" else "::/0")
          ];
          endpoint = "${host}:${toString net.server.port}";
          # Whoever is behind a NAT stays reachable for the others.
          persistentKeepalive = 25;
        }];
      };
    };

  configurationOf = node: builtins.concatLists (lib.mapAttrsToList
    (_: net:
      if net.server.node == node then [ (server net) ]
      else if clientsOf net ? ${node} then [ (client net net.clients.${node}) ]
      else [ ])
    networks);

  # Every address of a network with the option that gives it: { path, node, ip }.
  addresses = name: net:
    [ { path = [ name "server" "subnetIp" ]; node = net.server.node; ip = net.server.subnetIp; } ]
    ++ lib.mapAttrsToList
      (node: client: { path = [ name "clients" node "subnetIp" ]; inherit node; ip = client.subnetIp; })
      (clientsOf net);

  wrongAddress = net: all: own:
    let
      same = builtins.filter
        (other: other.path != own.path && (ip.parse other.ip).words == (ip.parse own.ip).words && other.node < own.node)
        all;
    in
    if !(ip.contains (subnetOf net) (ip.parse own.ip))
    then [ (at own.path "${own.ip} of node ${own.node} is not in the subnet ${net.subnet}") ]
    else map (other: at own.path "${own.ip} of node ${own.node} is also the address of node ${other.node}") same;

  wrongNetwork = name: net:
    let
      all = addresses name net;
      path = option: [ name ] ++ option;
      gatewayClients = builtins.filter (node: net.clients.${node}.internetGateway) (builtins.attrNames (clientsOf net));
      wrong = condition: option: what: if condition then [ (at (path option) what) ] else [ ];
    in
    builtins.concatMap (wrongAddress net all) all
    ++ wrong (builtins.stringLength net.interface > 15) [ ]
      "the interface '${net.interface}' has more than the 15 bytes that Linux allows; a shorter name or `interface` helps"
    ++ wrong (clientsOf net ? ${net.server.node}) [ "clients" net.server.node ]
      "node ${net.server.node} is the server of this network already"
    ++ wrong (net.server.internetGateway && net.server.internetGatewayInterface == null) [ "server" ]
      "node ${net.server.node} is to be an internet gateway and `server.internetGatewayInterface` is not set"
    ++ builtins.concatMap
      (node: wrong (!net.server.internetGateway) [ "clients" node "internetGateway" ]
        "node ${node} is to reach the internet through node ${net.server.node}, whose `server.internetGateway` is false")
      gatewayClients;

  # Without this a client would not know where the server is.
  unreachable = name: net:
    let public = publicOf net.server.node; in
    if isNode net.server.node && !(public.hasIpv4 || public.hasIpv6)
    then [ (at [ name "server" "node" ] "node ${net.server.node} has no `networking.public.ipv4` or `.ipv6` for clients to connect to") ]
    else [ ];
in
{
  options.vpn.networks = mkOption {
    type = types.attrsOf (types.submodule network);
    default = { };
    description = "Private networks, by name.";
  };

  config.defaults = { name, ... }: {
    imports = [
      (mistakes.assertions {
        everywhere = builtins.concatLists (lib.mapAttrsToList
          (net: { server, ... }@network:
            (if isNode server.node then [ ] else [ (noNode [ net "server" "node" ] server.node) ])
            ++ map (client: noNode [ net "clients" client ] client)
              (builtins.filter (client: !(isNode client)) (builtins.attrNames (clientsOf network))))
          networks);
        of = name: builtins.concatLists (lib.mapAttrsToList
          (net: network:
            if !(takesPart name network) then [ ]
            else wrongNetwork net network ++ lib.optionals (network.server.node != name) (unreachable net network))
          networks);
      })
    ];
    configuration = { _file = "driftless: vpn.networks"; config = lib.mkMerge (configurationOf name); };
  };
}
