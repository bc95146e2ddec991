"""Build a private library of three built-in tasks: one LoRA per task (about a minute on two cores).

python examples/01_private_library.py [BASE]
"""

import sys

import lorary as lo

base = lo.load_base(*sys.argv[1:2])
tasks = lo.builtin_tasks().only(["convert_iso_date", "extract_person", "rewrite_past"])
library = lo.build(lo.Private(steps=16, lr=1e-3), tasks, base, into="libs/example")
for name, expert in library.items():
    print(f"{name}: rank {expert.rank}, validation loss {expert.provenance.metrics['valid_loss']:.3f}")
