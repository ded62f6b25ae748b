#!/bin/sh
# What a managed node lets those do who deploy it: the program behind the forced command, the login shell and the one sudo
# rule of nix/node.nix. It runs the same switch.sh and secrets.sh that are otherwise sent along.
#
#   driftless-node PROTOCOL FRAME VERB [WORD]...   one verb; words in an encoding of their own, see `decode`
#   driftless-node nix-daemon --stdio              the copy, as `nix copy` asks for it; the gate lets `nix-daemon --stdio` through
#                                                  as well, which never gets any further than the account
#   driftless-node gate                            the same, asked by SSH_ORIGINAL_COMMAND: the forced command
#   driftless-node -c LINE                         the same, asked by LINE: the login shell
#   driftless-node as-root ...                     what the two first ones start by way of sudo
#
# What is asked is never evaluated, expanded or handed to a shell: it is split at blanks, and each word has to be of the one
# form that its place wants. What needs root is checked again as root, because sudo permits it to whoever has that account.
set -u
set -f
umask 022
LC_ALL=C
PATH=/run/current-system/sw/bin:/usr/sbin:/usr/bin:/sbin:/bin
export LC_ALL PATH

# Counted up when a controller of the old one would be misunderstood, or misread the replies: src/node/installed.rs.
PROTOCOL=1

# Set by nix/node/package.nix.
ACCOUNT=@account@
SHELL_OF_SCRIPTS=@shell@
SWITCH_SH=@switch@
SECRETS_SH=@secrets@
ESCALATION=@escalation@
COPIES=@copies@
SIGNED_BY=@signedBy@

SELF=/run/current-system/sw/bin/driftless-node
JOURNAL=/var/lib/driftless-node/switches
CHECKS=/run/current-system/etc/driftless-node/checks
# Of checks that need no root, what curl and bash are told: nix/health-checks.nix.
HTTP_CHECKS=/run/current-system/etc/driftless-node/http
TCP_CHECKS=/run/current-system/etc/driftless-node/tcp
# As much of an answer as is looked at, bytes: src/probe.rs.
MOST_BODY=65536

refuse() { # WHY...
  printf 'driftless-node: refused: %s\n' "$*" >&2
  logger -t driftless-node -p auth.warning -- "refused: $*" 2>/dev/null </dev/null
  exit 77
}

# In what is said of it, what was asked may neither forge lines nor be endless.
quoted() { printf '"%s"' "$(printf '%s' "$1" | tr -c '[:print:]' '?' | cut -c 1-80)"; }

reply() { printf '%s\n' "$*"; }
open_frame() { printf '\ndriftless/1 %s\n' "$frame"; }
close_frame() { printf 'end %s\n' "$frame"; }

fail() { # WHY...: in a reply, for what the deploying machine understands
  open_frame
  reply "error $*"
  close_frame
  exit 0
}

# --- what a word may be ----------------------------------------------------------------------------------------------

