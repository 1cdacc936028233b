"""The tests; pytest explains what their support asserts, too."""

import pytest

pytest.register_assert_rewrite("tests.support")
