"""PNG figures through matplotlib, which is an extra of the package."""

from lopt_tf import folders


def check_available():
    """Raises ImportError, with advice, if there is no matplotlib."""
    pyplot()


def pyplot():
    """Matplotlib's `pyplot`, drawing into files.

    Raises:
        ImportError: without matplotlib; the message says how to install it.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise ImportError(
            "Plots need matplotlib: pip install 'lopt-tf[plots]'"
        ) from error
    matplotlib.use("Agg")
    import matplotlib.pyplot

    return matplotlib.pyplot


def new(size, *shape, **options):
    """A figure of a size in inches and its axes; see `pyplot`."""
    options = {"figsize": size, "layout": "constrained", **options}
    return pyplot().subplots(*shape, **options)


def save(figure, path):
    """Writes a figure as a PNG file, whole or not at all, and closes it."""
    # Without the version of the program the same plot is the same file.
    about = {"Software": None}
    with folders.whole(path) as file:
        figure.savefig(file, format="png", dpi=120, metadata=about)
    pyplot().close(figure)
