"""Trains a schedule of losses, and compares it with fixed ones.

    python -m train_scripts.autoloss --task=regression --mode=train \
        --output_dir=DIR
    python -m train_scripts.autoloss --task=regression --mode=test \
        --output_dir=DIR

train: a controller by policy gradient or evolution; DIR gets best.npz (best at
validation), controller.npz (the last), rounds.csv, training.png, checkpoints
and TensorBoard scalars. baseline: fixed schedules, tuned on validation data.
test: the controller beside them, on starts that nothing else has seen.
transfer: the frozen controller on tasks that it was not trained on, beside
schedules that are tuned anew. The test split is read only after every choice
has been made. translate: a file of sentences, by a model of the task
translation that is trained under the controller once and kept in DIR.

Generated images are judged by a classifier: the folder gets classifier.keras
(of digits; mnist_classifier.keras), in tests and baselines scores.csv (what
known images have), and samples.png, drawn when a controller is validated or
tested; of Keras networks also curves.csv and curves.png, the results over
updates.
"""

import json
import os
import pathlib
import sys

from absl import flags

from train_scripts import command_line

FLAGS = command_line.Flags()
FLAGS.str("output_dir", None, "Folder for everything.")
FLAGS.str(
    "task",
    "regression",
    "What is trained under a schedule: regression, classification, gan (two "
    "networks whose learning rates differ from start to start), "
    "published_gan (of one learning rate), translation (with tags and "
    "entities) or published_translation (for --algorithm=ppo).",
)
FLAGS.str(
    "dataset",
    None,
    "Images of a gan: digits (the default), mnist, cifar10, a folder of PNG "
    "and JPEG files, or an .npz file with images. All but digits and mnist "
    "need --set=classifier_path=FILE.keras.",
)
FLAGS.str(
    "data_dir",
    None,
    "Where mnist or cifar10 is: as TensorFlow Datasets prepares it, or as "
    "mnist.npz, which Keras keeps.",
)
FLAGS.enum(
    "mode",
    "train",
    ["train", "test", "baseline", "transfer", "translate"],
    "What to do.",
)
FLAGS.str("input", None, "Sentences to translate, one a line.")
FLAGS.str("output", None, "Where their translations go.")
FLAGS.multi_string(
    "set",
    [],
    "An argument of the task as name=value, for instance --set=dimensions=8 "
    "or --set=hidden=[64,64]; may be repeated.",
)
FLAGS.enum(
    "algorithm",
    "reinforce",
    ["reinforce", "ppo", "evolution"],
    "Trains the policy.",
)
_OPTIONS = {
    "episodes": (int, "How many episodes to train on."),
    "parallel": (int, "Episodes side by side."),
    "learning_rate": (float, "Of the policy."),
    "step_scale": (float, "Weight of the step rewards."),
    "entropy_bonus": (float, "Weight of the policy's entropy."),
    "sigma": (float, "Of evolution: what is added to a policy's weights."),
    "even_draws": (
        bool,
        "Of evolution: an episode's actions are drawn at even distances.",
    ),
    "validate_every": (int, "Rounds between validations."),
    "validation_starts": (int, "Episodes of a validation."),
    "hidden": (int, "Width of the policy's hidden layer; 0: linear."),
    "seed": (int, "Of everything that is drawn."),
}
FLAGS.options(_OPTIONS, "{} The task's if not given.")
FLAGS.long_run()
FLAGS.str(
    "controller",
    None,
    "Controller to test, a file; best.npz of --output_dir if not given.",
)
FLAGS.int("starts", 32, "Starts of each schedule in a test.", lower_bound=1)
FLAGS.int(
    "tuning_starts",
    16,
    "Starts of each candidate when baselines are tuned.",
    lower_bound=1,
)
FLAGS.enum(
    "tune_by",
    None,
    ["mean score", "last score", "best score"],
    "What baselines are tuned for instead of the result, of a task that has "
    "it: a GAN, or one of models.",
)
FLAGS.bool("fine", True, "Whether baselines' grids are fine.")
FLAGS.list(
    "baselines",
    None,
    'Names of the fixed schedules to run, such as "1:1,best ratio", or a '
    'setting that needs no tuning, such as "ratio 1:5". All names if not '
    "given.",
)
_OF_TRAINING = ("algorithm", *_OPTIONS, "resume", "checkpoint_every_s")
# Evolution looks at whole episodes' results alone.
_OF_GRADIENTS = ("entropy_bonus", "step_scale")
_OF_EVOLUTION = ("sigma", "even_draws")
_OF_COMPARISON = ("starts", "tuning_starts", "tune_by", "fine", "baselines")
_OF_TRANSLATION = ("input", "output")
# Flags that a mode does without.
_IGNORED = {
    "train": ("controller", *_OF_COMPARISON, *_OF_TRANSLATION),
    "baseline": ("controller", *_OF_TRAINING, *_OF_TRANSLATION),
    "test": (*_OF_TRAINING, *_OF_TRANSLATION),
    "transfer": ("fine", *_OF_TRAINING, *_OF_TRANSLATION),
    "translate": (*_OF_TRAINING, *_OF_COMPARISON),
}


