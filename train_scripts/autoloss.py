"""Trains a schedule of losses, and compares it with fixed ones.

    python -m train_scripts.autoloss --task=regression --mode=train \
        --output_dir=DIR
    python -m train_scripts.autoloss --task=regression --mode=test \
        --output_dir=DIR

train: a controller by policy gradient; DIR gets best.npz (best at validation),
controller.npz (the last), rounds.csv, training.png, checkpoints and TensorBoard
scalars. baseline: fixed schedules, tuned on validation data. test: the
controller beside them, on starts that nothing else has seen. transfer: the
frozen controller on tasks that it was not trained on, beside schedules that are
tuned anew. The test split is read only after every choice has been made.
"""

import functools
import json
import pathlib
import sys

from absl import flags

from train_scripts import command_line

FLAGS = flags.FlagValues()
_string = functools.partial(flags.DEFINE_string, flag_values=FLAGS)
_enum = functools.partial(flags.DEFINE_enum, flag_values=FLAGS)
_integer = functools.partial(flags.DEFINE_integer, flag_values=FLAGS)
_float = functools.partial(flags.DEFINE_float, flag_values=FLAGS)
_bool = functools.partial(flags.DEFINE_bool, flag_values=FLAGS)
_string("output_dir", None, "Folder for everything.")
_TASKS = "regression or classification"
_string("task", "regression", f"What is trained under a schedule: {_TASKS}.")
_MODES = ["train", "test", "baseline", "transfer"]
_enum("mode", "train", _MODES, "What to do.")
flags.DEFINE_multi_string(
    "set",
    [],
    "An argument of the task as name=value, for instance --set=dimensions=8 "
    "or --set=hidden=[64,64]; may be repeated.",
    flag_values=FLAGS,
)
_enum("algorithm", "reinforce", ["reinforce", "ppo"], "Trains the policy.")
_OPTIONS = {
    "episodes": (_integer, "How many episodes to train on."),
    "parallel": (_integer, "Episodes side by side."),
    "learning_rate": (_float, "Of the policy."),
    "step_scale": (_float, "Weight of the step rewards."),
    "entropy_bonus": (_float, "Weight of the policy's entropy."),
    "hidden": (_integer, "Width of the policy's hidden layer; 0: linear."),
    "seed": (_integer, "Of everything that is drawn."),
}
for _name, (_define, _help) in _OPTIONS.items():
    _define(_name, None, f"{_help} The task's if not given.")
_bool("resume", False, "Resume from the last checkpoint.")
_string(
    "controller",
    None,
    "Controller to test, a file; best.npz of --output_dir if not given.",
)
_integer("starts", 32, "Starts of each schedule in a test.", lower_bound=1)
_integer(
    "tuning_starts",
    16,
    "Starts of each candidate when baselines are tuned.",
    lower_bound=1,
)
_bool("fine", True, "Whether baselines' grids are fine.")
command_line.define_threads(FLAGS)
command_line.define_compile_cache(FLAGS)


def train(folder):
    """Trains a controller, and plots how it went."""
    from lopt_tf import autoloss
    from lopt_tf.autoloss import plots
    from lopt_tf.reporting import figures, tables

    figures.check_available()
    values = {name: FLAGS[name].value for name in _OPTIONS}
    given = {name: x for name, x in values.items() if x is not None}
    entry, config = _entry(), _given()
    judge = entry.task(**config)
    _, history = autoloss.train(
        entry.task(for_controller=True, **config),
        autoloss.recipe(FLAGS.task, FLAGS.algorithm, **given),
        validation_task=judge,
        output_dir=folder,
        resume=FLAGS.resume,
        report=command_line.say,
    )
    tables.write_csv(folder / "rounds.csv", history)
    plots.plot_training(folder / "training.png", history, judge.result_name)
    command_line.say(f"Controller: {folder}/best.npz")


def compare(folder):
    """Runs fixed schedules, a controller beside them, or its transfer."""
    from lopt_tf.autoloss import bench

    counts = FLAGS.starts, FLAGS.tuning_starts
    runs = bench.Bench(folder, *counts, FLAGS.fine, command_line.say)
    if FLAGS.mode == "baseline":
        runs.baseline(_entry().task(**_given()))
        return
    controller = runs.controller(FLAGS.controller)
    if FLAGS.mode == "test":
        runs.test(_entry().task(**_given()), controller)
    else:
        configs = [_given()] if FLAGS.set else ()
        runs.transfer(_entry(), controller, configs)


def _entry():
    from lopt_tf.autoloss import tasks

    return tasks.entry(FLAGS.task)


def _given():
    """The task's arguments of --set."""
    config = {}
    for text in FLAGS.set:
        name, equals, value = text.partition("=")
        if not equals:
            raise flags.Error(f"--set takes name=value. Received: {text}")
        if name in _entry().controller:
            raise flags.Error(f"--mode decides the {name}; leave --set={name}.")
        try:
            config[name] = json.loads(value)
        except json.JSONDecodeError:
            config[name] = value
    return config


def _program():
    if not FLAGS.output_dir:
        raise flags.Error("--output_dir must be given.")
    command_line.set_compile_cache(FLAGS.compile_cache)
    command_line.set_threads(FLAGS.threads)
    folder = pathlib.Path(FLAGS.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    (train if FLAGS.mode == "train" else compare)(folder)


def main(argv):
    """Runs the program with a command line; returns its exit status."""
    return command_line.run(_program, FLAGS, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
