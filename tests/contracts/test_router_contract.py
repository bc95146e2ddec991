"""What every router promises; a new file in routing/routers/ is tested without an edit here."""

import pytest

from lorary.folder import ROUTERS
from lorary.testing.contracts import RouterContract


@pytest.mark.parametrize("name", ROUTERS.names())
class TestRouter(RouterContract):
    @pytest.fixture
    def router(self, name):
        return ROUTERS.load(name)()
