"""What every study promises; a new file in studies/questions/ is tested without an edit here."""

import dataclasses
import io

import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from lorary.folder import STUDIES
from lorary.studies.contract import Study, Subject
from lorary.studies.scales import OPTIONS
from lorary.testing.contracts.study import StudyContract
from lorary.testing.pico import random_library

CHEAP = {
    **OPTIONS["tiny"], "shares": (0.5,), "steps": 1, "new_steps": 1, "n_fit": 2, "max_new_tokens": 1, "n_pairs": 2,
    "k": 2, "ks": (2,), "ways": ("embeddings:n_examples=2", "mbc"), "epochs": 0.25, "dimensions": (2,),
}  # fmt: skip
"""Options by which a study is done in seconds, of those that it has."""
FEW = {
    "builders": {"libraries": ("gated", "merge_ties"), "adaptations": ("pi_tuning",)},
    "upstream": {"libraries": ("gated",)},
    "zero_shot": {"libraries": ("shared", "poly")},
    "adaptation": {"methods": ("shared", "mbc-poly", "mhr")},
    "ablations": {"top_k": (1,), "temperatures": (), "ranks": (16,), "sizes": (0.5,)},
}
"""Of some studies as few parts as show how they are made."""


FAST = ("similarity", "sni")
"""Run, killed and resumed in the fast tests too: one of measures, one of scores."""


class _Given:
    @pytest.fixture(autouse=True)
    def _drawn_once(self, monkeypatch):
        """Draw each figure once, as PNG: two thirds of the time would go into drawing it again, and as SVG."""
        draw, drawn = Figure.savefig, {}

        def draw_once(figure, into, *, format, **options):
            words = tuple(text.get_text() for text in figure.findobj(Text))  # names and numbers among them
            if format == "png" and words not in drawn:
                png = io.BytesIO()
                draw(figure, png, format=format, **options)
                drawn[words] = png.getvalue()
            into.write(drawn[words] if format == "png" else b"<svg></svg>")

        monkeypatch.setattr(Figure, "savefig", draw_once)

    @pytest.fixture
    def study(self, name):
        cls = STUDIES.load(name)
        known = {field.name for field in dataclasses.fields(cls)}
        return cls(**{key: value for key, value in CHEAP.items() if key in known}, **FEW.get(name, {}))

    @pytest.fixture
    def subject(self, base, toy, tmp_path_factory):
        own = ["copy", "swap", "upper"]
        library = random_library(tmp_path_factory.mktemp("study") / "lib", base, own, ranks=2)
        return Subject(toy.only(own), toy.only(["first"]), library)


@pytest.mark.parametrize("name", STUDIES.names())
class TestStudy(_Given, StudyContract):
    test_the_plan_lists_what_run_does_once = test_kill_and_resume_is_uninterrupted = None  # below

    def test_it_is_a_study(self, study, name):
        assert isinstance(study, Study)
        assert type(STUDIES.parse(name)) is type(study)
        assert 20 < len(STUDIES.sentence(name)) < 120


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in STUDIES.names()]
)
class TestRunStudy(_Given):
    test_the_plan_lists_what_run_does_once = StudyContract.test_the_plan_lists_what_run_does_once
    test_kill_and_resume_is_uninterrupted = StudyContract.test_kill_and_resume_is_uninterrupted
