"""What every kind promises; a new file in adapters/kinds/ is tested without an edit here."""

import pytest

from lorary.folder import KINDS
from lorary.testing.contracts import KindContract


@pytest.mark.parametrize("name", KINDS.names())
class TestKind(KindContract):
    @pytest.fixture
    def kind(self, name):
        return KINDS.load(name)()