is_hex() { # WORD LENGTH
  case $1 in *[!0-9a-f]*) return 1 ;; esac
  [ ${#1} -eq "$2" ]
}

is_id() {
  case $1 in '' | -* | *[!0-9A-Za-z-]*) return 1 ;; esac
  [ ${#1} -le 64 ]
}

is_number() {
  case $1 in '' | *[!0-9]*) return 1 ;; esac
  [ ${#1} -le 5 ]
}

# A time in seconds, or none.
is_end() {
  case $1 in -) return 0 ;; '' | *[!0-9]*) return 1 ;; esac
  [ ${#1} -le 12 ]
}

# A whole path, directly in the store; its name is a hash of 32 letters, a dash, and more.
is_store_path() {
  case $1 in /nix/store/*) ;; *) return 1 ;; esac
  is_store_name "${1#/nix/store/}"
}

is_store_name() {
  case $1 in .* | *[!0-9A-Za-z+._?=-]*) return 1 ;; esac
  [ ${#1} -le 211 ] || return 1
  store_hash=${1%%-*}
  if [ "$store_hash" = "$1" ] || [ ${#store_hash} -ne 32 ]; then return 1; fi
  case $store_hash in *[!0-9a-z]*) return 1 ;; esac
  [ -n "${1#*-}" ]
}

is_word() { # NAME of a check
  case $1 in '' | [!0-9A-Za-z]* | *[!0-9A-Za-z._-]*) return 1 ;; esac
  [ ${#1} -le 100 ]
}

is_unit() {
  case $1 in '' | -* | *[!0-9A-Za-z:_.@\\-]*) return 1 ;; esac
  [ ${#1} -le 255 ]
}

# For people, or for the reader of a list: kept and given back, never run. The scripts make one line of it.
is_text() { [ ${#1} -le 65536 ]; }

# --- what is asked ---------------------------------------------------------------------------------------------------

# A whole command line, as ssh sends it: words of harmless characters, a blank between two.
ask_line() { # LINE
  [ -n "$1" ] || refuse 'there is no shell here, only deployments by driftless'
  case $1 in
    *[!0-9A-Za-z\ %+,./:@_-]* | ' '* | *' ' | *'  '*) refuse_line "$1" ;;
  esac
  [ ${#1} -le 131072 ] || refuse 'the command is too long'
  # Whoever brings what is signed needs no more than the account has.
  if [ "$1" = 'nix-daemon --stdio' ]; then clean nix-daemon --stdio; fi
  asked=$1
  # shellcheck disable=SC2086 # split on purpose; `set -f` keeps patterns as they are
  set -- $1
  [ "$1" = driftless-node ] || refuse_line "$asked"
  shift
  [ "${1-}" != as-root ] || refuse_line "$asked"
  ask "$@"
}

refuse_line() { refuse "only deployments by driftless are allowed here, not $(quoted "$1")"; } # LINE

ask() { # PROTOCOL FRAME VERB [WORD]... | nix-daemon --stdio
  if [ "$*" = 'nix-daemon --stdio' ]; then
    copy
  fi
  case ${1-} in
    "$PROTOCOL") ;;
    '' | *[!0-9]*) refuse_line "driftless-node $*" ;;
    *) refuse "this node speaks protocol $PROTOCOL of driftless-node, not ${1}; deploy to it once in another way, as root, or use a driftless of its version" ;;
  esac
  shift
  take_frame "$@"
  shift 2
  # Word by word, because an empty one is none in a list that is split again.
  count=$#
  while [ "$count" -gt 0 ]; do
    decode "$1" || refuse 'a word is not in the encoding of driftless-node'
    shift
    set -- "$@" "$WORD"
    count=$((count - 1))
  done
  check "$@" || refuse "the arguments of $verb are not what they have to be"
  act "$@"
}

take_frame() { # FRAME VERB ...
  if [ $# -lt 2 ] || ! is_hex "$1" 32; then refuse 'a frame and a verb are needed'; fi
  frame=$1 verb=$2
}

# %OOO is the byte with this octal number; % alone is the empty word.
decode() { # WORD -> WORD
  WORD=
  [ "$1" != % ] || return 0
  case $1 in *[!0-9A-Za-z%+,./:@_-]* | '') return 1 ;; esac
  rest=$1
  case $rest in *%*) ;; *) WORD=$rest; return 0 ;; esac
  octal=
  while :; do
    case $rest in
      *%*)
        octal=$octal${rest%%\%*}
        rest=${rest#*%}
        case $rest in
          # A byte of zero can be in no argument.
          000*) return 1 ;;
          [0-3][0-7][0-7]*) ;;
          *) return 1 ;;
        esac
        octal=$octal\\0${rest%"${rest#???}"}
        rest=${rest#???}
        ;;
      *) break ;;
    esac
  done
  # The end is marked: what is substituted loses its ends of lines.
  WORD=$(printf %b. "$octal$rest")
  WORD=${WORD%.}
}

# Whether the words are what the verb takes.
check() { # [WORD]...
  case $verb in
    observe) [ $# -eq 0 ] || { [ $# -eq 1 ] && [ "$1" = nix ]; } ;;
    closure) [ $# -eq 1 ] && is_store_path "$1" ;;
    check) [ $# -eq 2 ] && check_of_health "$@" ;;
    prepare) [ $# -eq 2 ] && is_id "$1" && is_store_path "$2" ;;
    abandon | log) [ $# -eq 1 ] && is_id "$1" ;;
    start) [ $# -ge 3 ] && check_start "$@" ;;
    attach) [ $# -eq 3 ] && is_id "$1" && is_phases "$2" && is_number "$3" ;;
    contact | recontact | vouch | accept) [ $# -eq 2 ] && is_id "$1" && is_hex "$2" 32 ;;
    reject) [ $# -eq 3 ] && is_id "$1" && is_hex "$2" 32 && is_text "$3" ;;
    pin) [ $# -eq 3 ] && is_text "$1" && is_text "$2" && is_text "$3" ;;
    unpin | forgive) [ $# -eq 0 ] ;;
    suspend) [ $# -eq 4 ] && is_id "$1" && is_text "$2" && is_end "$3" && is_text "$4" ;;
    unsuspend) [ $# -eq 1 ] && is_id "$1" ;;
    reboot) [ $# -ge 1 ] && [ $# -le 2 ] && is_boot_id "$1" && { [ $# -eq 1 ] || is_store_path "$2"; } ;;
    secrets) check_secrets "$@" ;;
    *) refuse "there is no verb $(quoted "$verb")" ;;
  esac
}

is_phases() { case $1 in '' | *[!a-z\ -]*) return 1 ;; esac; [ ${#1} -le 100 ]; }
is_boot_id() { case $1 in *[!0-9a-f-]*) return 1 ;; esac; [ ${#1} -eq 36 ]; }

check_of_health() { # unit|command|http|tcp NAME
  case $1 in
    unit) is_unit "$2" ;;
    command | http | tcp) is_word "$2" ;;
    *) return 1 ;;
  esac
}

check_start() { # ID SYSTEM KEY=VALUE...
  is_id "$1" && is_store_path "$2" || return 1
  shift 2
  for pair in "$@"; do
    value=${pair#*=}
    case $pair in
      expected=*) is_store_path "$value" ;;
      nonce=*) is_hex "$value" 32 ;;
      goal=switch | goal=boot | goal=test | last-resort=reboot | last-resort=none) ;;
      ignore-failed=yes | ignore-failed=no | unproven=yes | unproven=no | reboots=allowed) ;;
      switch-timeout=* | contact-timeout=* | health-timeout=*) is_number "$value" ;;
      revision=* | asker=* | ignore-units=* | contact-over=* | checks=*) is_text "$value" ;;
      *) false ;;
    esac || return 1
  done
}

check_secrets() { # compare NAME | put NAME BASE now|later
  case ${1-} in
    compare) [ $# -eq 2 ] && is_store_name "$2" ;;
    put)
      [ $# -eq 4 ] && is_store_name "$2" && { [ "$3" = - ] || is_store_name "$3"; } &&
        case $4 in now | later) ;; *) false ;; esac
      ;;
    *) false ;;
  esac
}

# --- what is done ----------------------------------------------------------------------------------------------------

is_root() { [ "$(id -u)" = 0 ]; }

# Nothing of the caller's environment gets further.
clean() { # COMMAND...
  exec env -i PATH="$PATH" LC_ALL=C HOME="${HOME_OF_IT:-/var/empty}" "$@"
}

act() { # [WORD]...
  case $verb in
    observe) clean "$SHELL_OF_SCRIPTS" "$SWITCH_SH" "$frame" "$verb" "$@" ;;
    closure) list_closure "$1" ;;
    check)
      case $1 in
        unit) check_unit "$2" ;;
        http) check_http "$2" ;;
        tcp) check_tcp "$2" ;;
        # Below, as root.
        command) ;;
      esac
      ;;
  esac
  # sshd's own word for this login, which no caller can write.
  case $verb in
    contact | recontact | vouch) set -- "$@" "${SSH_CONNECTION-}" ;;
    start) set -- "$@" "ssh-from=${SSH_CONNECTION-}" ;;
  esac
  if is_root; then act_as_root "$@"; fi
  # shellcheck disable=SC2086 # several words are meant
  exec $ESCALATION "$SELF" as-root "$frame" "$verb" "$@"
}

copy() {
  if [ "$COPIES" = trusted ] && ! is_root; then
    # shellcheck disable=SC2086 # several words are meant
    exec $ESCALATION "$SELF" as-root nix-daemon
  fi
  clean nix-daemon --stdio
}

list_closure() { # PATH
  open_frame
  if paths=$(nix-store --query --requisites "$1" 2>&1 </dev/null); then
    printf '%s\n' "$paths" | while read -r path; do reply "path $path"; done
  else
    reply "error $(printf '%s' "$paths" | tr '\n' ' ' | cut -c 1-500)"
  fi
  close_frame
  exit 0
}

check_unit() { # UNIT
  said=$(systemctl is-active -- "$1" 2>&1 </dev/null)
  answer_check $? "$said"
}

# As the account: a request and a connection need no root. What is asked is what the system says, by the name of its check.
check_http() { # NAME
  declared "$HTTP_CHECKS/$1" "$1"
  command -v curl >/dev/null || fail 'there is no curl on the node; ask from the controller, or install it'
  open_frame
  # The body a line each, as it comes; what curl itself says behind it.
  { said=$({ ask_http "$HTTP_CHECKS/$1" | head -c "$MOST_BODY" | sed 's/^/body /' >&4; } 3>&1); } 4>&1
  # The body may have ended within a line.
  reply ''
  printf '%s\n' "$said" | while IFS= read -r line; do reply "curl $line"; done
  close_frame
  exit 0
}

ask_http() { # FILE
  env -i PATH="$PATH" LC_ALL=C HOME=/var/empty curl -q --config "$1" 2>&3 </dev/null
  printf 'driftless-exit %s\n' "$?" >&3
}

check_tcp() { # NAME
  declared "$TCP_CHECKS/$1" "$1"
  read -r host port seconds <"$TCP_CHECKS/$1" || fail "$TCP_CHECKS/$1 is not what it has to be"
  # shellcheck disable=SC2016 # expanded by the inner shell
  said=$(timeout -k 1 "$seconds" bash -c 'exec 3<>"/dev/tcp/$1/$2"' bash "$host" "$port" 2>&1 </dev/null)
  answer_check $? "$said"
}

declared() { # FILE NAME
  [ -r "$1" ] || fail "the node's system has no health check $2: declare it in healthChecks, and deploy it"
}

answer_check() { # CODE SAID
  open_frame
  reply "code $1"
  reply "said $(printf '%s' "$2" | tr '\n' ' ' | cut -c 1-500)"
  close_frame
  exit 0
}

# The second half, as root: what the first one has checked is checked again.
as_root() { # FRAME VERB [WORD]... | nix-daemon
  is_root || refuse 'as-root is for sudo'
  HOME_OF_IT=/root
  if [ "$*" = nix-daemon ]; then
    [ "$COPIES" = trusted ] || refuse 'copies have to be signed here'
    clean nix-daemon --stdio
  fi
  take_frame "$@"
  shift 2
  check_as_root "$@" || refuse "the arguments of $verb are not what they have to be"
  act_as_root "$@"
}

check_as_root() { # [WORD]...
  case $verb in
    # Nothing in them needs root.
    observe | closure) return 1 ;;
    check) [ "${1-}" = command ] || return 1 ;;
    contact | recontact | vouch | start)
      [ $# -ge 1 ] || return 1
      for last in "$@"; do :; done
      is_connection "${last#ssh-from=}" || return 1
      # Without the last word.
      count=$#
      while [ "$count" -gt 1 ]; do
        set -- "$@" "$1"
        shift
        count=$((count - 1))
      done
      shift
      ;;
  esac
  check "$@"
}

# As sshd writes it (ssh(1), ENVIRONMENT); empty where there is none.
is_connection() { case $1 in *[!0-9A-Za-z.:%\ _-]*) return 1 ;; esac; [ ${#1} -le 200 ]; }

act_as_root() { # [WORD]...
  HOME_OF_IT=/root
  case $verb in
    check) check_command "$2" ;;
    secrets)
      clean "$SHELL_OF_SCRIPTS" "$SECRETS_SH" "$frame" "$@"
      ;;
    prepare) prepare "$@" ;;
    start)
      trust "$2"
      clean "$SHELL_OF_SCRIPTS" "$SWITCH_SH" "$frame" "$verb" "$@"
      ;;
    attach | contact | recontact | vouch | accept | reject | log)
      # The two halves of one switch never differ in version.
      [ -r "$JOURNAL/$1/switch.sh" ] || fail no-entry
      clean "$SHELL_OF_SCRIPTS" "$JOURNAL/$1/switch.sh" "$frame" "$verb" "$@"
      ;;
    *) clean "$SHELL_OF_SCRIPTS" "$SWITCH_SH" "$frame" "$verb" "$@" ;;
  esac
}

# Of the system that runs, and of nothing else: who deploys has no say in what is run as root but by a system.
check_command() { # NAME
  [ -r "$CHECKS/$1" ] || fail "the node's system has no health check $1: declare it in services.driftless-node.checks"
  said=$(env -i PATH="$PATH" LC_ALL=C HOME=/root "$SHELL_OF_SCRIPTS" "$CHECKS/$1" 2>&1 </dev/null)
  answer_check $? "$said"
}

# The paths of a closure come by stdin, one a line, and the script wants them in a variable: too long for an environment.
prepare() { # ID SYSTEM
  WANTED=$(head -c 16777216)
  if printf '%s\n' "$WANTED" | grep -qvE '^/nix/store/[0-9a-z]{32}-[0-9A-Za-z+._?=-]{1,211}$'; then
    refuse 'what is to be looked for are no store paths'
  fi
  set +f
  set -- "$frame" prepare "$@"
  # shellcheck source=/dev/null
  . "$SWITCH_SH"
  exit
}

# Copies alone do not do: an untrusted user may add what is addressed by its own content, or build on the node, without any
# signature. So the system itself has to be signed, and with it what it refers to; or root has installed it here before.
trust() { # SYSTEM
  [ "$COPIES" = signed ] || return 0
  [ "$1" != "$(readlink -f /run/current-system)" ] || return 0
  set +f
  for generation in /nix/var/nix/profiles/system-*-link; do
    [ "$(readlink -f "$generation")" != "$1" ] || { set -f; return 0; }
  done
  set -f
  if info=$(nix_of path-info --json "$1" 2>&1) && is_no_content_address "$info" &&
    said=$(nix_of store verify --no-contents --sigs-needed 1 "$1" 2>&1); then return 0; fi
  logger -t driftless-node -p auth.warning -- "refused to start $1: unsigned" 2>/dev/null </dev/null
  open_frame
  reply "refused unsigned $(printf '%s' "${said-$info}" | tr '\n' ' ' | cut -c 1-300)"
  close_frame
  exit 0
}

nix_of() { # ARGUMENT...
  env -i PATH="$PATH" LC_ALL=C HOME=/root nix --extra-experimental-features nix-command \
    --option trusted-public-keys "$SIGNED_BY" "$@" </dev/null
}

# To Nix what is addressed by its content is as good as signed, whoever added it.
is_no_content_address() { # JSON of `nix path-info`
  case $(printf '%s' "$1" | tr -d ' \n\t') in
    *'"ca":null'*) return 0 ;;
    *'"ca":'*) return 1 ;;
    *'"narHash":'*) return 0 ;;
    *) return 1 ;;
  esac
}

# Root needs no permission, and who has a shell may have more than this program lets him have.
ask_directly() { # PROTOCOL FRAME VERB [WORD]... | nix-daemon --stdio
  account=$(id -un)
  if is_root; then
    # doas has no rule for arguments: who came by it, or by sudo, is not root for that.
    [ -n "${DOAS_USER-}${SUDO_USER-}" ] || COPIES=trusted
  elif [ "$account" != "$ACCOUNT" ]; then
    refuse "ask the shell of this account, $account: driftless-node is for root and $ACCOUNT"
  fi
  ask "$@"
}

main() {
  case ${1-} in
    gate) ask_line "${SSH_ORIGINAL_COMMAND-}" ;;
    # sshd has the login shell run the forced command.
    -c) if [ "${2-}" = "$SELF gate" ]; then ask_line "${SSH_ORIGINAL_COMMAND-}"; else ask_line "${2-}"; fi ;;
    as-root)
      shift
      as_root "$@"
      ;;
    '' | -*) refuse 'there is no shell here, only deployments by driftless' ;;
    *) ask_directly "$@" ;;
  esac
}

main "$@"
