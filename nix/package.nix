# The driftless program, for `pkgs.callPackage`.
{ lib, stdenv, rustPlatform, makeWrapper, installShellFiles, pkg-config, git, nix, openssh }:
let
  cargo = builtins.fromTOML (builtins.readFile ../Cargo.toml);
  sources = [ "build.rs" "src" "tests" "benches" "examples" "nix" "deploy" "Cargo.toml" "Cargo.lock" ];
in
rustPlatform.buildRustPackage {
  pname = "driftless";
  inherit (cargo.package) version;

  # Only what is compiled or installed: editing a dashboard or a document does not build the program anew.
  src = builtins.path {
    name = "driftless-source";
    path = ../.;
    filter = path: _:
      let relative = lib.removePrefix (toString ../. + "/") path; in
      builtins.any (source: relative == source || lib.hasPrefix (source + "/") relative) sources;
  };
  cargoLock.lockFile = ../Cargo.lock;

  nativeBuildInputs = [ makeWrapper installShellFiles pkg-config ];

  # They boot whole machines and need root.
  doCheck = false;

  # The programs it calls; those of the user come first, where they are wanted.
  postInstall = ''
    wrapProgram $out/bin/driftless --suffix PATH : ${lib.makeBinPath [ git nix openssh ]}

    install -D -m 644 deploy/driftless.service $out/lib/systemd/system/driftless.service
    substituteInPlace $out/lib/systemd/system/driftless.service --replace /usr/bin/driftless $out/bin/driftless
    install -D -m 644 -t $out/share/doc/driftless deploy/driftless.example.toml deploy/alerts.yml
  '' + lib.optionalString (stdenv.buildPlatform.canExecute stdenv.hostPlatform) ''
    for shell in bash zsh fish; do $out/bin/driftless completions $shell >driftless.$shell; done
    installShellCompletion driftless.bash driftless.fish --zsh --name _driftless driftless.zsh
  '';

  meta = {
    inherit (cargo.package) description;
    license = lib.licenses.mit;
    mainProgram = "driftless";
    platforms = lib.platforms.linux;
  };
}
