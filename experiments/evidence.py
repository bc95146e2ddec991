"""The study of evidence, whose results stand in docs/evidence.md: which part of the compass wins what, and where.

    python experiments/evidence.py --data DIR --into DIR --sizes 16,32,64 --seeds 42,43,44 --n-score 8

DIR of --data holds sni, p3, induction and zeroshot, as evidence_tasks.py reads them. LIST: numbers or names, separated
by commas. Prints its tables. Interrupted, the same command resumes.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from evidence_runs import OTHERS, ROUTERS, Study, run_study
from evidence_table import make_lines, summarise, to_markdown
from evidence_tasks import read_study_tasks

from lorary.errors import LoraryError
from lorary.model.base.base_model import load_base
from lorary.model.base.embedded_needs import EMBEDDED


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what the command line asks for, or the rest of it."""
    given = _parser().parse_args(arguments)
    study = Study(given.sizes, given.seeds, given.others, given.arms, given.n_score, given.n_answer)
    tasks = read_study_tasks(given.data)
    base = load_base(given.base, device=given.device, dtype=given.dtype)
    lines = make_lines(run_study(study, base, tasks, given.into, _say), tasks)
    if given.json:
        print(json.dumps([vars(line) for line in lines], indent=2, default=str))
    else:
        print(to_markdown(lines), summarise(lines), sep="\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, metavar="DIR", required=True, help="its collections of tasks")
    parser.add_argument("--into", type=Path, metavar="DIR", default=Path("study"), help="experts, libraries and runs")
    _add_list(parser, "--arms", str, "routers", f"what to compare: {', '.join(ROUTERS)}")
    _add_list(parser, "--sizes", int, "16", "experts in a library")
    _add_list(parser, "--seeds", int, "42", "seeds of the training")
    _add_list(parser, "--others", str, "", f"further libraries: {', '.join(OTHERS)}")
    parser.add_argument("--n-score", type=int, metavar="N", default=16, help="test examples per task for the loss")
    parser.add_argument("--n-answer", type=int, metavar="N", default=8, help="test examples per task for Rouge-L")
    parser.add_argument("--base", metavar="NAME", default=EMBEDDED)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--json", action="store_true")
    return parser


def _add_list(
    parser: argparse.ArgumentParser, flag: str, kind: Callable[[str], object], default: str, about: str
) -> None:
    def read(text: str) -> tuple[object, ...]:
        return tuple(kind(part.strip()) for part in text.split(",") if part.strip())

    read.__name__ = f"list of {kind.__name__}"  # as argparse calls it in its messages
    parser.add_argument(flag, type=read, metavar="LIST", default=default, help=f"{about}; {default or 'none'}")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        main()
    except LoraryError as error:
        sys.exit(str(error))
