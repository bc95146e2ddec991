"""Packages that lorary works without: what needs them, and the command that brings what is missing."""

import importlib.metadata
import importlib.util
import sys
from collections.abc import Mapping, Sequence

from packaging.requirements import Requirement

from lorary.errors import OptionError

EXTRAS: Mapping[str, tuple[str, ...]] = {
    "demo": ("accelerate>=1.12", "gguf>=0.17"),
    "data": ("pyarrow>=21",),
    "gguf": ("gguf>=0.17",),
    "hub": ("datasets>=4.7",),  # before 4.0 it could run code that a data set brings
    "eval": ("lm_eval>=0.4.13",),
    "lorahub": ("nevergrad>=1.0.12",),
    "serve": ("fastapi>=0.165", "prometheus_client>=0.26", "uvicorn>=0.54"),
    "ray": ("ray>=2.54",),
    "replicas": ("ray[serve]>=2.54",),
    "tensorboard": ("tensorboard>=2.21",),
    "wandb": ("wandb>=0.31",),
    "mlflow": ("mlflow>=3.17",),
    "trackio": ("trackio>=0.43",),
}
"""What we import of each extra in pyproject.toml, with its bounds there."""


def require_extra(extra: str, what: str) -> None:
    """Raise E-EXTRA, naming everything at once, unless this environment has what an extra asks for. Imports nothing.

    what: stands before "needs" in the message.
    """
    if lacking := missing(extra):
        raise OptionError("E-EXTRA", f"{what} needs {in_words(lacking)}.", f"Run: {install(lacking)}.")


def missing(extra: str) -> list[str]:
    """List the requirements of an extra that this environment doesn't meet."""
    return [line for line in EXTRAS[extra] if not _meets(Requirement(line))]


def in_words(requirements: Sequence[str]) -> str:
    """Say what is needed and what was found, as in: gguf>=0.17, found none."""
    found = {line: _found(Requirement(line)) for line in requirements}
    return " and ".join(f"{line}, found {version}" for line, version in found.items())


def install(requirements: Sequence[str]) -> str:
    """Give the command that installs packages."""
    return f"pip install {' '.join(map(quoted, requirements))}"


def quoted(argument: object) -> str:
    """Quote an argument for a shell, on any system."""
    return f'"{argument}"'


def version_of(package: str) -> str | None:
    """Give the version that is installed, if one is."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _found(requirement: Requirement) -> str:
    """Say which version of a package is here, and what of its extras isn't."""
    version = (version_of(requirement.name) if _is_here(requirement.name) else None) or "none"
    lacking = _lacks(requirement) if version != "none" else []
    return f"{version} without {', '.join(lacking)}" if lacking else version


def _meets(requirement: Requirement) -> bool:
    """Tell whether a package is here with its extras, and not too old; one that bears no version is taken as it is."""
    name, version = requirement.name, version_of(requirement.name)
    fits = version is None or requirement.specifier.contains(version, prereleases=True)
    return _is_here(name) and fits and not _lacks(requirement)


def _lacks(requirement: Requirement) -> list[str]:
    """List the packages that the extras of a requirement ask for and that aren't here."""
    if not requirement.extras:
        return []
    asked = map(Requirement, importlib.metadata.requires(requirement.name) or ())
    of_extras = [r for r in asked if r.marker and any(r.marker.evaluate({"extra": one}) for one in requirement.extras)]
    return sorted({r.name for r in of_extras if version_of(r.name) is None})


def _is_here(name: str) -> bool:
    """Tell whether a package can be imported, without importing it."""
    return sys.modules[name] is not None if name in sys.modules else importlib.util.find_spec(name) is not None
