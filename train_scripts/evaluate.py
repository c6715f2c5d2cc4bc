"""Checks what a meta-trained optimizer can do, one experiment at a time.

    python -m train_scripts.evaluate --experiment=generalization \
        --preset=quick --optimizer=DIR/optimizer.npz --output_dir=RESULTS

Baselines (Adam; adam_cosine, whose learning rate falls to 0 by half a cosine
over the run; RMSProp; momentum) get the best learning rate of a grid that grows
until its best is inside, chosen on runs of their own. RESULTS gets
curves.csv (every step of every run), runs.csv, summary.csv and further tables,
plots, and report.html, one page with everything. Stop it at any moment: the
same command resumes it, and does no run twice. All CSV files but timings.csv
are the same whenever the same command is run on the same machine.

  training_set    problems of meta-training's corpus
  generalization  networks that were never trained on
  peers           every optimizer at hand, by width and length of run
  learning_rates  initial learning rates over six orders of magnitude
  ablation        meta-trains and tests variants without the paper's ideas
  wall_clock      time per step relative to Adam, and memory
  long_runs       10,000 steps and more
  failures        meta-trains a coordinatewise RNN, and shows where it fails
  problems        problems of your choice (--problems)
  digits          Keras networks on scikit-learn's digits, through fit
  imagenet        learning curves of trainings by train_scripts.imagenet
"""

import shlex
import sys

from train_scripts import command_line

EXPERIMENTS = (
    "training_set",
    "generalization",
    "peers",
    "learning_rates",
    "ablation",
    "wall_clock",
    "long_runs",
    "failures",
    "problems",
    "digits",
    "imagenet",
)
FLAGS = command_line.Flags()
FLAGS.enum("experiment", None, EXPERIMENTS, "Which one; see above.")
FLAGS.enum(
    "preset",
    "quick",
    ["quick", "full"],
    "quick: minutes, one problem of each set. full: hours to days.",
)
FLAGS.str("output_dir", None, "Folder for the results.")
FLAGS.str(
    "optimizer",
    None,
    "Trained optimizer: a file, the folder of a meta-training, or the name "
    "of shipped weights; the default ones if not given. ablation and imagenet "
    "take none; wall_clock and failures do without.",
)
FLAGS.str(
    "data_dir",
    None,
    "Folder of TFDS data sets: MNIST's problems take part where it is "
    "prepared.",
)
_PRESETS = "The preset's if not given."
FLAGS.list(
    "problems",
    None,
    "Problems to test on: sets (bowl_problems, recurrent) or single ones "
    f"(bowl_problems.2). {_PRESETS}",
)
FLAGS.list(
    "variants", None, f"With --experiment=ablation: which variants. {_PRESETS}"
)
FLAGS.list(
    "runs",
    None,
    "With --experiment=imagenet: folders of trainings by "
    "train_scripts.imagenet.",
)
_NUMBERS = {
    "steps": "Inner steps; for speed-ups Adam runs four times as long.",
    "seeds": "Runs of each optimizer.",
    "tuning_seeds": "Runs of each learning rate of the grid.",
    "epochs": "With --experiment=digits: epochs.",
    "meta_updates": "With ablation and failures: of each meta-training.",
    "repetitions": "With --experiment=wall_clock: timings of each.",
}
for _name, _help in _NUMBERS.items():
    FLAGS.int(_name, None, f"{_help} {_PRESETS}", lower_bound=1)
FLAGS.bool(
    "untrained",
    None,
    "With problems and digits: also the optimizer before meta-training. "
    f"{_PRESETS}",
)
_OTHERS = ("untrained", "problems", "variants", "runs")


@command_line.main(FLAGS, "experiment", "output_dir")
def main():
    from lopt_tf import compilation
    from lopt_tf.evaluation import experiment

    try:
        experiment.evaluate(
            FLAGS.experiment,
            FLAGS.output_dir,
            FLAGS.optimizer,
            FLAGS.preset,
            FLAGS.data_dir,
            _changes(),
            shlex.join(["python", "-m", "train_scripts.evaluate", *_given()]),
            command_line.say,
        )
    except compilation.NoRoomError as error:
        # The same command resumes.
        raise command_line.Restart(str(error), ()) from error


def _given():
    """The flags that were given, as on the command line."""
    return [FLAGS[n].serialize() for n in sorted(FLAGS) if FLAGS[n].present]


def _changes():
    """{setting: value} of the flags that are settings of experiments."""
    given = FLAGS.given((*_NUMBERS, *_OTHERS))
    return {n: tuple(x) if isinstance(x, list) else x for n, x in given.items()}


if __name__ == "__main__":
    sys.exit(main(sys.argv))
