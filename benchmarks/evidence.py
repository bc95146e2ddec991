"""What evidence costs: the compass beside Arrow, a gate alone and the whole routed model, 64 experts of rank 4.

python benchmarks/evidence.py [--rounds 10]

One thread; CPU time, so that neighbours count less. Within a round the two take turns; the ratio is the median over
the rounds. The base is the embedded one; experts and states are random, so nothing about quality follows.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Mapping

import torch

from lorary.adapters.base import Site
from lorary.adapters.kinds.lora import LoRA
from lorary.model.attach import Attachment, Slot
from lorary.model.base_model import load_base
from lorary.routing.base import Context, Gate, Router, State
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
        runs = {name: gate_run(made[sites[0].name], sites[0].d_in, n_tokens) for name, made in gates.items()}
        report(f"gate alone, {n_tokens} tokens", rounds, runs)

    experts = [random_weights(LoRA(), sites, seed=i) for i in range(N_EXPERTS)]
    banks = {s.name: LoRA().pack([e[s.name] for e in experts], s).cast(base.dtype) for s in sites}
    attachment = Attachment(
        base.hf, {s.name: (banks[s.name], gates["compass"][s.name]) for s in sites}, Slot("factors")
    )
    for n_tokens in (1, 512):
        ids = torch.randint(100, 40_000, (1, n_tokens), generator=torch.Generator().manual_seed(0))

        def run(made: Mapping[str, Gate], ids: torch.Tensor = ids) -> None:
            for site, layer in attachment.layers.items():
                layer.gate = made[site]
            with attachment.turn(Context()):
                base.hf(input_ids=ids, use_cache=False)

        report(f"whole model, {n_tokens} tokens", rounds, {n: lambda m=made: run(m) for n, made in gates.items()})


def random_state(site: Site) -> State:
    """Make a state with a prototype for everybody."""
    generator = torch.Generator().manual_seed(0)
    vectors = torch.nn.functional.normalize(torch.randn(N_EXPERTS, site.d_in, generator=generator), dim=1)
    products = torch.randn(N_EXPERTS, 60, generator=generator).half()
    members = torch.arange(N_EXPERTS)
    return {f"{site.name}.vectors": vectors, f"{site.name}.members": members, f"{site.name}.products": products}


def gate_run(gate: Gate, d_in: int, n_tokens: int) -> Run:
    """Route as many times as make some milliseconds."""
    h = torch.randn(1, n_tokens, d_in).bfloat16()

    def run() -> None:
        for _ in range(max(4, 512 // n_tokens)):
            gate(h, Context())

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
