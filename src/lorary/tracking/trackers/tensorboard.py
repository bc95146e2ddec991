"""TensorBoard."""

from dataclasses import dataclass
from pathlib import Path

from lorary.disk.arrival import arriving
from lorary.tracking.contract import Tracker, Training


@dataclass(frozen=True, kw_only=True)
class TensorBoard(Tracker):
    """Write event files, which `tensorboard --logdir DIR` shows: a directory for each training, there whole or not."""

    into: str = "runs/tensorboard"
    """The directory that all are in."""

    def show(self, training: Training) -> bool:
        """Write it, unless its directory is there."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        target = Path(self.into) / training.group / training.called
        if target.exists():
            return False
        with arriving(target) as stage:
            writer = EventFileWriter(str(stage))
            for row in training.rows:
                values = [Summary.Value(tag=tag, simple_value=value) for tag, value in training.values(row).items()]
                writer.add_event(Event(step=int(row["step"]), wall_time=training.at, summary=Summary(value=values)))
            writer.close()
        return True
