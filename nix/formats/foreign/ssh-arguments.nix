# Arguments for the `ssh` program, as other tools hand them on → what the generated ssh_config of a node can say. What it
# cannot say is listed, never dropped.
arguments:
let
  # Options with a value that have a keyword in ssh_config(5).
  keywords = {
    B = "BindInterface";
    I = "PKCS11Provider";
    J = "ProxyJump";
    b = "BindAddress";
    c = "Ciphers";
    i = "IdentityFile";
    m = "MACs";
  };
  # Other options with a value.
  valued = keywords // { D = 1; E = 1; F = 1; L = 1; O = 1; Q = 1; R = 1; S = 1; W = 1; e = 1; l = 1; o = 1; p = 1; w = 1; };
  flags = {
    "4" = { AddressFamily = "inet"; };
    "6" = { AddressFamily = "inet6"; };
    A = { ForwardAgent = "yes"; };
    C = { Compression = "yes"; };
    K = { GSSAPIAuthentication = "yes"; };
    a = { ForwardAgent = "no"; };
  } // builtins.listToAttrs (map (name: { inherit name; value = { }; }) [ "T" "n" "q" "t" "v" "x" ]);

  nothing = { options = { }; port = null; user = null; unsupported = [ ]; };
  refuse = state: text: state // { unsupported = state.unsupported ++ [ text ]; };

  # As ssh does it, the first value of a keyword wins.
  set = state: keyword: value:
    if builtins.elem keyword [ "Port" "port" ]
    then port state value
    else if builtins.elem keyword [ "User" "user" ]
    then (if state.user == null then state // { user = value; } else state)
    else if state.options ? ${keyword} && keyword == "IdentityFile"
    then refuse state "-i ${value}"
    else state // { options = { ${keyword} = value; } // state.options; };

  port = state: value:
    if builtins.match "[0-9]{1,5}" value == null then refuse state "-p ${value}"
    else if state.port == null then state // { port = builtins.fromJSON value; }
    else state;

  take = state: letter: value:
    let pair = builtins.match "([A-Za-z0-9]+)[[:space:]]*[=[:space:]][[:space:]]*(.*)" value; in
    if letter == "p" then port state value
    else if letter == "l" then set state "User" value
    else if letter == "o" then
      (if pair == null then refuse state "-o ${value}" else set state (builtins.elemAt pair 0) (builtins.elemAt pair 1))
    else if keywords ? ${letter} then set state keywords.${letter} value
    else refuse state "-${letter} ${value}";

  step = { state, waiting }: argument:
    let
      option = builtins.match "-(.)(.*)" argument;
      letter = builtins.elemAt option 0;
      rest = builtins.elemAt option 1;
    in
    if waiting != null then { state = take state waiting argument; waiting = null; }
    else if option == null then { state = refuse state argument; waiting = null; }
    else if valued ? ${letter} && rest == "" then { inherit state; waiting = letter; }
    else if valued ? ${letter} then { state = take state letter rest; waiting = null; }
    else if flags ? ${letter} && rest == "" then { state = state // { options = flags.${letter} // state.options; }; waiting = null; }
    else { state = refuse state argument; waiting = null; };

  end = builtins.foldl' step { state = nothing; waiting = null; } (map toString arguments);
in
if end.waiting == null then end.state else refuse end.state "-${end.waiting}"
