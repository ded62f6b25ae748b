# The nixpkgs of the original nixus in the benchmark: the small one of the tests, and what nixus takes from a nixpkgs beyond
# that. Programs are this machine's, which lab nodes have too. `DRIFTLESS_BENCH_SSH` names the configuration for ssh.
{ overlays ? [ ], ... }@arguments:
let
  extendLib = lib: lib.extend (final: prev: {
    # Without the type that newer libraries add: with it, `deployScript // result` is not what nix-build builds.
    evalModules = given: removeAttrs (prev.evalModules given) [ "type" ];

    # Those first that come before nobody but those that are there already.
    toposort = before: list:
      let
        go = done: left:
          let
            split = builtins.partition (a: builtins.any (b: before b a) left) left;
          in
          if left == [ ] then { result = done; }
          else if split.wrong == [ ] then { cycle = left; loops = [ ]; }
          else go (done ++ split.wrong) split.right;
      in
      go [ ] list;
  });

  overlay = pkgs: prev:
    let
      # A package that is links to programs.
      links = name: programs: pkgs.runCommand name { inherit programs; } ''
        mkdir -p $out/bin
        for program in $programs; do
          path=$(command -v $program) || { echo "this machine has no $program" >&2; exit 1; }
          ln -s "$path" $out/bin/
        done
      '';

      # As stdenv has it: each @name@ of a variable that does not begin with a capital letter.
      substituteAll = ''
        substituteAll() {
          local name text
          text=$(cat "$1"; echo .)
          text=''${text%.}
          for name in $(compgen -e); do
            [[ $name != [a-z]* ]] || text=''${text//"@$name@"/"''${!name}"}
          done
          printf %s "$text" >"$2"
        }
      '';
    in
    {
      lib = extendLib prev.lib;
      buildPackages = pkgs;

      bash = links "bash" [ "bash" "sh" ];
      coreutils = links "coreutils" [ "cat" "echo" "mkdir" "realpath" "sleep" "timeout" ];
      findutils = links "findutils" [ "find" "xargs" ];
      gnused = links "gnused" [ "sed" ];
      jq = links "jq" [ "jq" ];
      procps = links "procps" [ "pgrep" "pkill" "ps" ];
      rsync = links "rsync" [ "rsync" ];
      openssh = pkgs.writeShellScriptBin "ssh" "exec /usr/bin/ssh -F \"$DRIFTLESS_BENCH_SSH\" \"$@\"\n";

      # bash, also where /bin/sh is another shell.
      writeShellScript = name: text: pkgs.writeScript name "#!${pkgs.runtimeShell}\n${text}";
      runCommandNoCC = name: environment: script: derivation (environment // {
        inherit name;
        inherit (pkgs) system;
        PATH = "/usr/bin:/bin";
        builder = pkgs.runtimeShell;
        args = [ "-euc" "${substituteAll}\n${script}" ];
      });
      stdenv = prev.stdenv // {
        mkDerivation = environment: derivation (environment // {
          inherit (pkgs) system;
          builder = pkgs.runtimeShell;
          args = [ "-e" environment.builder ];
        });
      };
    };
in
import <nixpkgs> (arguments // { overlays = [ overlay ] ++ overlays; })
