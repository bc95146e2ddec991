"""Tables that fit the terminal they are printed on."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table

_AMPLE = 100_000  # columns; more than any table takes


@dataclass(frozen=True)
class FirstThatFits:
    """One thing laid out in several ways, widest first: the first that fits uncut is shown, else the last.

    A way is one table, or several below one another.
    """

    ways: Sequence[Sequence[Table]]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        ample = options.update_width(_AMPLE)
        widths = [
            max((Measurement.get(console, ample, table).maximum for table in way), default=0) for way in self.ways
        ]
        fitting = [way for way, width in zip(self.ways, widths, strict=True) if width <= options.max_width]
        yield from (fitting or self.ways[-1:])[0]
