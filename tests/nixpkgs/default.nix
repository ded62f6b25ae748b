# A nixpkgs for tests: a handful of packages made with the host's /bin/sh, so that whole systems build in milliseconds
# and without a network. Needs a Nix that builds without a sandbox. Never used outside tests and the demo.
{ system ? builtins.currentSystem or "x86_64-linux", localSystem ? { inherit system; }, config ? { }, overlays ? [ ], crossSystem ? null }:
let
  lib = import ./lib;
  hostSystem = if builtins.isString localSystem then localSystem else localSystem.system or system;

  base = pkgs: {
    inherit lib config overlays pkgs;
    path = ./.;
    system = hostSystem;
    stdenv = { hostPlatform = { system = hostSystem; isLinux = true; }; buildPlatform = pkgs.stdenv.hostPlatform; };
    runtimeShell = "/bin/bash";

    runCommand = name: env: script: derivation (
      { PATH = "/usr/local/bin:/usr/bin:/bin:/run/current-system/sw/bin"; }
      // env
      // { inherit name; system = hostSystem; builder = "/bin/sh"; args = [ "-euc" script ]; }
    );
    runCommandLocal = pkgs.runCommand;

    # `passAsFile`: an environment variable ends at 128 KiB.
    writeTextFile = { name, text, executable ? false, destination ? "" }: pkgs.runCommand name
      { inherit text destination; passAsFile = [ "text" ]; mode = if executable then "555" else "444"; }
      ''
        [ -z "$destination" ] || mkdir -p "$(dirname "$out$destination")"
        cp "$textPath" "$out$destination"
        chmod "$mode" "$out$destination"
      '';
    writeText = name: text: pkgs.writeTextFile { inherit name text; };
    writeScript = name: text: pkgs.writeTextFile { inherit name text; executable = true; };
    writeShellScript = name: text: pkgs.writeScript name "#!/bin/sh\n${text}";
    writeScriptBin = name: text: pkgs.writeTextFile { inherit name text; executable = true; destination = "/bin/${name}"; };
    writeShellScriptBin = name: text: pkgs.writeScriptBin name "#!/bin/sh\n${text}";
    linkFarm = name: entries: pkgs.runCommand name { } (
      "mkdir -p $out\n" + lib.concatMapStrings
        (e: ''mkdir -p "$(dirname "$out/${e.name}")"; ln -s ${e.path} "$out/${e.name}"
        '')
        entries
    );

    # One folder with links to what is in several.
    buildEnv = lib.makeOverridable ({ name, paths, passthru ? { } }: pkgs.runCommand name { paths = map toString paths; } ''
      mkdir -p $out
      for path in $paths; do
        for entry in "$path"/*; do ln -sfn "$entry" "$out/''${entry##*/}"; done
      done
    '' // passthru);

    formats = {
      json = _: { type = lib.types.anything; generate = name: value: pkgs.writeText name (builtins.toJSON value); };
      toml = _: { type = lib.types.anything; generate = name: value: pkgs.writeText name (import ./toml.nix { inherit lib; } value); };
    };

    # Packages are names with versions; there is nothing in them but a program that says so.
    package = name: version: pkgs.runCommand "${name}-${version}" { inherit version; pname = name; } ''
      mkdir -p $out/bin
      printf '#!/bin/sh\necho ${name} ${version}\n' > $out/bin/${name}
      chmod 555 $out/bin/${name}
    '';
    # The host's, which nodes see too.
    age = pkgs.writeShellScriptBin "age" "exec /usr/bin/age \"$@\"\n";
    # The host's own program: it is what zone files are made for.
    bind = pkgs.runCommand "bind-9" { } "mkdir -p $out/bin; ln -s /usr/bin/named-checkzone $out/bin/";
    hello = pkgs.package "hello" "2.12";
    htop = pkgs.package "htop" "3.3.0";
    curl = pkgs.package "curl" "8.9.1";
    nginx = pkgs.package "nginx" "1.27.0";
    openssh = pkgs.package "openssh" "9.7";
    git = pkgs.package "git" "2.45.2";
    nix = pkgs.package "nix" "2.18.5";
    python3 = pkgs.package "python3" "3.12.4";
    linux = pkgs.package "linux" "6.6.40";
  };

  fix = f: let self = f self; in self;
in
fix (builtins.foldl' (f: overlay: final: let prev = f final; in prev // overlay final prev) base overlays)
