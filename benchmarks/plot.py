"""Draw docs/pictures/performance-*.png from results/*.json: cost against E, T and k, memory against E, whole models.

python benchmarks/plot.py
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from timing import RESULTS

PICTURES = Path(__file__).parents[1] / "docs" / "pictures"
COLOURS = {
    "lorary": "#1b6ca8",
    "PEFT Arrow": "#c8553d",
    "mttl (formula)": "#8a6fb0",
    "scores alone": "#7a9e7e",
    "floor": "#555555",
}
STYLES = {"floor": ":", "scores alone": "-.", "mttl (formula)": "--"}


def main() -> None:
    _costs()
    _memory()
    _models()


def _rows(name: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    found = json.loads((RESULTS / f"{name}.json").read_text("utf-8"))
    return found["rows"], found


def _costs() -> None:
    figure, axes = plt.subplots(1, 3, figsize=(12, 4), layout="constrained")
    for axis, name, key, label in (
        (axes[0], "by-experts", "experts", "experts E (T = 512, k = 4)"),
        (axes[1], "by-tokens", "tokens", "tokens T of a call (E = 64, k = 4)"),
        (axes[2], "by-kept", "kept", "kept experts k (T = 512, E = 64)"),
    ):
        rows, facts = _rows(name)
        curves = {
            "PEFT Arrow": [r["peft"] for r in rows],
            "mttl (formula)": [_mttl(r, facts["width"], facts["rank"]) for r in rows],
            "lorary": [r["auto"] for r in rows],
            "scores alone": [r["bare"] for r in rows],
            "floor": [r["floor"] for r in rows],
        }
        _lines(axis, [r[key] for r in rows], curves)
        axis.set_xlabel(label)
    axes[0].set_ylabel("time of a routed layer / its base layer")
    axes[0].legend(frameon=False)
    figure.suptitle("One linear layer, 576 -> 576, rank 4, float32, one thread", fontsize=11)
    _save(figure, "performance-layer.png")


def _mttl(row: Mapping[str, Any], d: int, rank: int) -> float:
    """Count the multiply-adds of its default over the base: an A and a B merged per token, then two thin products."""
    active = min(row["experts"], row["tokens"] * row["kept"])
    return 1 + row["experts"] / d + 2 * active * rank / d + 2 * rank / d


def _memory() -> None:
    rows, _ = _rows("memory")
    figure, axis = plt.subplots(figsize=(5, 3.6), layout="constrained")
    curves = {"PEFT Arrow": "peft", "mttl (formula)": "mttl", "lorary": "outputs"}
    _lines(axis, [r["experts"] for r in rows], {name: [r[key] for r in rows] for name, key in curves.items()})
    axis.set_xlabel("experts E")
    axis.set_ylabel("transient MiB of one call")
    axis.set_title("512 tokens, 576 -> 576, rank 4, float32", fontsize=10)
    axis.legend(frameon=False)
    _save(figure, "performance-memory.png")


def _models() -> None:
    rows = _rows("model")[0]
    for fewer in _rows("model-6-layers")[0]:  # PEFT takes minutes for 30 layers of so many experts
        for row in rows:
            if (row["phase"], row["experts"]) == (fewer["phase"], fewer["experts"]):
                row["peft"] = fewer["peft"]
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    kinds = {"PEFT Arrow": "peft", "lorary": "outputs", "lorary, compiled operators": "compiled"}
    for axis, phase in zip(axes, ("prefill 512", "decode"), strict=True):
        found = sorted((r for r in rows if r["phase"] == phase), key=lambda r: r["experts"])
        for n, (name, key) in enumerate(kinds.items()):
            bars = [(i + 0.27 * (n - 1), r[key]) for i, r in enumerate(found) if r[key]]
            if not bars:
                continue
            colour = COLOURS.get(name, "#8fbfe0")
            axis.bar([x for x, _ in bars], [y - 1 for _, y in bars], 0.25, bottom=1, color=colour, label=name)
            for x, y in bars:
                axis.text(x, y, f"{y:.2f}", ha="center", va="bottom", fontsize=8)
        axis.set_xticks(range(len(found)), [f"E = {r['experts']}" for r in found])
        axis.set_yscale("log")
        axis.set_yticks([1, 1.5, 2, 3, 5, 10, 20], ["1", "1.5", "2", "3", "5", "10", "20"])
        axis.minorticks_off()
        axis.set_ylim(1, 24)
        axis.set_title(phase + (" tokens" if "512" in phase else ", batch 1"), fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("time / base model")
    axes[1].legend(frameon=False, fontsize=8)
    figure.suptitle("SmolLM2-135M's shape, q, k, v, o routed, rank 4, k = 4, float32, one thread", fontsize=11)
    _save(figure, "performance-model.png")


def _lines(axis: Axes, x: list[int], curves: Mapping[str, list[float | None]]) -> None:
    for name, y in curves.items():
        points = [(a, b) for a, b in zip(x, y, strict=True) if b is not None]
        axis.plot(*zip(*points, strict=True), STYLES.get(name, "o-"), color=COLOURS[name], label=name, markersize=4)
    axis.set_xscale("log", base=2)
    axis.set_yscale("log")
    axis.set_xticks(x, [str(v) for v in x])
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)


def _save(figure: Any, name: str) -> None:
    figure.savefig(PICTURES / name, dpi=130)
    print("drawn", PICTURES / name)


if __name__ == "__main__":
    main()
