"""An answer as a page to look into."""

from pathlib import Path

from lorary.asking.stream import require_model
from lorary.errors import OptionError
from lorary.model.base.base_model import BaseModel
from lorary.model.routed.routed_model import RoutedModel
from lorary.model.routed.trace import Trace
from lorary.options import require, to_spec
from lorary.pages.files import write_page_file
from lorary.pages.inspector import Told, answer_page
from lorary.using.expert_map import MOST_EXPERTS, map_experts


def inspect(model: RoutedModel, trace: Trace, *, into: str | Path) -> Path:
    """Write a model's trace as a page: each token's experts, their weights along the text and at each site.

    The map of the experts is on it, too, where they are few enough to be told apart. The page loads nothing; an
    earlier page of ours is written over. Raises E-EXISTS for any other file, E-DISK, E-PERM, E-OPTION.
    """
    require_model(model)
    require("trace", trace, Trace, "a trace", "model.explain(prompt) gives one.")
    if isinstance(model, BaseModel):
        raise OptionError("E-OPTION", "the bare base has no experts to tell of.", "Ask a library.")
    experts = map_experts(model.experts) if len(model.names) <= MOST_EXPERTS else None
    told = Told(to_spec(model.router), trace.told(), trace.n_prompt)
    write_page_file(Path(into), answer_page("Which expert each token used", [told], experts))
    return Path(into)
