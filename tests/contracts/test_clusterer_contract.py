"""What every clusterer promises; a new file in building/clusterers/ is tested without an edit here."""

import pytest

from lorary.folder import CLUSTERERS
from lorary.testing.contracts import ClustererContract


@pytest.mark.parametrize("name", CLUSTERERS.names())
class TestClusterer(ClustererContract):
    @pytest.fixture
    def clusterer(self, name):
        return CLUSTERERS.load(name)()
