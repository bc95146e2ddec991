"""Small tasks that come with lorary; README.md here is their card."""

from pathlib import Path

from lorary.tasks.read import read_tasks
from lorary.tasks.task import Tasks

_FOLDER = Path(__file__).parent


def builtin_tasks() -> Tasks:
    """Read the twelve built-in tasks to train on: 220 train, 30 valid and 50 test examples each."""
    return read_tasks(_FOLDER / "to_train")


def builtin_heldout() -> Tasks:
    """Read the four built-in tasks to hold out: relatives of those to train on, of the same sizes."""
    return read_tasks(_FOLDER / "held_out")
