#!/bin/sh
# Measures lorary on one GPU in at most six minutes, without a network: benchmarks/gpu.sh [--dry-run] [--into FILE]
# Each part is written to the file as soon as it is done. --dry-run: tiny shapes, on the CPU.
set -e
cd "$(dirname "$0")"
exec "${PYTHON:-python}" -W ignore gpu.py "$@"
