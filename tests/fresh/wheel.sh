#!/usr/bin/env bash
# The wheel as a stranger gets it: built, looked over, installed alone into a bare environment; every command runs there once.
# TORCH: the build of torch to install. BIN: where build and twine are.
set -euo pipefail
cd "$(dirname "$0")/../.."
BIN=$(cd "$BIN" && pwd)
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
"$BIN/python" -m build --outdir "$place/dist" . >"$place/build.log" || { cat "$place/build.log"; exit 1; }
"$BIN/python" -m twine check --strict "$place"/dist/*
"$BIN/python" tests/fresh/whole_wheel.py "$place"/dist/*.whl
python3 -m venv "$place/bare"
"$place/bare/bin/python" -m pip install --quiet "$TORCH"
"$place/bare/bin/python" -m pip install --quiet --constraint constraints.txt "$place"/dist/*.whl
"$place/bare/bin/python" -m pip check

mkdir "$place/home"
cp tests/fresh/every_command.py "$place"
cd "$place"  # away from the sources
env -u LORARY_CACHE -u XDG_CACHE_HOME -u HF_HOME -u PYTHONPATH HOME="$place/home" HF_HUB_OFFLINE=1 \
  bare/bin/python every_command.py
