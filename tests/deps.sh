#!/bin/sh
# deps.sh demo|test|lint...: what the named jobs need on this machine. On Debian and its kin, installs what is missing and
# nothing else; elsewhere, says what is missing and fails. A service that comes with a package is not started, and not at
# the next boot either.
set -eu
[ $# -gt 0 ] || set -- demo test lint

# PROGRAM PACKAGES, what the program is: the packages are needed where the program is not found.
building='cc gcc,libc6-dev a C compiler
git git Git
curl curl curl'
nodes='nix nix-bin Nix 2.8 or newer
sshd openssh-server the OpenSSH server
ssh openssh-client the OpenSSH client
ip iproute2 iproute2
systemctl systemd systemd
dbus-daemon dbus D-Bus
unshare util-linux util-linux
mount mount mount
ps procps procps
sudo sudo sudo'
logins='doas opendoas doas
tcsh tcsh tcsh'
secrets='age age age'
zones='named-checkzone bind9-utils named-checkzone, of BIND'
# The original nixus, which is measured where it is given.
original='jq jq jq
rsync rsync rsync'
base='debootstrap debootstrap debootstrap
promtool prometheus promtool, of Prometheus'
fuzzing='c++ g++ a C++ compiler'
lint='shellcheck shellcheck ShellCheck
promtool prometheus promtool, of Prometheus'

needs=$building
for job; do
  case $job in
    build) ;;
    demo) needs="$needs
$nodes" ;;
    test) needs="$needs
$nodes
$logins
$secrets
$zones
$base" ;;
    bench) needs="$needs
$nodes${DRIFTLESS_NIXUS:+
$original}" ;;
    lint) needs="$needs
$lint" ;;
    fuzz) needs="$needs
$fuzzing" ;;
    *) echo "deps.sh: what is '$job'? jobs are build, demo, test, bench, lint and fuzz" >&2 && exit 64 ;;
  esac
done

# System administrators' programs are not in everybody's PATH.
PATH=$PATH:/usr/sbin:/sbin
missing=$(echo "$needs" | sort -u | while read -r program package what; do
  command -v "$program" >/dev/null 2>&1 || echo "$program $package $what"
done)

oldest=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$(dirname "$0")/../Cargo.toml" | head -n1)
rust=$(cargo --version 2>/dev/null | cut -d' ' -f2) || :
if [ -z "$rust" ] || [ "$(printf '%s\n' "$oldest" "$rust" | sort -V | head -n1)" != "$oldest" ]; then
  echo "Rust $oldest or newer is needed, here is ${rust:-none}. Install it from https://rustup.rs" >&2
  exit 1
fi
for job; do
  if [ "$job" = lint ] && ! { cargo fmt --version && cargo clippy --version; } >/dev/null 2>&1; then
    if ! command -v rustup >/dev/null 2>&1 || ! rustup component add rustfmt clippy; then
      echo "rustfmt and clippy are missing here; please install them beside Rust" >&2
      exit 1
    fi
  fi
done
for job; do
  if [ "$job" = fuzz ]; then
    if ! cargo +nightly --version >/dev/null 2>&1 && ! rustup toolchain install nightly --profile minimal; then
      echo "cargo-fuzz needs a nightly Rust; please install one with rustup. (make test tries the same corpus without.)" >&2
      exit 1
    fi
    cargo fuzz --version >/dev/null 2>&1 || cargo install --locked cargo-fuzz
  fi
done
[ -n "$missing" ] || exit 0

if ! command -v apt-get >/dev/null 2>&1; then
  echo "These programs are missing here; please install them (only on Debian and its kin this is done for you):" >&2
  echo "$missing" | while read -r program _ what; do printf '  %-12s %s\n' "$program" "$what" >&2; done
  exit 1
fi

packages=$(echo "$missing" | cut -d' ' -f2 | tr ',' '\n' | sort -u | tr '\n' ' ')
as_root=
if [ "$(id -u)" != 0 ]; then
  as_root=sudo
  if ! command -v sudo >/dev/null 2>&1; then
    echo "Please install as root: apt-get install --no-install-recommends $packages" >&2
    exit 1
  fi
fi
echo "installing: $packages"

# invoke-rc.d(8) asks this file whether it may start a service; one that is there already keeps its say.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  trap '$as_root rm -f "$policy"' EXIT
  trap 'exit 1' HUP INT TERM
  # shellcheck disable=SC2016 # the variable is the inner shell's
  $as_root sh -c 'printf "#!/bin/sh\nexit 101\n" >"$1" && chmod 755 "$1"' sh "$policy"
fi
$as_root apt-get -q update
# shellcheck disable=SC2086 # several words are meant
$as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends install $packages

for package in $packages; do
  case $package in
    openssh-server) services='ssh.service ssh.socket' ;;
    prometheus) services=prometheus.service ;;
    rsync) services=rsync.service ;;
    *) continue ;;
  esac
  for service in $services; do
    if [ -d /run/systemd/system ]; then
      $as_root systemctl -q disable --now "$service" 2>/dev/null || :
    else
      $as_root systemctl -q disable "$service" 2>/dev/null || :
    fi
  done
  echo "the service of $package neither runs nor starts at boot; to have it: systemctl enable --now ${services%% *}"
done
