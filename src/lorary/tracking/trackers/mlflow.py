"""MLflow."""

from dataclasses import dataclass

from lorary.tracking.contract import Tracker, Training

_KEY = "lorary.training"
_MOST = 1000  # metrics that a server takes at once


@dataclass(frozen=True, kw_only=True)
class MLflow(Tracker):
    """Log to MLflow: an experiment for each library, a run for each training. A run that was cut short is made anew."""

    uri: str = ""
    """The tracking server or store; by default what MLFLOW_TRACKING_URI says."""

    def show(self, training: Training) -> bool:
        """Log it, unless a finished run bears its key."""
        from mlflow.entities import Metric
        from mlflow.tracking import MlflowClient

        client = MlflowClient(tracking_uri=self.uri or None)
        found = client.get_experiment_by_name(training.group)
        experiment = found.experiment_id if found else client.create_experiment(training.group)
        for run in client.search_runs([experiment], f"tags.`{_KEY}` = '{training.key}'"):
            if run.info.status == "FINISHED":
                return False
            client.delete_run(run.info.run_id)
        run = client.create_run(experiment, run_name=training.called, tags={_KEY: training.key})
        at = int(1000 * training.at)
        metrics = [
            Metric(name, value, at, int(row["step"]))
            for row in training.rows
            for name, value in training.values(row).items()
        ]
        for start in range(0, len(metrics), _MOST):
            client.log_batch(run.info.run_id, metrics=metrics[start : start + _MOST])
        client.set_terminated(run.info.run_id)
        return True
