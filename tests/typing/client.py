"""A program as users write it, for mypy alone: nothing runs it. `# E:` stands where mypy must find that mistake.

The flags are those of `mypy --strict`; given here, they leave the cache that `mypy` has made of lorary as it is.
"""

# mypy: disallow-any-generics, disallow-subclassing-any, disallow-untyped-calls, disallow-untyped-defs
# mypy: disallow-incomplete-defs, check-untyped-defs, disallow-untyped-decorators, warn-unused-ignores
# mypy: warn-return-any, no-implicit-reexport, strict-equality, extra-checks

from collections.abc import Mapping
from typing import assert_type

import lorary as lo

base = lo.load_base("somewhere")
assert_type(base, lo.BaseModel)
tasks = lo.read_tasks("flan/*.jsonl")
assert_type(tasks, lo.Tasks)

private = lo.build(lo.Private(rank=4), tasks, base, into="libs/private")
assert_type(private, lo.Library)
clusters = lo.cluster(lo.MBC(k=4), private)
assert_type(clusters, lo.Clusters)
mbc = lo.build(lo.PerCluster(clusters, rank=4), tasks, base, into="libs/mbc")
expert = mbc["c3"]
assert_type(expert, lo.Expert)

model = lo.route(base, mbc, lo.Arrow(top_k=4))
assert_type(model, lo.RoutedModel)
with model as routed:
    assert_type(routed, lo.RoutedModel)
    assert_type(routed.explain("Why is the sky blue?"), lo.Trace)
scores = lo.evaluate(lo.RougeL(), model, tasks, into="runs/mbc-arrow.jsonl")
assert_type(scores, lo.Scores)
assert_type(scores.mean, float)
lo.report([scores], into="report.html")


def best(runs: Mapping[str, lo.Scores]) -> str:
    return max(runs, key=lambda name: runs[name].mean)


lo.Arrow(topk=4)  # E: Unexpected keyword argument "topk" for "Arrow"
lo.Arrow(top_k="four")  # E: Argument "top_k" to "Arrow" has incompatible type "str"; expected "int | None"
lo.Arow()  # E: Module has no attribute "Arow"
lo.route(base, mbc, lo.RougeL())  # E: Argument 3 to "route" has incompatible type "RougeL"
lo.build(lo.Arrow(), tasks, base, into="libs")  # E: Argument 1 to "build" has incompatible type "Arrow"
