"""The tasks that the tables of docs/how_to/choose.md come from."""

import re
from pathlib import Path

from lorary.studies.subject import choose_tasks
from lorary.tasks.builtin import builtin_heldout

SCRIPT = Path(__file__).parents[3] / "experiments" / "builders.sh"


def test_every_held_out_task_has_two_relatives():
    only = re.findall(r"--only (\w+)", SCRIPT.read_text(encoding="utf-8"))
    tasks, heldout = choose_tasks(None, (), only)
    assert list(heldout) == list(builtin_heldout())
    families = [name.partition("_")[0] for name in tasks]
    assert {family: families.count(family) for family in families} == {
        name.partition("_")[0]: 2 for name in builtin_heldout()
    }
