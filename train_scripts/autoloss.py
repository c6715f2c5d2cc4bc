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

import json
import pathlib
import sys

from absl import flags

from train_scripts import command_line

FLAGS = flags.FlagValues()
flags.DEFINE_string(
    "output_dir", None, "Folder for everything.", flag_values=FLAGS
)
flags.DEFINE_enum(
    "task",
    "regression",
    ["regression", "classification"],
    "What is trained under a schedule.",
    flag_values=FLAGS,
)
flags.DEFINE_enum(
    "mode",
    "train",
    ["train", "test", "baseline", "transfer"],
    "What to do.",
    flag_values=FLAGS,
)
flags.DEFINE_multi_string(
    "set",
    [],
    "An argument of the task as name=value, for instance --set=dimensions=8 "
    "or --set=hidden=[64,64]; may be repeated.",
    flag_values=FLAGS,
)
flags.DEFINE_enum(
    "algorithm",
    "reinforce",
    ["reinforce", "ppo"],
    "Trains the policy.",
    flag_values=FLAGS,
)
_OPTIONS = {
    "episodes": (int, "How many episodes to train on."),
    "parallel": (int, "Episodes side by side."),
    "learning_rate": (float, "Of the policy."),
    "step_scale": (float, "Weight of the step rewards."),
    "entropy_bonus": (float, "Weight of the policy's entropy."),
    "hidden": (int, "Width of the policy's hidden layer; 0: linear."),
    "seed": (int, "Of everything that is drawn."),
}
for _name, (_type, _help) in _OPTIONS.items():
    _define = {int: flags.DEFINE_integer, float: flags.DEFINE_float}[_type]
    _define(_name, None, f"{_help} The task's if not given.", flag_values=FLAGS)
flags.DEFINE_bool(
    "resume", False, "Go on from the last checkpoint.", flag_values=FLAGS
)
flags.DEFINE_string(
    "controller",
    None,
    "Controller to test; best.npz of --output_dir if not given.",
    flag_values=FLAGS,
)
flags.DEFINE_integer(
    "starts",
    32,
    "Starts of each schedule in a test.",
    lower_bound=1,
    flag_values=FLAGS,
)
flags.DEFINE_integer(
    "tuning_starts",
    16,
    "Starts of each candidate when baselines are tuned.",
    lower_bound=1,
    flag_values=FLAGS,
)
flags.DEFINE_bool(
    "fine", True, "Whether baselines' grids are fine.", flag_values=FLAGS
)
command_line.define_threads(FLAGS)
command_line.define_compile_cache(FLAGS)


def train(folder):
    """Trains a controller, and plots how it went."""
    from lopt_tf import autoloss
    from lopt_tf.autoloss import plots
    from lopt_tf.reporting import figures, tables

    figures.check_available()
    given = {
        name: FLAGS[name].value
        for name in _OPTIONS
        if FLAGS[name].value is not None
    }
    options = autoloss.recipe(FLAGS.task, FLAGS.algorithm, **given)
    _, history = autoloss.train(
        _task(role="controller"),
        options,
        validation_task=_task(),
        output_dir=folder,
        resume=FLAGS.resume,
        report=command_line.say,
    )
    tables.write_csv(folder / "rounds.csv", history)
    name = _task().result_name
    plots.plot_training(folder / "training.png", history, name)
    command_line.say(f"Controller: {folder}/best.npz")


def baseline(folder):
    """Tunes fixed schedules, and runs them on the test starts."""
    from lopt_tf.autoloss import comparison

    task = _task()
    results = comparison.run_baselines(task, _chosen(folder), FLAGS.starts)
    _write(folder, "baselines", comparison.summary(task, results), results)


def test(folder):
    """Runs a controller and fixed schedules on the test starts."""
    from lopt_tf.autoloss import comparison, plots
    from lopt_tf.reporting import figures

    figures.check_available()
    controller = _controller(folder)
    task = _task()
    controller.check_fits(task)
    _note_other_task(controller, task)
    chosen = _chosen(folder)
    values, shares = comparison.run_controller(task, controller, FLAGS.starts)
    results = comparison.run_baselines(task, chosen, FLAGS.starts)
    rows = comparison.summary(task, results, values)
    everything = {"controller": ("learned", values), **results}
    _write(folder, "test", rows, everything)
    plots.plot_schedule(
        folder / "schedule.png",
        shares,
        task.actions,
        comparison.segment_length(task),
    )
    plots.plot_results(folder / "test.png", everything, task.result_name)
    command_line.say(f"Plots: {folder}/schedule.png, test.png")


