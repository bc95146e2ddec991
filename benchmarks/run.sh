#!/bin/sh
# Measures everything that docs/performance.md shows, and draws its pictures: about an hour of one core.
set -e
cd "$(dirname "$0")"
python="${PYTHON:-python}"
"$python" -W ignore layer.py --name layer-576
"$python" -W ignore layer.py --width 2048 --tokens 1 512 --experts 64 256 1024 --kept 4 --name layer-2048
"$python" -W ignore layer.py --tokens 1 64 512 --kept 4 --dtype bfloat16 --name layer-bfloat16
"$python" -W ignore layer.py --tokens 512 --kept 4 --mix factors --name layer-factors
"$python" -W ignore layer.py --tokens 512 --experts 8 16 32 64 128 256 --kept 4 --peft --name by-experts
"$python" -W ignore layer.py --experts 64 --kept 4 --peft --name by-tokens
"$python" -W ignore layer.py --tokens 512 --experts 64 --kept 1 2 4 8 16 32 0 --peft --name by-kept
"$python" -W ignore memory.py
"$python" -W ignore gradients.py
"$python" -W ignore opening.py
"$python" -W ignore prototypes.py
"$python" -W ignore edit.py
"$python" -W ignore adding.py
"$python" -W ignore task_data.py --in-memory
"$python" -W ignore -m lorary.adapters.mixing.compiled
"$python" -W ignore model.py
"$python" -W ignore model.py --experts 256 --layers 6 --peft-most 256 --phases "prefill 512" --mixes outputs --name model-6-layers
"$python" -W ignore model.py --experts 8 64 --prompts 4 --phases "prefill 512" --mixes outputs --name model-4-prompts
"$python" -W ignore model.py --experts 256 --layers 6 --prompts 4 --peft-most 256 --phases "prefill 512" --mixes outputs --name model-4-prompts-6-layers
"$python" -W ignore model.py --experts 8 64 --prompts 4 --threads 2 --phases "prefill 512" --mixes outputs --name model-2-threads
"$python" -W ignore model.py --experts 256 --layers 6 --prompts 4 --threads 2 --peft-most 256 --phases "prefill 512" --mixes outputs --name model-2-threads-6-layers
MALLOC_MMAP_THRESHOLD_=131072 "$python" -W ignore model.py --experts 8 64 --prompts 4 --phases "prefill 512" --mixes outputs --name model-fresh-pages
"$python" -W ignore operations.py
"$python" -W ignore grouping.py --phases decode --rounds 61 --name grouping-decode
"$python" -W ignore grouping.py --phases "prefill 512" --rounds 7 --name grouping-prefill
"$python" -W ignore serving.py --minutes 15
"$python" -W ignore found_adapters.py --adapters 260
"$python" -W ignore found_adapters.py --adapters 1000 --skip "build svd:rank=8" "ask, arrow, mix=factors"
"$python" plot.py
