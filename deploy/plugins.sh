#!/bin/sh
# Installs plugins/requirements.txt for the consumers of users: plugins.sh PREFIX PLUGINS PINS PIP...
#   PREFIX   the environment of the program          PLUGINS  the folder of the requirements
#   PINS     what the program itself has pinned      PIP...   how pip is called
# Into a folder of its own, which only processes that load such consumers have on their path, behind everything of ours:
# nothing in it takes the place of what ingest and the built-in consumers run with. It appears whole or not at all; what
# an earlier run has installed stays until then. Exit code 1, with pip's words, if it cannot be installed.
set -eu
prefix=$1 plugins=$2 pins=$3
shift 3
place=$prefix/plugins

if [ ! -f "$plugins/requirements.txt" ]; then
  rm -rf "$place"
  exit 0
fi
wanted=$(sha256sum "$plugins/requirements.txt" | cut -d' ' -f1)
if [ "$(cat "$place/installed" 2>/dev/null)" = "$wanted" ]; then exit 0; fi

echo "installing plugins/requirements.txt" >&2
mkdir -p "$place"
rm -rf "$place/new" "$place/failed"
# Both are imported in one process: where both need a package it must be the version that we have. Without the hashes:
# they would ask for hashes of everything.
sed -n 's/^\([A-Za-z0-9._-]*==[^\\]*\).*/\1/p' "$pins" >"$place/constraints"
# From the folder itself: paths in the file begin there.
if (cd "$plugins" && exec "$@" --python "$prefix/bin/python" --disable-pip-version-check install \
  --root-user-action=ignore --target "$place/new" --constraint "$place/constraints" \
  --requirement requirements.txt) >"$place/log" 2>&1; then
  rm -rf "$place/packages" "$place/log"
  mkdir -p "$place/new"
  mv "$place/new" "$place/packages"
  echo "$wanted" >"$place/installed"
  exit 0
fi
# From where pip first says so, without its general advice.
said=$(sed -n '/^ *$/d; /^To fix this/q; /^ *\(ERROR\|error\|×\)/,$p' "$place/log" | head -n 15)
if [ -z "$said" ]; then said=$(tail -n 5 "$place/log"); fi
rm -rf "$place/new" "$place/log"
printf '%s\n%s\n' "$wanted" "$said" >"$place/failed"
printf '%s\n' "$said" >&2
exit 1