def transfer(folder):
    """Runs a frozen controller on tasks that it was not trained on."""
    from lopt_tf.autoloss import comparison
    from lopt_tf.reporting import tables

    controller = _controller(folder)
    configs = comparison.TRANSFER[FLAGS.task]
    if FLAGS.set:
        configs = [_given()]
    tasks = {
        ", ".join(f"{k}={v}" for k, v in config.items()): _new_task(config)
        for config in configs
    }
    rows = comparison.transfer(
        tasks,
        controller,
        FLAGS.starts,
        FLAGS.tuning_starts,
        command_line.say,
    )
    tables.write_csv(folder / "transfer.csv", rows)
    command_line.say(tables.format_table(rows))
    command_line.say(f"Results: {folder}/transfer.csv")


_MODES = {
    "train": train,
    "test": test,
    "baseline": baseline,
    "transfer": transfer,
}


def _task(**more):
    return _new_task({**_given(), **more})


def _new_task(given):
    from problems import alternating

    task = alternating.TASKS[FLAGS.task]
    try:
        return task(**given)
    except TypeError:
        known = task().get_config()
        unknown = [name for name in given if name not in known]
        raise ValueError(
            f"--set cannot make a task of {given}. "
            f"{'Unknown: ' + unknown[0] + '. ' if unknown else ''}"
            f"Known, with defaults: {known}"
        ) from None


def _given():
    """The task's arguments of --set."""
    config = {}
    for text in FLAGS.set:
        name, equals, value = text.partition("=")
        if not equals:
            raise flags.Error(f"--set takes name=value. Received: {text}")
        if name == "role":
            raise flags.Error("--mode decides the role; leave --set=role.")
        try:
            config[name] = json.loads(value)
        except json.JSONDecodeError:
            config[name] = value
    return config


def _controller(folder):
    from lopt_tf import autoloss

    path = pathlib.Path(FLAGS.controller or folder / "best.npz")
    if not path.exists() and (folder / "controller.npz").exists():
        raise ValueError(
            f"There is no file {path}: the training has not come to a "
            "validation yet. Go on with it, or give "
            f"--controller={folder}/controller.npz."
        )
    return autoloss.ScheduleController.load(path)


def _note_other_task(controller, task):
    """Says so if a controller was trained on another task."""
    trained = controller.facts.get("task", {})
    differing = [
        f"{name} {trained[name]} instead of {value}"
        for name, value in task.get_config().items()
        if name != "role" and trained.get(name, value) != value
    ]
    if differing:
        command_line.say(
            f"note: the controller was trained with {', '.join(differing)}."
        )


def _chosen(folder):
    """{name: Candidate}, from an earlier tuning of the same task if there."""
    from lopt_tf.autoloss import baselines
    from lopt_tf.reporting import tables

    task = _task()
    grids = baselines.grids(task, FLAGS.fine)
    settings = {
        "task": task.name,
        **task.get_config(),
        "tuning_starts": FLAGS.tuning_starts,
        "candidates": {
            name: [c.label for c in candidates]
            for name, candidates in grids.items()
        },
    }
    path = folder / "tuning.json"
    labels = _known_choices(path, settings)
    if labels is None:
        command_line.say("Tuning fixed schedules on validation data:")
        chosen, rows = baselines.tune(
            task, FLAGS.tuning_starts, FLAGS.fine, command_line.say
        )
        labels = {name: c.label for name, c in chosen.items()}
        tables.write_csv(folder / "tuning.csv", rows)
        content = {"settings": settings, "chosen": labels}
        path.write_text(json.dumps(content, indent=1) + "\n")
    tuned = {
        name: next(c for c in grids[name] if c.label == label)
        for name, label in labels.items()
    }
    return {**baselines.published(task), **tuned}


def _known_choices(path, settings):
    """The labels in an earlier tuning's file, if its settings are these."""
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text())
        same = content["settings"] == json.loads(json.dumps(settings))
        return content["chosen"] if same else None
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is damaged ({error}). Delete it to tune anew."
        ) from error


def _write(folder, name, rows, results):
    from lopt_tf.autoloss.starts import starts
    from lopt_tf.reporting import tables

    single = [
        {"schedule": key, "setting": label, "start": seed, "test": float(x)}
        for key, (label, values) in results.items()
        for seed, x in zip(starts("test", len(values)), values)
    ]
    tables.write_csv(folder / f"{name}.csv", single)
    tables.write_csv(folder / f"{name}_summary.csv", rows)
    command_line.say(tables.format_table(rows))
    command_line.say(f"Results: {folder}/{name}_summary.csv, {name}.csv")


def _program():
    if not FLAGS.output_dir:
        raise flags.Error("--output_dir must be given.")
    command_line.set_compile_cache(FLAGS.compile_cache)
    command_line.set_threads(FLAGS.threads)
    folder = pathlib.Path(FLAGS.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    _MODES[FLAGS.mode](folder)


def main(argv):
    """Runs the program with a command line; returns its exit status."""
    return command_line.run(_program, FLAGS, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