def train(folder):
    """Trains a controller, and plots how it went."""
    from lopt_tf import autoloss, folders
    from lopt_tf.autoloss import plots, sample_pictures
    from lopt_tf.autoloss.starts import starts
    from lopt_tf.reporting import figures, tables

    if FLAGS.algorithm == "evolution":
        FLAGS.refuse(_OF_GRADIENTS, "with --algorithm=evolution")
    else:
        FLAGS.refuse(_OF_EVOLUTION, f"with --algorithm={FLAGS.algorithm}")
    figures.check_available()
    entry, config = _entry(), _given()
    options = autoloss.recipe(
        FLAGS.task, FLAGS.algorithm, **FLAGS.given(_OPTIONS)
    )
    judge = entry.task(**config)
    # Models are compiled once for each task: one is enough for both.
    task = judge
    if entry.controller:
        task = entry.task(for_controller=True, **config)
    for each in (task, judge):
        each.keep_beside(folder)
    for line in judge.remarks():
        command_line.say(line)
    look = sample_pictures.SamplePicture(
        folder / "samples.png", starts("validation", options.validation_starts)
    )
    _, history = autoloss.train(
        task,
        options,
        validation_task=judge,
        output_dir=folder,
        resume=FLAGS.resume,
        report=command_line.say,
        checkpoint_every_s=FLAGS.checkpoint_every_s,
        look=look,
    )
    with folders.claimed(folder):
        tables.write_csv(folder / "rounds.csv", history)
        picture = folder / "training.png"
        plots.plot_training(picture, history, judge.result_name)
    if (folder / "best.npz").exists():
        command_line.say(f"Controller: {folder}/best.npz")
    else:
        command_line.say(
            "note: no validation was finite: there is no best.npz; the last "
            f"controller is {folder}/controller.npz"
        )


def compare(folder):
    """Runs fixed schedules, a controller beside them, or its transfer."""
    from lopt_tf.autoloss import bench

    runs = bench.Bench(
        *(folder, FLAGS.starts, FLAGS.tuning_starts, FLAGS.fine),
        command_line.say,
        FLAGS.baselines or (),
        FLAGS.tune_by,
    )
    if FLAGS.mode == "baseline":
        runs.baseline(_entry().task(**_given()))
        return
    controller = runs.controller(FLAGS.controller)
    if FLAGS.mode == "test":
        runs.test(_entry().task(**_given()), controller)
    else:
        config, data = _given(), FLAGS.given(["data_dir"])
        if config == data:
            # Where the data are says nothing of the task.
            runs.transfer(_entry(), controller, data=data)
        else:
            runs.transfer(_entry(), controller, [config])


def translate(folder):
    """Translates a file."""
    from lopt_tf.autoloss import translating

    if not (FLAGS.input and FLAGS.output):
        raise flags.Error("--mode=translate needs --input and --output.")
    translating.translate_file(
        *(_entry().task(**_given()), folder, FLAGS.input, FLAGS.output),
        controller=FLAGS.controller,
        report=command_line.say,
    )


def _entry():
    from lopt_tf.autoloss import tasks

    return tasks.entry(FLAGS.task)


def _given():
    """The task's arguments of --set, --dataset and --data_dir."""
    named = FLAGS.given(["dataset", "data_dir"])
    config = dict(named)
    for text in FLAGS.set:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise flags.Error(f"--set takes name=value. Received: {text}")
        if name in named:
            raise flags.Error(f"{name} is given twice: --{name} and --set.")
        if name in _entry().controller:
            raise flags.Error(f"--mode decides the {name}; leave --set={name}.")
        try:
            config[name] = json.loads(value)
        except (ValueError, RecursionError):
            config[name] = os.path.expanduser(value)
    return config


@command_line.main(FLAGS, "output_dir")
def main():
    from lopt_tf import folders

    FLAGS.refuse(_IGNORED[FLAGS.mode], f"with --mode={FLAGS.mode}")
    folder = pathlib.Path(FLAGS.output_dir)
    if FLAGS.mode == "train":
        train(folder)
        return
    with folders.claimed(folder):
        (translate if FLAGS.mode == "translate" else compare)(folder)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
