"""How far the builds of a library are, from the disk alone. Imports no torch."""

from pathlib import Path

from lorary.library.layout import find_layout
from lorary.work.survey import Survey, survey


def survey_library(library: Path | str) -> Survey:
    """Look at a library's directory: jobs of plans that aren't done, and experts that stand.

    Raises E-LIBRARY for a directory that is no library.
    """
    layout = find_layout(Path(library).absolute())
    return survey(layout.root, layout.expert_names())
