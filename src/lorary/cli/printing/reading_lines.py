"""How far the first reading of large files of tasks is, on stderr."""


class ReadingLines:
    """Hears of bytes; tells megabytes, by lines of their own for each reading."""

    def __init__(self) -> None:
        self._last = 0

    def __call__(self, done: int, total: int) -> None:
        """Hear how many bytes are read, and how many there are."""
        from lorary.cli.printing.console import lines

        if done < self._last or not self._last:
            self._tell = lines("reading tasks, MB", per=1_000_000)
        self._last = max(1, done)
        self._tell(done, total)
