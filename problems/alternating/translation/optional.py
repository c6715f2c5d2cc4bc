"""Libraries that only translation needs: `pip install lopt-tf[translation]`."""

import importlib
import importlib.util

_ALL = ("tokenizers", "sacrebleu", "seqeval")


def module(name):
    """Imports a library; one clear error if it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise _missing(name.partition(".")[0]) from error


def check_available():
    """The same error, now, for a library that is needed hours later."""
    for name in _ALL:
        if importlib.util.find_spec(name) is None:
            raise _missing(name)


def _missing(name):
    return ValueError(
        f"Translation needs the library {name!r}: install lopt-tf with its "
        "extra, `pip install 'lopt-tf[translation]'` (from a checkout: `pip "
        "install '.[translation]'`)."
    )
