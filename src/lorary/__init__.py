"""lorary: build and reuse a library of LoRA experts on one frozen language model.

The front door: all public names, resolved when they are used, so that `import lorary` costs no torch. Verbs and things
are listed here; methods are found in their folders, and those of plug-ins through their entry points. The types are in
__init__.pyi, which `make docs` writes.
"""

__version__ = "0.1.0"

_HOMES = {
    "Example": "lorary.tasks.example",
    "Task": "lorary.tasks.task",
    "Tasks": "lorary.tasks.task",
    "read_tasks": "lorary.tasks.read",
    "builtin_tasks": "lorary.tasks.builtin",
    "builtin_heldout": "lorary.tasks.builtin",
    "look": "lorary.tasks.look",
    "Look": "lorary.tasks.look",
    "Library": "lorary.library.library",
    "Expert": "lorary.library.adapter.expert",
    "Provenance": "lorary.library.adapter.provenance",
    "check": "lorary.library.adapter.check",
    "LoRA": "lorary.adapters.lora",
    "Site": "lorary.adapters.contract",
    "Weights": "lorary.adapters.contract",
    "Experts": "lorary.adapters.contract",
    "Mix": "lorary.adapters.contract",
    "add": "lorary.using.add",
    "push": "lorary.using.hub",
    "Pushed": "lorary.using.hub",
    "pull": "lorary.using.hub",
    "open_model": "lorary.using.open_model",
    "choose_model": "lorary.using.open_model",
    "AddToLibrary": "lorary.model.trainers.add_to_library",
    "load_base": "lorary.model.base.base_model",
    "BaseModel": "lorary.model.base.base_model",
    "route": "lorary.model.routed.route",
    "load": "lorary.model.routed.load",
    "RoutedModel": "lorary.model.routed.routed_model",
    "Trace": "lorary.model.routed.trace",
    "export": "lorary.model.saved.export",
    "export_merged": "lorary.model.saved.merged",
    "export_gguf": "lorary.model.saved.gguf",
    "Sampling": "lorary.evaluation.sampling",
    "stream": "lorary.asking.stream",
    "Chat": "lorary.asking.chat",
    "inspect": "lorary.asking.inspection",
    "Prompt": "lorary.asking.answers",
    "Wish": "lorary.asking.answers",
    "read_prompts": "lorary.asking.answers",
    "answer_prompts": "lorary.asking.answers",
    "answer_with_workers": "lorary.asking.shared_answers",
    "Builder": "lorary.building.contract",
    "Job": "lorary.building.contract",
    "JobStep": "lorary.work.jobs",
    "Made": "lorary.building.contract",
    "build": "lorary.building.build",
    "as_paper": "lorary.building.paper_settings",
    "FullFineTuning": "lorary.building.finetune",
    "finetune": "lorary.building.finetune",
    "Recipe": "lorary.building.recipe",
    "read_recipe": "lorary.building.recipe",
    "build_recipe": "lorary.building.build",
    "Backend": "lorary.work.backend",
    "Order": "lorary.work.backend",
    "cluster": "lorary.building.clustering.cluster",
    "join": "lorary.building.clustering.cluster",
    "Clusterer": "lorary.building.clustering.contract",
    "TaskProbe": "lorary.building.clustering.contract",
    "Clusters": "lorary.building.clustering.clusters",
    "read_clusters": "lorary.building.clustering.clusters",
    "Router": "lorary.routing.contract",
    "Survey": "lorary.routing.contract",
    "Gate": "lorary.routing.contract",
    "Routing": "lorary.routing.routing",
    "Context": "lorary.routing.contract",
    "Probe": "lorary.routing.contract",
    "State": "lorary.routing.contract",
    "Evaluator": "lorary.evaluation.contract",
    "Outcome": "lorary.evaluation.contract",
    "LanguageModel": "lorary.evaluation.contract",
    "LogLikelihood": "lorary.evaluation.contract",
    "evaluate": "lorary.evaluation.evaluate",
    "Benchmark": "lorary.evaluation.benchmarking.contract",
    "mean_over": "lorary.evaluation.benchmarking.mean",
    "Mean": "lorary.evaluation.benchmarking.mean",
    "ChoiceBenchmark": "lorary.evaluation.benchmarking.question",
    "Question": "lorary.evaluation.benchmarking.question",
    "Row": "lorary.tasks.rows.fields",
    "Exam": "lorary.evaluation.benchmarking.contract",
    "read_benchmarks": "lorary.evaluation.benchmarking.read",
    "Setup": "lorary.grid.setup",
    "evaluate_grid": "lorary.grid.evaluate_grid",
    "Scores": "lorary.evaluation.scores",
    "read_scores": "lorary.evaluation.scores",
    "Study": "lorary.studies.contract",
    "Subject": "lorary.studies.contract",
    "Verdict": "lorary.studies.contract",
    "run_study": "lorary.studies.run_study",
    "compare": "lorary.evaluation.compare",
    "Comparison": "lorary.evaluation.compare",
    "report": "lorary.reporting.report",
    "Options": "lorary.options",
    "LoraryError": "lorary.errors",
    "OptionError": "lorary.errors",
    "TaskError": "lorary.errors",
    "LibraryError": "lorary.errors",
    "AdapterError": "lorary.errors",
    "RoutingError": "lorary.errors",
    "ModelError": "lorary.errors",
    "BuildError": "lorary.errors",
    "EvaluationError": "lorary.errors",
}


def __getattr__(name: str) -> object:
    import importlib

    if name == "__all__":
        return __dir__()
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name[:1].isupper():
        from lorary.folder import find_class

        if found := find_class(name):
            return found
    raise AttributeError(f"module 'lorary' has no attribute {name!r}")


def __dir__() -> list[str]:
    from lorary.folder import class_names

    return sorted({"__version__", *_HOMES} | class_names())
