"""How a command lets answers be chosen: options that all that answer have."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from lorary.cli.options.groups import Group

if TYPE_CHECKING:
    from lorary.evaluation.sampling import Sampling


@dataclass(frozen=True)
class HowToSample(Group):
    """How the tokens of answers are chosen."""

    temperature: Annotated[
        float,
        typer.Option(
            min=0.0, metavar="T", help="0: always the likeliest token; 1: sample from the model's probabilities."
        ),
    ] = 0.0
    top_p: Annotated[
        float,
        typer.Option(
            min=0.0, max=1.0, metavar="P", help="Sample from the likeliest tokens that together have this probability."
        ),
    ] = 1.0
    top_k: Annotated[int, typer.Option(min=0, metavar="K", help="Sample from the K likeliest tokens; 0: from all.")] = 0
    seed: Annotated[int | None, typer.Option(metavar="N", help="Seed of the sampling; needs --temperature.")] = None

    def sampling(self, *, seed: int | None = None) -> "Sampling":
        """Make the sampling. `seed`: what stands for one that isn't given. Raises a usage error for what is in vain."""
        from lorary.evaluation.sampling import Sampling

        if not self.temperature:
            for name, is_given in {
                "--top-p": self.top_p < 1,
                "--top-k": self.top_k,
                "--seed": self.seed is not None,
            }.items():
                if is_given:
                    raise typer.BadParameter("nothing is drawn without --temperature above 0.", param_hint=name)
        return Sampling(self.temperature, self.top_p, self.top_k, seed if self.seed is None else self.seed)
