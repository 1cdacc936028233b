"""The tests; what their support asserts is told in full, too."""

import pytest

pytest.register_assert_rewrite("tests.support")
