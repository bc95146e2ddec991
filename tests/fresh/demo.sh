#!/usr/bin/env bash
# A stranger's first commands: a clone, an empty home and no caches but pip's, `make demo` (shorter, of the same road),
# `pip check`, then README's lines from the library that it made to the openai client.
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

# As README has them, on the shorter demo's library and a port that is free.
mapfile -t lines < <(sed -n "/^pip install '.\[serve\]'/,/^\`\`\`/{/^\`\`\`/d;p}" README.md)
[[ ${#lines[@]} == 3 && ${lines[1]} == "lorary serve runs/quickstart/libs/private &" ]]
export PATH="$PWD/.venv/bin:$PATH"
port=$(python -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
"${fresh[@]}" bash -c "${lines[0]/pip install/pip install --quiet --constraint constraints.txt}"
"${fresh[@]}" lorary serve runs/short/libs/private --port "$port" 2>served.log &
trap '{ kill %1 || true; } 2>/dev/null; rm -rf "$place"' EXIT
for _ in $(seq 300); do
  python -c "import urllib.request as r; r.urlopen('http://127.0.0.1:$port/health')" 2>/dev/null && break
  kill -0 %1 || { cat served.log; exit 1; }
  sleep 1
done
"${fresh[@]}" bash -c "${lines[2]/8000/$port}"
kill %1
wait %1
.venv/bin/python -m pip check
