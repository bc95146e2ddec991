"""Weights & Biases."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lorary.hashing import short_key
from lorary.tracking.contract import Tracker, Training

_SHOWN = "shown-by-lorary"


@dataclass(frozen=True, kw_only=True)
class Wandb(Tracker):
    """Log to Weights & Biases: a project for each library, a run for each training.

    Offline runs lie in `into`/wandb until `wandb sync` sends them; one that was cut short is made anew.
    """

    project: str = ""
    """By default called as the library."""
    mode: Literal["", "online", "offline"] = ""
    """By default what WANDB_MODE says."""
    into: str = "runs"
    """Where its files are."""

    def show(self, training: Training) -> bool:
        """Log the steps that its run lacks, unless it is here and whole."""
        import wandb

        project = self.project or training.group
        key = short_key(project, training.key)  # what lies here is of all projects
        for folder in Path(self.into, "wandb").glob(f"*run-*-{key}"):
            if (folder / _SHOWN).exists():
                return False
            if folder.name.startswith("offline"):
                shutil.rmtree(folder)
        Path(self.into).mkdir(parents=True, exist_ok=True)
        run = wandb.init(
            project=project, id=key, name=training.called, dir=self.into, resume="allow",
            mode=self.mode or None, reinit="create_new", settings=wandb.Settings(silent=True, console="off"),
        )  # fmt: skip
        start = run.step  # of a run that its server knows, the first step that it lacks
        for row in training.rows:
            if row["step"] >= start:
                run.log(training.values(row), step=int(row["step"]))
        folder = Path(run.dir).parent
        run.finish()
        (folder / _SHOWN).touch()
        return True
