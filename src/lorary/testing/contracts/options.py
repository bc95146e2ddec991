"""What the options of every method promise, wherever they are defined."""

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

from lorary.errors import LoraryError


class OptionsContract:
    """What all methods have in common; the contracts of the points of extension are made of it."""

    @staticmethod
    def check_options(options: Any) -> None:
        """Check that it is a frozen dataclass with a docstring, equal to its copies."""
        cls = type(options)
        again: Any = copy.copy(options)
        assert dataclasses.is_dataclass(options)
        assert again is not options
        assert again == options
        assert hash(again) == hash(options)
        assert cls.__dataclass_params__.frozen
        assert (cls.__doc__ or "").partition("\n")[0].endswith((".", ":"))


def error_of(call: Callable[[], object]) -> LoraryError:
    """Give the error that a call must end in."""
    try:
        call()
    except LoraryError as error:
        return error
    raise AssertionError("it was let through")
