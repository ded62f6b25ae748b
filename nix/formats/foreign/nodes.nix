# The names of the nodes of a network: everything but what says something of all of them.
network: builtins.attrNames (removeAttrs network [ "network" "defaults" "resources" "require" "nixpkgs" "_file" ])
