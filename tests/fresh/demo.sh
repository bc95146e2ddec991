#!/usr/bin/env bash
# A stranger's first command: a clone, an empty home and no caches but pip's, `make demo` (shorter, of the same road), `pip check`.
set -euo pipefail
cd "$(dirname "$0")/../.."
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
PIP_CACHE_DIR=${PIP_CACHE_DIR:-$(python3 -m pip cache dir)}
export PIP_CACHE_DIR
git clone --quiet . "$place/lorary"
mkdir "$place/home"
cd "$place/lorary"

# Nothing that another run left, or that a developer has set, may help.
fresh=(env -u LORARY_CACHE -u XDG_CACHE_HOME -u HF_HOME -u PYTHONPATH -u VIRTUAL_ENV HOME="$place/home")
"${fresh[@]}" make demo INTO=runs/short ARGS="--steps 2 --clusters 2 --max-new-tokens 4 \
  --only classify_topic --only convert_digits --only classify_request"
test -s runs/short/report.html
.venv/bin/python -m pip check
du -sh .venv
"${fresh[@]}" .venv/bin/lorary ask runs/short/libs/private "Which continent is Kenya in?" --max-new-tokens 4
