"""Measures speed; writes a JSON list of rows.

    python -m train_scripts.benchmark --suite=metatraining --output=FILE.json

metatraining: inner steps per second of the gradient estimators. update: a train
step with the learned optimizer over one with Adam. scaling: time per inner step
against parameters, tensors and instances, with a plot beside the file. corpus:
one pass through problems, two meta-updates each, and the share of compilation.
autoloss: task steps per second of episodes under a policy, and a matrix product
beside them. translation: updates of the task's three presets, over those of
`train_on_batch`. images: train steps of ResNet50 V2 and Inception V3 over those
with Adam, memory, and the input pipeline's images per second. Repetitions of
what is compared alternate, and medians are taken.
"""

import importlib
import json
import pathlib
import sys

from train_scripts import command_line

# The suites, and the flags that each does without.
SUITES = {
    "metatraining": ("estimator",),
    "update": ("problems", "instances", "estimator"),
    "scaling": ("problems", "instances", "estimator"),
    "corpus": ("repetitions",),
    "autoloss": ("problems", "estimator"),
    "images": ("problems", "instances", "estimator"),
    "translation": ("problems", "instances", "estimator"),
}
FLAGS = command_line.Flags()
FLAGS.enum("suite", "metatraining", list(SUITES), "What to measure.")
FLAGS.str("output", None, "The JSON file to write.")
FLAGS.list(
    "problems",
    None,
    "With --suite=metatraining: which of its problems. With --suite=corpus: "
    "sets or single problems; default if not given.",
)
FLAGS.list(
    "instances",
    None,
    "Instances side by side (with --suite=autoloss: episodes). If not given: "
    "1,32; 8 with --suite=corpus, 1,64 with --suite=autoloss.",
)
FLAGS.enum(
    "estimator",
    "pes",
    ["bptt", "full", "es", "pes"],
    "With --suite=corpus: the meta-gradient. Programs of all but pes and es "
    "are too many for one process with more than about 60 problems.",
)
FLAGS.int(
    "repetitions",
    5,
    "Of each measurement.",
    lower_bound=1,
    upper_bound=10_000,
)


def _rows():
    """The rows of the suite, one after the other."""
    from lopt_tf import checks

    suite = importlib.import_module(f"train_scripts.suites.{FLAGS.suite}")
    repetitions, instances = FLAGS.repetitions, FLAGS.integers("instances")
    for number in instances:
        checks.in_range("instances", number, 1, 65_536)
    if FLAGS.suite == "metatraining":
        names = FLAGS.problems or list(suite.PROBLEMS)
        return suite.measure(names, instances or (1, 32), repetitions)
    if FLAGS.suite == "corpus":
        names = FLAGS.problems or ["default"]
        return suite.measure(
            names, instances or (8,), FLAGS.estimator, command_line.say
        )
    if FLAGS.suite == "autoloss":
        return suite.measure(instances or (1, 64), repetitions)
    return suite.measure(repetitions)


@command_line.main(FLAGS, "output")
def main():
    from lopt_tf import folders

    path = pathlib.Path(FLAGS.output)
    FLAGS.refuse(SUITES[FLAGS.suite], f"with --suite={FLAGS.suite}")
    if path.is_dir():
        raise ValueError(f"--output={path} is a folder; name a file.")
    if FLAGS.suite == "scaling":
        from lopt_tf.reporting import figures

        # Better now than after all the runs.
        figures.check_available()
    rows = []
    with folders.usable(path.parent):
        for row in _rows():
            rows.append(row)
            command_line.say(json.dumps(row))
            # A stopped benchmark keeps what it has measured.
            folders.write_text(path, json.dumps(rows, indent=1) + "\n")
    command_line.say(f"{len(rows)} rows in {path}")
    if FLAGS.suite == "scaling":
        from train_scripts.suites import scaling

        picture = path.with_suffix(".png")
        scaling.plot(picture, rows)
        command_line.say(f"Plot: {picture}")


if __name__ == "__main__":
    sys.exit(main(sys.argv))
