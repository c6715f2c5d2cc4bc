"""One experiment from its name to its report: `evaluate`."""

import dataclasses
import importlib.metadata
import pathlib
import platform

import keras
import tensorflow as tf

import lopt_tf
from lopt_tf.evaluation import experiments, results
from lopt_tf.evaluation.folder import ExperimentFolder
from lopt_tf.optimizers import pretrained
from lopt_tf.reporting import figures, tables
from lopt_tf.reporting import report as reports
from problems import corpus


def evaluate(
    experiment,
    output_dir,
    optimizer=None,
    preset="quick",
    data_dir=None,
    changes=None,
    command="",
    report=None,
):
    """Runs an experiment, or resumes it, and writes its results.

    Args:
        experiment: one of `experiments.NAMES`.
        output_dir: folder for the results.
        optimizer: file, folder or name of a trained optimizer; None for the
            default one, if the experiment requires any.
        preset: "quick" or "full". Defaults to "quick".
        data_dir: folder of TFDS data sets.
        changes: {setting: value} that differ from the preset.
        command: the command line, for the report.
        report: function of one line of text, for progress and results; None
            for silence.

    Returns:
        The `Outcome`.

    Raises:
        ValueError: for a mistake in the arguments, or if the folder holds
            results of other settings.
        ImportError: without matplotlib.
        NoRoomError: if this process cannot compile any more; the same call
            in a new process resumes.
    """
    report = report or (lambda line: None)
    # Better now than after all the runs.
    figures.check_available()
    module = experiments.find(experiment)
    settings = experiments.settings(experiment, preset, changes)
    if module.LEARNED == "never" and optimizer:
        raise ValueError(
            f"The experiment {experiment!r} has its own optimizers, and takes "
            "no --optimizer."
        )
    _check_data_dir(data_dir, experiment, settings)
    is_wanted = module.LEARNED == "required" or optimizer
    learned = pretrained.load_rule(optimizer) if is_wanted else None
    everything = {
        "experiment": experiment,
        **dataclasses.asdict(settings),
        "optimizer": learned and fingerprint(learned),
        "data_dir": data_dir and str(pathlib.Path(data_dir).resolve()),
        "devices": _devices(),
        "threads": tf.config.threading.get_intra_op_parallelism_threads(),
        "versions": versions(),
    }
    folder = ExperimentFolder(output_dir, everything, learned, data_dir, report)
    try:
        outcome = module.run(folder, settings)
        outcome.timings = folder.seconds
        folder.write_settings()
        about = reports.About(
            module.TITLE,
            module.QUESTION,
            {
                "preset": preset,
                **everything,
                "optimizer_from": learned
                and (learned.name or str(learned.path)),
                **folder.facts,
            },
            command,
            results.key_figures(outcome.tables[0].rows),
        )
        results.write(folder.root, outcome, about)
    finally:
        folder.close()
    report(tables.format_table(outcome.tables[0].rows))
    at_edge = [(c.optimizer, c.problem) for c in outcome.curves if c.at_edge]
    for name, problem in dict.fromkeys(at_edge):
        report(
            f"note: the best learning rate of {name} on {problem} is at the "
            "edge of the grid."
        )
    report(f"Results: {output_dir}/report.html and CSV files")
    return outcome


def _check_data_dir(data_dir, experiment, settings):
    if data_dir is None:
        return
    named = [
        getattr(settings, field.name)
        for field in dataclasses.fields(settings)
        if field.name.endswith("problems")
    ]
    if experiment == "generalization" and named == [None]:
        # It takes all networks whose data are there.
        named = [corpus.network_sets(data_dir)]
    names = [name for names in filter(None, named) for name in names]
    corpus.check_data_dir(names, data_dir)


def fingerprint(trained):
    """A short text, the same for a `TrainedRule` of same rule and weights."""
    config = repr(trained.rule.get_config())
    digest = pretrained.digest(trained.weights, config)
    return f"{trained.rule.name} {digest[:12]}"


def _devices():
    """Keras' backend, and the kinds of devices that there are."""
    kinds = {each.device_type for each in tf.config.list_logical_devices()}
    return [keras.backend.backend(), *sorted(kinds)]


def versions():
    """{package: version} of what the numbers come from."""
    packages = ("tensorflow", "keras", "numpy", "scikit-learn")
    return {
        "python": platform.python_version(),
        "lopt_tf": lopt_tf.__version__,
        **{name: importlib.metadata.version(name) for name in packages},
    }
