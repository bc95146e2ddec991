"""lorary: build and reuse a library of LoRA experts on one frozen language model.

The front door: all public names, resolved when they are first used, so that `import lorary` costs no torch.
"""

TYPE_CHECKING = False  # as in typing, whose import takes longer than all else before a command hears Ctrl-C

__version__ = "0.1.0"

_HOMES = {
    "Example": "lorary.tasks.example",
    "Task": "lorary.tasks.task",
    "Tasks": "lorary.tasks.task",
    "read_tasks": "lorary.tasks.read",
    "builtin_tasks": "lorary.tasks.builtin",
    "builtin_heldout": "lorary.tasks.builtin",
    "look": "lorary.tasks.look",
    "Library": "lorary.library.library",
    "check": "lorary.library.adapter.check",
    "add": "lorary.using.add",
    "open_model": "lorary.using.open_model",
    "LoRA": "lorary.adapters.kinds.lora",
    "load_base": "lorary.model.base.base_model",
    "route": "lorary.model.routed.route",
    "load": "lorary.model.routed.load",
    "export": "lorary.model.saved.export",
    "Private": "lorary.building.builders.private",
    "Shared": "lorary.building.builders.shared",
    "PerCluster": "lorary.building.builders.per_cluster",
    "UniformMerge": "lorary.building.builders.uniform",
    "Weighted": "lorary.building.builders.weighted",
    "Ties": "lorary.building.builders.ties",
    "Dare": "lorary.building.builders.dare",
    "PiTuning": "lorary.building.builders.pi_tuning",
    "Neighbours": "lorary.building.builders.neighbours",
    "LoraHub": "lorary.building.builders.lorahub",
    "Svd": "lorary.building.builders.svd",
    "Poly": "lorary.building.builders.poly",
    "MHR": "lorary.building.builders.mhr",
    "FromExpert": "lorary.building.builders.from_expert",
    "LibMu": "lorary.building.builders.lib_mu",
    "LibPoly": "lorary.building.builders.lib_poly",
    "LibPolyZ": "lorary.building.builders.lib_polyz",
    "Phatgoose": "lorary.building.builders.phatgoose",
    "MBC": "lorary.building.clustering.clusterers.mbc",
    "Embeddings": "lorary.building.clustering.clusterers.embeddings",
    "RandomTasks": "lorary.building.clustering.clusterers.random_tasks",
    "RandomExamples": "lorary.building.clustering.clusterers.random_examples",
    "build": "lorary.building.build",
    "FullFineTuning": "lorary.building.finetune",
    "finetune": "lorary.building.finetune",
    "Recipe": "lorary.building.recipe",
    "read_recipe": "lorary.building.recipe",
    "build_recipe": "lorary.building.work.backend",
    "cluster": "lorary.building.clustering.cluster",
    "join": "lorary.building.clustering.cluster",
    "Arrow": "lorary.routing.routers.arrow",
    "Centroid": "lorary.routing.routers.centroid",
    "Compass": "lorary.routing.routers.compass",
    "MHRRouter": "lorary.routing.routers.mhr",
    "PolyRouter": "lorary.routing.routers.poly",
    "PhatgooseRouter": "lorary.routing.routers.phatgoose",
    "Oracle": "lorary.routing.routers.oracle",
    "TaskPredictor": "lorary.routing.routers.task_predictor",
    "SpectR": "lorary.routing.routers.spectr",
    "Uniform": "lorary.routing.routers.uniform",
    "Choice": "lorary.evaluation.evaluators.choice",
    "ExactMatch": "lorary.evaluation.evaluators.exact_match",
    "Perplexity": "lorary.evaluation.evaluators.perplexity",
    "RougeL": "lorary.evaluation.evaluators.rouge_l",
    "evaluate": "lorary.evaluation.run",
    "compare": "lorary.evaluation.compare",
    "report": "lorary.reporting.report",
    "LoraryError": "lorary.errors",
}

__all__ = ["__version__", *_HOMES]  # pyright: ignore[reportUnsupportedDunderAll]

if TYPE_CHECKING:
    from typing import Any

    from lorary.adapters.kinds.lora import LoRA as LoRA


def __getattr__(name: str) -> "Any":
    import importlib

    if name not in _HOMES:
        raise AttributeError(f"module 'lorary' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
