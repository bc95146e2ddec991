"""The training of the paper in one name: what its text and its code set, where our defaults are others."""

import dataclasses
from typing import Any, TypeVar

from lorary.building.training.options import TrainingOptions
from lorary.errors import OptionError, known_names, quote

T = TypeVar("T", bound=TrainingOptions)

_ALL: dict[str, Any] = {
    "batch_size": 16, "warmup_from": "zero", "clip": 0.1, "loss": "examples", "max_valid": 1000, "init": "paper",
}  # fmt: skip
_OWN: dict[str, dict[str, Any]] = {
    "private": {"n_evaluations": 5},
    "per_cluster": {"epochs": 3.0, "n_evaluations": 3},
    "shared": {"epochs": 1.0, "dropout": 0.0, "max_valid": 5000, "n_evaluations": 12},
    "phatgoose": {"batch_size": 4, "warmup": 0.1, "keep": "last"},
}
"""What single methods have otherwise, or besides."""


def as_paper(method: type[T], **options: object) -> T:
    """Give the options of a builder that trains, or of FullFineTuning, with the training of the paper's code.

    options: those that are to be other than the paper's, or that it doesn't name, as `clusters`. Private experts train
    for 5 epochs, and for 2, `as_paper(Private, epochs=2)`, where they are clustered: 3 are left to those of PerCluster.
    Raises E-OPTION for an unknown option, and for what isn't the class of such options.
    Source: Ostapenko et al. 2024 (2405.11157) sections 3, 5 and 9, and its code's configurations: batch 16, clip 0.1,
    the mean of the examples' own losses, A's bound 1/sqrt(3 d_in), 1,000 validation examples once an epoch (5,000 for
    Shared, every 10,000 steps of the paper's), Shared 1 epoch without dropout, gates as its code trains PHATGOOSE's.
    Differs: a step's rows are of similar length; float32 adapters over a base in whatever precision it is loaded in.
    """
    if not (isinstance(method, type) and issubclass(method, TrainingOptions)):
        what = f"as_paper: method={quote(method)}, expected the class of a method that trains."
        raise OptionError("E-OPTION", what, "Write as_paper(Private, rank=4).")
    name, known = method.__module__.rpartition(".")[2], sorted(field.name for field in dataclasses.fields(method))
    for option in options:
        if option not in known:
            raise OptionError("E-OPTION", f"{name}: unknown option {option!r}.", known_names(option, known))
    paper = {option: value for option, value in (_ALL | _OWN.get(name, {})).items() if option in known}
    return method(**(paper | options))
