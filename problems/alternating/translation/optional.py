"""Libraries that only translation needs: `pip install lopt-tf[translation]`."""

import importlib


def module(name):
    """Imports a library; one clear error if it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ValueError(
            f"Translation needs the library {name.partition('.')[0]!r}: "
            "install lopt-tf with its extra, `pip install "
            "'lopt-tf[translation]'` (from a checkout: `pip install "
            "'.[translation]'`)."
        ) from error
