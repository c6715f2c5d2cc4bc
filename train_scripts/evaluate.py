"""Checks what a meta-trained optimizer can do, one experiment at a time.

    python -m train_scripts.evaluate --experiment=generalization \
        --preset=quick --optimizer=DIR/optimizer.npz --output_dir=RESULTS

Baselines (Adam, RMSProp, momentum) get the best learning rate of a grid that
grows until its best is inside, chosen on runs of their own. RESULTS gets
curves.csv (every step of every run), runs.csv, summary.csv and further tables,
plots, and report.html, one page with everything. Stop it at any moment: the
same command goes on, and does no run twice. All CSV files but timings.csv are
the same whenever the same command is run on the same machine.

  training_set    problems of meta-training's corpus
  generalization  networks that were never trained on
  learning_rates  initial learning rates over six orders of magnitude
  ablation        meta-trains and tests variants without the paper's ideas
  wall_clock      time per step relative to Adam, and memory
  long_runs       10,000 steps and more
  failures        meta-trains a coordinatewise RNN, and shows where it fails
  problems        problems of your choice (--problems)
  digits          Keras networks on scikit-learn's digits, through fit
"""

import dataclasses
import shlex
import sys

from absl import flags

from train_scripts import command_line

EXPERIMENTS = (
    "training_set",
    "generalization",
    "learning_rates",
    "ablation",
    "wall_clock",
    "long_runs",
    "failures",
    "problems",
    "digits",
)
FLAGS = flags.FlagValues()
flags.DEFINE_enum(
    "experiment", None, EXPERIMENTS, "Which one; see above.", flag_values=FLAGS
)
flags.DEFINE_enum(
    "preset",
    "quick",
    ["quick", "full"],
    "quick: minutes, one problem of each set. full: hours to days.",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "output_dir", None, "Folder for the results.", flag_values=FLAGS
)
flags.DEFINE_string(
    "optimizer",
    None,
    "Trained optimizer: a file, the folder of a meta-training, or the name "
    "of shipped weights; the default ones if not given. ablation needs none; "
    "wall_clock and failures do without.",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "data_dir",
    None,
    "Folder of TFDS data sets: MNIST's problems take part where it is "
    "prepared.",
    flag_values=FLAGS,
)
_PRESETS = "The preset's if not given."
flags.DEFINE_list(
    "problems",
    None,
    "Problems to test on: sets (bowl_problems, recurrent) or single ones "
    f"(bowl_problems.2). {_PRESETS}",
    flag_values=FLAGS,
)
flags.DEFINE_list(
    "variants",
    None,
    f"With --experiment=ablation: which variants. {_PRESETS}",
    flag_values=FLAGS,
)
_NUMBERS = {
    "steps": "Inner steps; Adam runs four times as long.",
    "seeds": "Runs of each optimizer.",
    "tuning_seeds": "Runs of each learning rate of the grid.",
    "epochs": "With --experiment=digits: epochs.",
    "meta_updates": "With ablation and failures: of each meta-training.",
    "repetitions": "With --experiment=wall_clock: timings of each.",
}
for _name, _help in _NUMBERS.items():
    flags.DEFINE_integer(
        _name, None, f"{_help} {_PRESETS}", lower_bound=1, flag_values=FLAGS
    )
flags.DEFINE_bool(
    "untrained",
    None,
    "With problems and digits: also the optimizer before meta-training. "
    f"{_PRESETS}",
    flag_values=FLAGS,
)
command_line.define_threads(FLAGS)
command_line.define_compile_cache(FLAGS)


def evaluate(
    experiment,
    output_dir,
    optimizer=None,
    preset="quick",
    data_dir=None,
    changes=None,
    command="",
):
    """Runs an experiment, or goes on with it, and writes its results.

    Args:
        experiment: one of `EXPERIMENTS`.
        output_dir: folder for the results.
        optimizer: file, folder or name of a trained optimizer.
        preset: "quick" or "full".
        data_dir: folder of TFDS data sets.
        changes: {setting: value} that differ from the preset.
        command: the command line, for the report.

    Returns:
        The `Outcome`.

    Raises:
        ValueError: for a mistake in the arguments, or if the folder holds
            results of other settings.
    """
    import tensorflow as tf

    from lopt_tf.evaluation import experiments, results, study
    from lopt_tf.reporting import figures, report, tables

    # Better now than after all the runs.
    figures.check_available()
    module = experiments.find(experiment)
    settings = experiments.settings(experiment, preset, changes)
    learned, fingerprint = None, None
    if module.LEARNED == "never" and optimizer:
        raise ValueError(
            f"The experiment {experiment!r} meta-trains its own optimizers "
            "and takes no --optimizer."
        )
    if module.LEARNED == "required" or optimizer:
        learned, fingerprint = study.load(optimizer)
    everything = {
        "experiment": experiment,
        **dataclasses.asdict(settings),
        "optimizer": fingerprint,
        "threads": tf.config.threading.get_intra_op_parallelism_threads(),
        "versions": study.versions(),
    }
    work = study.Study(
        output_dir, everything, learned, data_dir, command_line.say
    )
    try:
        outcome = module.run(work, settings)
        outcome.timings = work.seconds
        work.store.write_settings()
        about = report.About(
            module.TITLE,
            module.QUESTION,
            {
                "preset": preset,
                **everything,
                "optimizer_from": learned and learned.source,
                "data_dir": data_dir,
                **work.facts,
            },
            command,
        )
        results.write(work.store.folder, outcome, about)
    finally:
        work.close()
    command_line.say(tables.format_table(outcome.tables[0].rows))
    for table in outcome.tables:
        for row in table.rows:
            if row.get("at_edge") and row.get("chosen", True):
                command_line.say(
                    f"note: the best learning rate of {row['optimizer']} on "
                    f"{row['problem']} is at the edge of the grid."
                )
        if table.stem == "summary":
            break
    command_line.say(f"Results: {output_dir}/report.html and CSV files")
    return outcome


def _program():
    for name in ("experiment", "output_dir"):
        if not FLAGS[name].value:
            known = f" Known: {', '.join(EXPERIMENTS)}."
            raise flags.Error(
                f"--{name} must be given.{known * (name == 'experiment')}"
            )
    command_line.set_compile_cache(FLAGS.compile_cache)
    command_line.set_threads(FLAGS.threads)
    from lopt_tf import compilation

    try:
        evaluate(
            FLAGS.experiment,
            FLAGS.output_dir,
            FLAGS.optimizer,
            FLAGS.preset,
            FLAGS.data_dir,
            _changes(),
            shlex.join(["python", "-m", "train_scripts.evaluate", *_given()]),
        )
    except compilation.NoRoomError as error:
        # The same command goes on.
        raise command_line.Restart(str(error), ()) from error


def _given():
    """The flags that were given, as on the command line."""
    return [
        flag.serialize()
        for flag in (FLAGS[name] for name in sorted(FLAGS))
        if flag.present
    ]


def _changes():
    """{setting: value} of the flags that are settings of experiments."""
    changes = {}
    for name in (*_NUMBERS, "untrained", "problems", "variants"):
        value = FLAGS[name].value
        if value is not None:
            changes[name] = tuple(value) if isinstance(value, list) else value
    return changes


def main(argv):
    """Runs the program with a command line; returns its exit status."""
    return command_line.run(_program, FLAGS, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
