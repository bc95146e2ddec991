"""How long and how fast experts train: the options of everything that does."""

from dataclasses import dataclass

from lorary.building.limits import check_positive, check_share
from lorary.errors import OptionError
from lorary.options import Options, name_of


@dataclass(frozen=True, kw_only=True)
class TrainingOptions(Options):
    """Options of everything that trains.

    steps: optimiser steps; None = `epochs` over the data. batch_size: examples per step. lr: peak learning rate;
    warm-up over the first `warmup` of the steps, then linear decay to 0. clip: largest norm of the gradient; a large
    one, as 1e9, never clips.
    n_evaluations: how often the validation loss is measured, on at most max_valid examples; the best weights are kept.
    patience: stop after so many evaluations in a row that aren't better than the best; None = never.
    pass_tokens: most padded tokens that go through the base at once; a step of more is made in several passes whose
    gradients are added up (equal up to rounding), which bounds memory. A row that alone is longer is a pass of its own.
    Source: Ostapenko et al. 2024 (2405.11157) section 9 and its code's configurations: lr 1e-4, AdamW without weight
    decay, warm-up 6 %, clip 0.1, 5 epochs, batch 16.
    Differs: clip 1.0, which small models with few steps need; batch 8.
    """

    steps: int | None = None
    epochs: float = 5.0
    batch_size: int = 8
    lr: float = 1e-4
    warmup: float = 0.06
    clip: float = 1.0
    n_evaluations: int = 4
    max_valid: int = 64
    patience: int | None = None
    pass_tokens: int = 1024
    seed: int = 42

    def __post_init__(self) -> None:
        """Refuse options that have no meaning."""
        super().__post_init__()
        positive = ("steps", "epochs", "batch_size", "lr", "clip", "n_evaluations", "max_valid", "patience")
        check_positive(self, *positive, "pass_tokens")
        check_share(self, "warmup")
        dropout = getattr(self, "dropout", 0.0)
        if not 0 <= dropout < 1:
            raise OptionError("E-OPTION", f"{name_of(self)}: dropout={dropout}, expected 0 or more, below 1.")
