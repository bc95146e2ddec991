"""The seeds that a study is repeated with."""

from collections.abc import Sequence

from lorary.errors import OptionError
from lorary.options import MAX_SEED, require_count


def require_seeds(what: str, seeds: Sequence[int]) -> None:
    """Refuse seeds that some step of a study would refuse, hours later. Raises E-OPTION, also if there are none."""
    if not seeds:
        raise OptionError("E-OPTION", f"{what}: there are no seeds.", "Give at least one, as 42.")
    for seed in seeds:
        require_count(f"{what}: seed", seed, least=0)
        if seed > MAX_SEED:
            raise OptionError("E-OPTION", f"{what}: seed={seed}, expected at most {MAX_SEED}.")
