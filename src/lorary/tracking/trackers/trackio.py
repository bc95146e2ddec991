"""Trackio."""

from dataclasses import dataclass
from datetime import UTC, datetime

from lorary.tracking.contract import Tracker, Training


@dataclass(frozen=True, kw_only=True)
class Trackio(Tracker):
    """Log to Trackio's store on this machine, which `trackio show` opens: a project for each library."""

    project: str = ""
    """By default called as the library."""

    def show(self, training: Training) -> bool:
        """Log the steps that its run lacks; all of them enter in one transaction."""
        from trackio.sqlite_storage import SQLiteStorage

        project, run = self.project or training.group, training.called
        last = SQLiteStorage.get_max_step_for_run(project, run) if run in SQLiteStorage.get_runs(project) else None
        known = training.rows or [{"step": 0.0}]  # a run is what it logged, if only that it was there
        rows = [row for row in known if last is None or row["step"] > last]
        if not rows:
            return False
        SQLiteStorage.bulk_log(
            project=project,
            run=run,
            metrics_list=[training.values(row) for row in rows],
            steps=[int(row["step"]) for row in rows],
            timestamps=[datetime.fromtimestamp(training.at, UTC).isoformat()] * len(rows),
        )
        return True
