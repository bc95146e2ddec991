import pytest

pytest.register_assert_rewrite("lorary.testing.contracts")
