#!/bin/sh
# lint.sh: checks what cargo does not: every shell script, and the alert rules with their own tests.
set -eu
cd "$(dirname "$0")/.."

scripts=$(git ls-files --cached --others --exclude-standard | while read -r file; do
  case $file in
    # Parts of one script, which is looked at as a whole.
    src/node/switch/*) ;;
    *.sh) echo "$file" ;;
    *) [ ! -f "$file" ] || ! head -n1 "$file" | LC_ALL=C grep -aqE '^#!.*[/ ](sh|bash|dash)( |$)' || echo "$file" ;;
  esac
done)
# shellcheck disable=SC2086 # several words are meant; no script's name has a blank
set -- $scripts
shellcheck "$@"
cat src/node/switch/*.sh | shellcheck -
echo "shellcheck: $# scripts are clean, and the node's"

promtool check rules deploy/alerts.yml
promtool test rules deploy/alerts.test.yml
