"""A training by transformers or TRL ends as an expert of a library."""

import os
import shlex
import warnings
from collections.abc import Sequence
from pathlib import Path
from shutil import rmtree
from types import NoneType
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from lorary.disk.reading import as_path
from lorary.disk.writing import disk_errors
from lorary.errors import LibraryError, LoraryError, ModelError, quote
from lorary.library.adapter.expert import Expert, accept
from lorary.library.adapter.opened import open_adapter
from lorary.library.adapter.provenance import Provenance, require_same_base, write_metrics, write_provenance
from lorary.library.base_names import shared_name
from lorary.library.layout import check_free, check_name
from lorary.library.library import Library, names_of_base, standing
from lorary.model.base.named_bases import called, remember_base
from lorary.model.trainers.trained_adapter import TrainedAdapter
from lorary.model.trainers.training_facts import arguments_of, data_of, metrics_of, rows_of
from lorary.options import require, require_each

_CODE = "W-TRAINER"
_MOST_NAMES = 1000


class AddToLibrary(TrainerCallback):
    """Make the adapter that a `Trainer` or an `SFTTrainer` trained an expert of a library, when the training ends.

    expert: what came of it; error: why nothing did. Both are None before the end, and on all processes but the first.
    """

    def __init__(
        self, library: Library | str | os.PathLike[str], name: str, *, tasks: Sequence[str] = (),
        base: str | None = None, licence: str = "", replace: bool = False,
    ) -> None:  # fmt: skip
        """Say which library, which is made if there is none, and what the expert is to be called.

        tasks: that it is trained on, for routers and clusterers that need to know. base: what the adapter calls its
        base; by default what the model was loaded by. replace: an expert of that name.
        Raises E-NAME, E-OPTION.
        """
        require("library", library, (Library, str, os.PathLike), "a library or the path of one")
        require("name", name, str, "the name of an expert")
        require_each("tasks", tasks, str, "names of tasks")
        require("base", base, (str, NoneType), "the name of a base")
        check_name(name)
        self.path = library.path if isinstance(library, Library) else as_path(os.fspath(library))
        self.name, self.tasks, self.base, self.licence, self.replace = name, tuple(tasks), base, licence, replace
        self.expert: Expert | None = None
        self.error: LoraryError | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: object = None, **others: Any
    ) -> None:
        """Refuse before anything is trained what would be refused at the end.

        Raises E-OPTION and E-DEVICE for a model whose adapter can't be written, E-EXISTS, E-BASE, E-FEATURE and what
        else keeps an adapter out of a library, E-PATH, E-PERM.
        """
        self.expert = self.error = None
        trained = TrainedAdapter(model)
        if not state.is_world_process_zero:
            return
        library = self._standing()
        if library is not None:
            require_same_base(trained.fingerprint(), library.base, self.name)
        trained.check(self.name)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: object = None, **others: Any
    ) -> None:
        """Add it. What goes wrong is a warning (W-TRAINER) and stands in `error`: the script goes on.

        The adapter then lies where the warning says, with its provenance.
        """
        if not state.is_world_process_zero:
            return
        kept = _free(Path(args.output_dir or "") / self.name)
        place: Path | None = None
        try:
            trained = TrainedAdapter(model)
            rows = rows_of(state.log_history)
            made = self._provenance(trained, args, state, others.get("train_dataloader"), rows)
            with disk_errors(f"expert {quote(self.name)}"):
                place = trained.write(kept)
                write_provenance(place, made)
                write_metrics(place, rows)
            self.expert = self._add(place, trained, made, rows)
        except Exception as error:  # whatever it is, what was trained must not be lost for it
            self.error = _coded(error, self.name)
            self._tell(self.error, place, args, state)
            return
        rmtree(kept, ignore_errors=True)

    def _standing(self) -> Library | None:
        library = standing(self.path)
        if library is not None and not self.replace:
            check_free(self.name, library.layout.expert_names())
        return library

    def _provenance(self, trained: TrainedAdapter, args: Any, state: Any, loader: Any, rows: Any) -> Provenance:
        return Provenance(
            tasks=self.tasks,
            builder={"name": "trainer", **data_of(loader), "arguments": arguments_of(args)},
            seed=args.seed if args.seed >= 0 else None,
            steps=state.global_step,
            metrics=metrics_of(state, rows),
            base_fingerprint=trained.fingerprint(),
            licence=self.licence,
        )

    def _add(self, place: Path, trained: TrainedAdapter, made: Provenance, rows: Any) -> Expert:
        library = Library.create(self.path, base=made.base_fingerprint, exist_ok=True)
        name = self.base or trained.base_name
        remember_base(name)
        known = [known for known in names_of_base(library) if known]
        stands = self.name in library or self.name in library.bad
        with open_adapter(place) as adapter:
            accepted = accept(adapter, self.name, base=trained.sizes())
            return library.take(
                accepted, provenance=made, base_name=known[0] if known else shared_name(called(name)),
                replace=self.replace and stands, metrics=rows,
            )  # fmt: skip

    def _tell(self, error: LoraryError, place: Path | None, args: Any, state: Any) -> None:
        """Say what went wrong, where the adapter is, and how to add it."""
        saved = Path(args.output_dir or "") / f"checkpoint-{state.global_step}"
        if place is None and saved.is_dir():
            place = saved
        name = "ANOTHER_NAME" if error.code == "E-EXISTS" else self.name
        if place is None:
            hint = f"It is in memory: trainer.save_model(DIR), then `lorary add LIBRARY DIR --as {name}`."
        else:
            line = shlex.join(["lorary", "add", str(self.path), str(place), "--as", name])
            hint = f"The adapter is in {str(place)!r}; to add it: `{line}`."
        what = f"what was trained is no expert {quote(self.name)} yet: {error}"
        warnings.warn(f"warning[{_CODE}] {what} {hint}", RuntimeWarning, stacklevel=3)


def _coded(error: Exception, name: str) -> LoraryError:
    """Give any error a code, so that whoever reads it knows what to look up."""
    if isinstance(error, LoraryError):
        return error
    what = f"expert {quote(name)}: {' '.join(f'{type(error).__name__}: {error}'.split())}"
    if isinstance(error, OSError):
        return LibraryError("E-DISK", what, "See that the disk has room and may be written to.")
    return ModelError("E-TRAINER", what, "Look at what PEFT or the trainer says of it.")


def _free(path: Path) -> Path:
    """Give a path that nothing stands at: what an earlier training left may be all that is left of it."""
    tries = (path.with_name(f"{path.name}-{i}") if i else path for i in range(_MOST_NAMES))
    return next((one for one in tries if not one.exists()), path)
