"""Cases of a parametrized test, the slowest of them marked."""

import pytest


def marked(cases, *slow):
    """The cases; those that are named are run with the slow tests."""
    return [
        pytest.param(case, marks=pytest.mark.slow) if case in slow else case
        for case in cases
    ]
