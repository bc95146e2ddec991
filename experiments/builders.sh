#!/usr/bin/env bash
# The tables of docs/how_to/choose.md: what each way of building and of adapting gives for the same training.
#
#   experiments/builders.sh [INTO]
#
# On eight of the built-in tasks, two relatives of each of the four that are held out. Seven to ten minutes a seed on
# one core. Interrupted, the same command resumes.
set -euo pipefail

exec "${LORARY:-lorary}" study builders --into "${1:-study}" --seeds 42,43,44 \
  --only classify_sentiment --only classify_topic --only convert_digits --only convert_iso_date \
  --only extract_order_number --only extract_person --only rewrite_negative --only rewrite_past \
  --only classify_request --only convert_time --only extract_place --only rewrite_future
