# The driftless program, for `pkgs.callPackage`.
{ lib, rustPlatform, makeWrapper, pkg-config, git, nix, openssh }:
let
  cargo = builtins.fromTOML (builtins.readFile ../Cargo.toml);
  sources = [ "build.rs" "src" "tests" "benches" "examples" "nix" "Cargo.toml" "Cargo.lock" ];
in
rustPlatform.buildRustPackage {
  pname = "driftless";
  inherit (cargo.package) version;

  # Only what is compiled: editing a dashboard or a document does not build the program anew.
  src = builtins.path {
    name = "driftless-source";
    path = ../.;
    filter = path: _:
      let relative = lib.removePrefix (toString ../. + "/") path; in
      builtins.any (source: relative == source || lib.hasPrefix (source + "/") relative) sources;
  };
  cargoLock.lockFile = ../Cargo.lock;

  nativeBuildInputs = [ makeWrapper pkg-config ];

  # They boot whole machines and need root.
  doCheck = false;

  # The programs it calls; those of the user come first, where they are wanted.
  postInstall = ''
    wrapProgram $out/bin/driftless --suffix PATH : ${lib.makeBinPath [ git nix openssh ]}
  '';

  meta = {
    inherit (cargo.package) description;
    license = lib.licenses.mit;
    mainProgram = "driftless";
    platforms = lib.platforms.linux;
  };
}
