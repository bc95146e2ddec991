#!/usr/bin/env bash
# All studies of the paper in miniature, on tasks of your own.
#
#   experiments/paper_mini.sh INTO HELDOUT TASKS [MORE...]
#
# HELDOUT: names of the tasks never trained on, with commas between; TASKS: a directory, glob or file of tasks, as
# `lorary study` reads them; MORE: further options of `lorary study`, as --workers 2 or --base NAME. Interrupted, it
# resumes.
set -euo pipefail
into=${1:?usage: experiments/paper_mini.sh INTO HELDOUT TASKS [MORE...]}
heldout=${2:?the names of the held-out tasks}
tasks=${3:?the tasks}
shift 3

options=()
IFS=, read -ra names <<<"$heldout"
for name in "${names[@]}"; do
  options+=(--heldout "$name")
done
exec "${LORARY:-lorary}" study paper "$tasks" --scale mini --into "$into" "${options[@]}" "$@"
