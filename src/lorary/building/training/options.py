"""How long and how fast experts train: the options of everything that does."""

from dataclasses import dataclass, field
from typing import Literal

from lorary.building.limits import check_positive, check_share
from lorary.building.training.measure import Measure
from lorary.errors import OptionError
from lorary.hashing import SKIP_DEFAULT
from lorary.options import Options, name_of


@dataclass(frozen=True, kw_only=True)
class TrainingOptions(Options):
    """Options of everything that trains.

    A step of more than `pass_tokens` is made in several passes whose gradients are added up (equal up to rounding),
    which bounds memory. A row that alone is longer is a pass of its own.
    Source: Ostapenko et al. 2024 (2405.11157) section 9 and its code's configurations: lr 1e-4, AdamW without weight
    decay, warm-up 6 %, clip 0.1, 5 epochs, batch 16.
    Differs: clip 1.0, which small models with few steps need; batch 8; the first step of the warm-up isn't lost
    (`warmup_from`); 64 validation examples instead of 1,000, measured four times in all instead of once an epoch; a
    step's rows are of similar length. `as_paper` gives the paper's values.
    """

    steps: int | None = None
    """Optimiser steps of each training run; None: `epochs` over its data."""
    epochs: float = 5.0
    """Passes over the data where `steps` is None."""
    batch_size: int = 8
    """Examples in each step."""
    loss: Measure = field(default="tokens", metadata=SKIP_DEFAULT)
    """A step's loss, and validation's: the mean over all tokens, or the mean of the examples' own means."""
    lr: float = 1e-4
    """Peak learning rate of AdamW, which warms up and then decays linearly to 0."""
    warmup: float = 0.06
    """Share of the steps in which the learning rate rises."""
    warmup_from: Literal["first", "zero"] = field(default="first", metadata=SKIP_DEFAULT)
    """Rate of the first step: the first part of the rise, or zero, as transformers' schedule has it."""
    clip: float = 1.0
    """Largest norm of the gradient; a large one, as 1e9, never clips."""
    n_evaluations: int = 4
    """How often the validation loss is measured."""
    keep: Literal["best", "best_or_start", "last"] = field(default="best", metadata=SKIP_DEFAULT)
    """The weights to keep: those of the best validation, with or without those before step 1, or the last."""
    max_valid: int = 64
    """Validation examples that the loss is measured on, at most."""
    patience: int | None = None
    """Stop after so many evaluations in a row without a new best; None: never."""
    pass_tokens: int = 1024
    """Padded tokens that go through the base at once; a larger step is made in several passes."""
    seed: int = 42
    """Seed of all that is drawn at random."""

    def __post_init__(self) -> None:
        """Refuse options that have no meaning."""
        super().__post_init__()
        positive = ("steps", "epochs", "batch_size", "lr", "clip", "n_evaluations", "max_valid", "patience")
        check_positive(self, *positive, "pass_tokens")
        check_share(self, "warmup")
        dropout = getattr(self, "dropout", 0.0)
        if not 0 <= dropout < 1:
            raise OptionError("E-OPTION", f"{name_of(self)}: dropout={dropout}, expected 0 or more, below 1.")
