"""What evidence costs: the compass beside Arrow, a gate alone and the whole routed model, 64 experts of rank 4.

python benchmarks/evidence.py [--rounds 10]

One thread; CPU time, so that neighbours count less. Within a round the two take turns; the ratio is the median over
the rounds. The base is the embedded one; experts and states are random, so nothing about quality follows.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Mapping, Sequence

import torch

from lorary.adapters.contract import Site
from lorary.adapters.lora import LoRA
from lorary.adapters.low_rank import LowRankBank
from lorary.model.attached.attachment import Attachment
from lorary.model.attached.slot import Slot
from lorary.model.base.base_model import load_base
from lorary.routing.contract import Context, Gate, Router, State
from lorary.routing.routers.arrow import Arrow
from lorary.routing.routers.compass import Compass
from lorary.testing.pico import random_weights

N_EXPERTS = 64
ROUTERS: Mapping[str, Router] = {"arrow": Arrow(), "compass": Compass()}
Run = Callable[[], object]


def main() -> None:
    """Measure and print the ratios."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=10)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    base = load_base()
    sites = base.target_sites(["attention"])
    states = {site.name: random_state(site) for site in sites}
    names = [f"{i:02}" for i in range(N_EXPERTS)]
    gates = {name: {s.name: r.gate(s, states[s.name], names) for s in sites} for name, r in ROUTERS.items()}
    for n_tokens in (1, 64, 512):
        runs = {name: gates_run(list(made.values()), sites[0].d_in, n_tokens) for name, made in gates.items()}
        report(f"gates alone, {n_tokens} tokens", rounds, runs)

    experts = [random_weights(LoRA(), sites, seed=i) for i in range(N_EXPERTS)]
    banks = {s.name: LowRankBank([e[s.name] for e in experts], s).cast(base.dtype) for s in sites}
    attachment = Attachment(
        base.hf, {s.name: (banks[s.name], gates["compass"][s.name]) for s in sites}, Slot("factors")
    )
    ids = torch.randint(100, 40_000, (1, 512), generator=torch.Generator().manual_seed(0))
    tasks: Mapping[str, Run] = {
        "32 tokens written after 16": lambda: base.hf.generate(
            input_ids=ids[:, :16], attention_mask=torch.ones_like(ids[:, :16]), do_sample=False, max_new_tokens=32,
            min_new_tokens=32,
        ),
        "512 tokens read": lambda: base.hf(input_ids=ids, use_cache=False),
    }  # fmt: skip
    for what, task in tasks.items():

        def run(made: Mapping[str, Gate], task: Run = task) -> None:
            for site, layer in attachment.layers.items():
                layer.gate = made[site]
            with attachment.turn(Context()):
                task()

        report(f"whole model, {what}", rounds, {n: lambda m=made: run(m) for n, made in gates.items()})


def random_state(site: Site, n_experts: int = N_EXPERTS) -> State:
    """Make a state with a prototype for everybody."""
    generator = torch.Generator().manual_seed(0)
    vectors = torch.nn.functional.normalize(torch.randn(n_experts, site.d_in, generator=generator), dim=1)
    products = torch.randn(n_experts, 60, generator=generator).half()
    sketches = torch.randn(n_experts, Compass().n_sketch, generator=generator)
    parts = {"vectors": vectors, "members": torch.arange(n_experts), "products": products, "sketches": sketches}
    return {f"{site.name}.{name}": part for name, part in parts.items()}


def gates_run(gates: Sequence[Gate], d_in: int, n_tokens: int) -> Run:
    """Let all sites of one width route, call after call of one sequence."""
    h = torch.randn(1, n_tokens, d_in).bfloat16()
    gates = [gate for gate in gates if gate.vectors.shape[-1] == d_in]

    def run() -> None:
        context = Context()
        for _ in range(max(2, 32 // n_tokens)):
            context.evidence.start_call()
            for gate in gates:
                gate(h, context)

    return run


def report(what: str, rounds: int, runs: Mapping[str, Run]) -> None:
    """Time the runs in turns and print the ratio of the second to the first."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    with torch.inference_mode():
        for _ in range(rounds + 1):
            for name, run in runs.items():
                started = time.process_time()
                run()
                times[name].append(time.process_time() - started)
    first, second = (list(t[1:]) for t in times.values())  # the first round warms up
    ratio = statistics.median(b / a for a, b in zip(first, second, strict=True))
    shown = ", ".join(f"{name} {statistics.median(t[1:]) * 1e3:.1f} ms" for name, t in times.items())
    print(f"{what}: {ratio:.2f} ({shown})", flush=True)


if __name__ == "__main__":
    main()
