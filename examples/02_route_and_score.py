"""Route the library of the first example with Arrow, see who speaks, and compare with the base.

python examples/02_route_and_score.py [BASE]
"""

import sys

import lorary as lo

base = lo.load_base(*sys.argv[1:2])
library = lo.Library.open("libs/example")
tasks = lo.builtin_tasks().only(library)
loss = lo.Perplexity()
before = lo.evaluate(loss, base, tasks, limit=8, name="base")
with lo.route(base, library, lo.Arrow(top_k=2), mix="outputs") as model:
    print(model.explain("Write this date as YYYY-MM-DD: 4 July 1999", max_new_tokens=8))
    after = lo.evaluate(loss, model, tasks, limit=8, name="arrow")
print(lo.compare(after, before))
