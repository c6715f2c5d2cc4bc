"""Compares a meta-trained optimizer with tuned Adam and RMSProp.

    python -m train_scripts.evaluate --experiment=digits \
        --optimizer=DIR/optimizer.npz --output_dir=DIR

Writes curves.csv (every step of every run), runs.csv, summary.csv, tuning.csv
and curves.png, and prints the summary. The baselines get the best learning rate
of a grid, chosen on runs of their own.
"""

import pathlib
import sys

from absl import flags

from train_scripts import command_line

FLAGS = flags.FlagValues()
flags.DEFINE_string(
    "output_dir", None, "Folder for the results.", flag_values=FLAGS
)
flags.DEFINE_string(
    "optimizer",
    None,
    "Trained optimizer: a file, the folder of a meta-training, or the name "
    "of shipped weights.",
    flag_values=FLAGS,
)
flags.DEFINE_enum(
    "experiment",
    "digits",
    ["problems", "digits"],
    "problems: problems of the corpus. digits: Keras networks on "
    "scikit-learn's digits.",
    flag_values=FLAGS,
)
flags.DEFINE_list(
    "problems",
    ["quadratic_problems.0", "softmax_2_class_problems.0", "bowl_problems.2"],
    "With --experiment=problems: sets or single problems.",
    flag_values=FLAGS,
)
flags.DEFINE_integer(
    "seeds", 3, "Runs of each.", lower_bound=1, flag_values=FLAGS
)
flags.DEFINE_integer(
    "steps",
    500,
    "With --experiment=problems: inner steps.",
    lower_bound=1,
    flag_values=FLAGS,
)
flags.DEFINE_integer(
    "epochs",
    10,
    "With --experiment=digits: epochs.",
    lower_bound=1,
    flag_values=FLAGS,
)
flags.DEFINE_integer(
    "tuning_seeds",
    2,
    "With --experiment=digits: runs for each learning rate of the grid.",
    lower_bound=1,
    flag_values=FLAGS,
)
flags.DEFINE_bool(
    "untrained",
    True,
    "Also compare the optimizer as it was before meta-training.",
    flag_values=FLAGS,
)
command_line.define_threads(FLAGS)
command_line.define_compile_cache(FLAGS)


def evaluate_digits(
    optimizer, output_dir, seeds, epochs, tuning_seeds, untrained
):
    """The digits experiment; returns the summary's rows."""
    import warnings

    import lopt_tf
    from lopt_tf.evaluation import digits, plots

    # Better now than after all the runs.
    plots.check_available()
    load = lopt_tf.LearnedOptimizer.from_pretrained
    learned = {"learned": lambda: load(optimizer)}
    if untrained:
        trained = load(optimizer)
        make, config = type(trained), trained.rule.get_config()
        learned["untrained"] = lambda: make(**config)
    with warnings.catch_warnings():
        # That it has no trained weights is the point.
        warnings.filterwarnings("ignore", ".*has no trained weights.*")
        results, tuned = digits.compare(
            learned, seeds, epochs, tuning_seeds, command_line.say
        )
    return _write(output_dir, results, tuned, "Digits: training loss")


def evaluate_problems(optimizer, output_dir, names, seeds, steps, untrained):
    """The corpus problems experiment; returns the summary's rows."""
    import lopt_tf
    from lopt_tf.evaluation import plots, problem_runs
    from problems import corpus

    plots.check_available()
    problems = corpus.select(names)
    trained = lopt_tf.LearnedOptimizer.from_pretrained(optimizer)
    learned = {"learned": (trained.rule, trained.rule_weights())}
    if untrained:
        learned["untrained"] = (trained.rule, trained.rule.init_weights(0))
    results, tuned = problem_runs.compare(
        problems, learned, seeds, steps, command_line.say
    )
    return _write(output_dir, results, tuned, "Corpus problems: objective")


def _write(output_dir, results, tuned, title):
    from lopt_tf.evaluation import curves, plots

    folder = pathlib.Path(output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    rows = curves.summary(results)
    curves.write_curves(folder / "curves.csv", results)
    curves.write_runs(folder / "runs.csv", results)
    curves.write_csv(folder / "summary.csv", rows)
    curves.write_csv(folder / "tuning.csv", tuned)
    plots.plot_curves(folder / "curves.png", results, title)
    command_line.say(curves.format_table(rows))
    for row in tuned:
        if row["at_edge"]:
            command_line.say(
                f"note: the best learning rate of {row['optimizer']} on "
                f"{row['problem']} is at the edge of the grid."
            )
    command_line.say(f"Results: {folder}/summary.csv, curves.csv, curves.png")
    return rows


def _program():
    for name in ("output_dir", "optimizer"):
        if not FLAGS[name].value:
            raise flags.Error(f"--{name} must be given.")
    command_line.set_compile_cache(FLAGS.compile_cache)
    command_line.set_threads(FLAGS.threads)
    if FLAGS.experiment == "digits":
        evaluate_digits(
            FLAGS.optimizer,
            FLAGS.output_dir,
            FLAGS.seeds,
            FLAGS.epochs,
            FLAGS.tuning_seeds,
            FLAGS.untrained,
        )
    else:
        evaluate_problems(
            FLAGS.optimizer,
            FLAGS.output_dir,
            FLAGS.problems,
            FLAGS.seeds,
            FLAGS.steps,
            FLAGS.untrained,
        )


def main(argv):
    """Runs the program with a command line; returns its exit status."""
    return command_line.run(_program, FLAGS, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
