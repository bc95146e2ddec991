"""What every router promises; a new file in routing/routers/ is tested without an edit here."""

import pytest

from lorary.folder import ROUTERS
from lorary.testing.contracts import RouterContract


@pytest.mark.parametrize("name", ROUTERS.names())
class TestRouter(RouterContract):
    @pytest.fixture
    def router(self, name):
        return ROUTERS.load(name)()


@pytest.mark.parametrize(
    "spec",
    [
        "shortlist:n=2",
        "shortlist:of=oracle,then=arrow:top_k=2,n=3",
        "shortlist:of=task_predictor,then=switch,n=3",
        "shortlist:of=(compass:top_k=1),then=spectr,n=3",
        "shortlist:of=phatgoose,then=(compass:top_k=2),n=4",
        "shortlist:of=arrow,then=task_predictor,n=3",
        "shortlist:of=arrow,then=(compass:top_k=1,rest=all),n=3",
        "shortlist:of=arrow,then=(shortlist:of=spectr,then=centroid,n=2),n=4",
    ],
)
class TestShortlist(RouterContract):
    @pytest.fixture
    def router(self, spec):
        return ROUTERS.parse(spec)
