#!/bin/sh
# Installs a worker into a new environment, from the root of a checkout: install_worker.sh DIRECTORY [handlers|whisper]
# The Dockerfiles run it, and any machine may. Only wheels; the reference handlers as locked, with hashes.
set -eu
target=$1
extra=${2:-}
case $extra in
  "" | handlers | whisper) ;;
  *) echo "install_worker.sh: $extra: expected handlers, whisper or nothing" >&2 && exit 2 ;;
esac
"${PYTHON:-python3}" -m venv "$target"
if [ "$extra" = handlers ]; then
  "$target/bin/pip" install --no-cache-dir --only-binary :all: --require-hashes -r requirements-worker.txt
fi
"$target/bin/pip" install --no-cache-dir --only-binary :all: ./client "./worker${extra:+[$extra]}"
"$target/bin/bridge-worker" --version
