"""Write constraints that pin what pyproject.toml asks for at the lowest version it takes: `make test-lowest` uses them.

What `--except` names is left out: torch, say, whose older builds are gigabytes on some platforms.
"""

import argparse
import tomllib
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"


def lowest(extras: list[str], left_out: list[str]) -> list[str]:
    """List `name==version` for the dependencies and those of some extras. Every one must have one lower bound."""
    bounds: dict[str, str] = {}
    for requirement in _asked(extras):
        versions = [part.version for part in requirement.specifier if part.operator == ">="]
        if len(versions) != 1:
            raise SystemExit(f"{PYPROJECT.name}: {requirement} has {len(versions)} lower bounds, expected 1.")
        name = canonicalize_name(requirement.name)
        if bounds.setdefault(name, versions[0]) != versions[0]:
            raise SystemExit(f"{PYPROJECT.name}: {name} has the lower bounds {bounds[name]} and {versions[0]}.")
    return [f"{name}=={version}" for name, version in sorted(bounds.items()) if name not in left_out]


def _asked(extras: list[str]) -> Iterator[Requirement]:
    """Give what the project asks for; an extra may name others, as "lorary[demo,data]"."""
    project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
    waiting = list(project["dependencies"])
    waiting += [line for extra in extras for line in project["optional-dependencies"][extra]]
    while waiting:
        requirement = Requirement(waiting.pop())
        if requirement.name == project["name"]:
            waiting += [line for extra in requirement.extras for line in project["optional-dependencies"][extra]]
        else:
            yield requirement


def main() -> None:
    """Print the constraints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("extras", nargs="*", help="optional dependencies to count in")
    parser.add_argument("--except", dest="left_out", nargs="*", default=[], help="packages to leave alone")
    asked = parser.parse_args()
    print("\n".join(lowest(asked.extras, [canonicalize_name(name) for name in asked.left_out])))


if __name__ == "__main__":
    main()
