"""Builders that processes of the tests can import: slow enough to be killed in the middle, or deadly."""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import torch

from lorary.building.builders.private import Private
from lorary.building.training import loop as train


@dataclass(frozen=True, kw_only=True)
class Careful(Private):
    """Train each expert alone, with a checkpoint at every step; `pause_s` after each."""

    pause_s: float = 0.0

    def packs(self, jobs, base):
        return [[job] for job in jobs]

    def run(self, pack, base, work, report):
        def slowly(step):
            report(step)
            time.sleep(self.pause_s)

        with patch.object(train, "CHECKPOINT_EVERY_S", 0.0):  # this may be the process of the tests
            return super().run(pack, base, work, slowly)


@dataclass(frozen=True, kw_only=True)
class Deadly(Careful):
    """Kill the process that trains the expert `victim`."""

    victim: str = ""

    def run(self, pack, base, work, report):
        if pack[0].name == self.victim:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().run(pack, base, work, report)


@dataclass(frozen=True, kw_only=True)
class Hanging(Careful):
    """Wait for ever in step 5 of the expert `victim`, unless the file `marker` tells that this happened before."""

    victim: str = ""
    marker: str = ""

    def run(self, pack, base, work, report):
        def hang(step):
            report(step)
            if (step.job, step.step) == (self.victim, 5) and not Path(self.marker).exists():
                Path(self.marker).touch()
                wait_for_ever()

        return super().run(pack, base, work, hang)


def wait_for_ever():
    while True:
        time.sleep(1)


@dataclass(frozen=True, kw_only=True)
class Watched(Careful):
    """Train experts by twos, and note in $THREADS_SEEN how many threads each pack has."""

    def packs(self, jobs, base):
        return [list(jobs[i : i + 2]) for i in range(0, len(jobs), 2)]

    def run(self, pack, base, work, report):
        (Path(os.environ["THREADS_SEEN"]) / pack[0].name).write_text(str(torch.get_num_threads()))
        return super().run(pack, base, work, report)
