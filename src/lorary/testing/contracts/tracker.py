"""What a tracker promises: each training once, whoever shows it, and however often."""

from dataclasses import replace

from lorary.testing.contracts.options import OptionsContract
from lorary.tracking.contract import Tracker, Training

_ROWS = ({"step": 1.0, "loss": 2.0}, {"step": 2.0, "loss": 1.5, "valid_loss": 1.75})
_ONE = Training("library", "poems", "a" * 64, 1.7e9, _ROWS)


class TrackerContract(OptionsContract):
    """What a tracker promises. Needs `tracker`, which shows into a place that is empty at first."""

    def test_a_training_is_shown_once(self, tracker: Tracker) -> None:
        """Also by another object, as in a later process."""
        assert tracker.show(_ONE)
        assert not tracker.show(_ONE)
        assert not replace(tracker).show(_ONE)

    def test_a_later_training_of_the_name_is_another(self, tracker: Tracker) -> None:
        """Its key tells."""
        assert tracker.show(_ONE)
        assert tracker.show(replace(_ONE, key="b" * 64))

    def test_trainings_of_two_libraries_stay_apart(self, tracker: Tracker) -> None:
        """Though they have one name and one key."""
        assert tracker.show(_ONE)
        assert tracker.show(replace(_ONE, group="another"))

    def test_a_training_without_a_row_is_shown_too(self, tracker: Tracker) -> None:
        """Its expert is there all the same."""
        assert tracker.show(replace(_ONE, rows=()))
        assert not tracker.show(replace(_ONE, rows=()))
