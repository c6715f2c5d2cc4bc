"""Runs pytest on its arguments: the main program of Bazel's test targets."""

import sys

import pytest

if __name__ == "__main__":
    sys.exit(pytest.main(["-n0", *sys.argv[1:]]))
