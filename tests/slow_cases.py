"""Cases of a parametrized test, the slowest of them marked."""

import pytest


def marked(cases, *slow):
    """The cases; those that are named are run with the slow tests."""

    def parameter(case):
        values = case if isinstance(case, tuple) else (case,)
        return pytest.param(*values, marks=pytest.mark.slow)

    return [parameter(case) if case in slow else case for case in cases]
