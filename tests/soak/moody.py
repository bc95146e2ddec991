"""A builder that processes of the soak can import: it trains as Private does, unless in the mood for something."""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from lorary.building.builders.private import Private


@dataclass(frozen=True, kw_only=True)
class Moody(Private):
    """Die, hang, raise, or run out of memory in step 3 of the expert `victim`, so many `times`, counted in `marker`."""

    mood: str = ""
    victim: str = ""
    marker: str = ""
    times: int = 0

    def packs(self, jobs, base):
        """Each alone."""
        return [[job] for job in jobs]

    def run(self, pack, base, work, report):
        """Train, moodily."""

        def hear(step):
            report(step)
            if (step.job, step.step) == (self.victim, 3):
                self._give_way()

        return super().run(pack, base, work, hear)

    def _give_way(self):
        marker = Path(self.marker)
        if marker.exists() and marker.stat().st_size >= self.times:
            return
        with marker.open("a") as file:
            file.write(".")
        match self.mood:
            case "die":
                os.kill(os.getpid(), signal.SIGKILL)
            case "hang":
                time.sleep(1000)
            case "memory":
                raise MemoryError
            case "raise":
                raise RuntimeError("moody")
