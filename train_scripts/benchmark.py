"""Measures speed; writes a JSON list of rows.

    python -m train_scripts.benchmark --suite=metatraining --output=FILE.json

metatraining: inner steps per second of the gradient estimators. update: a
train step with the learned optimizer over one with Adam. scaling: time per
inner step against parameters, tensors and instances, with a plot beside the
file. corpus: one pass through problems, two meta-updates each, and the share
of compilation. autoloss: task steps per second of episodes under a policy, and
a matrix product beside them. Repetitions of what is compared alternate, and
medians are taken.
"""

import json
import pathlib
import sys

from absl import flags

from train_scripts import command_line

FLAGS = flags.FlagValues()
flags.DEFINE_enum(
    "suite",
    "metatraining",
    ["metatraining", "update", "scaling", "corpus", "autoloss"],
    "What to measure.",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "output", None, "The JSON file to write.", flag_values=FLAGS
)
flags.DEFINE_list(
    "problems",
    None,
    "With --suite=metatraining: which of its problems. With --suite=corpus: "
    "sets or single problems; default if not given.",
    flag_values=FLAGS,
)
flags.DEFINE_list(
    "instances",
    None,
    "Instances side by side (with --suite=autoloss: episodes). If not given: "
    "1,32; 8 with --suite=corpus, 1,64 with --suite=autoloss.",
    flag_values=FLAGS,
)
flags.DEFINE_enum(
    "estimator",
    "bptt",
    ["bptt", "full", "es", "pes"],
    "With --suite=corpus: the meta-gradient.",
    flag_values=FLAGS,
)
flags.DEFINE_integer(
    "repetitions", 5, "Of each measurement.", lower_bound=1, flag_values=FLAGS
)
command_line.define_threads(FLAGS)
flags.DEFINE_string(
    "compile_cache",
    "",
    "Folder where compiled programs are kept for later runs; empty keeps none.",
    flag_values=FLAGS,
)


def _instances(default):
    try:
        return [int(count) for count in FLAGS.instances or default]
    except ValueError:
        raise flags.Error(
            "--instances takes integers, separated by commas. "
            f"Received: {','.join(FLAGS.instances)}"
        ) from None


def _metatraining():
    from train_scripts.suites import metatraining

    names = FLAGS.problems or list(metatraining.PROBLEMS)
    return metatraining.measure(names, _instances([1, 32]), FLAGS.repetitions)


def _update():
    from train_scripts.suites import update

    return update.measure(FLAGS.repetitions)


def _scaling():
    from train_scripts.suites import scaling

    return scaling.measure(FLAGS.repetitions)


def _corpus():
    from train_scripts.suites import corpus

    names = FLAGS.problems or ["default"]
    for instances in _instances([8]):
        yield from corpus.measure(
            names, instances, FLAGS.estimator, command_line.say
        )


def _autoloss():
    from train_scripts.suites import autoloss

    return autoloss.measure(_instances([1, 64]), FLAGS.repetitions)


SUITES = {
    "autoloss": _autoloss,
    "metatraining": _metatraining,
    "update": _update,
    "scaling": _scaling,
    "corpus": _corpus,
}


def _program():
    if not FLAGS.output:
        raise flags.Error("--output must be given.")
    command_line.set_compile_cache(FLAGS.compile_cache)
    command_line.set_threads(FLAGS.threads)
    path = pathlib.Path(FLAGS.output)
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = []
    for row in SUITES[FLAGS.suite]():
        rows.append(row)
        command_line.say(json.dumps(row))
        # A stopped benchmark keeps what it has measured.
        path.write_text(json.dumps(rows, indent=1) + "\n")
    command_line.say(f"{len(rows)} rows in {path}")
    if FLAGS.suite == "scaling":
        from train_scripts.suites import scaling

        picture = path.with_suffix(".png")
        scaling.plot(picture, rows)
        command_line.say(f"Plot: {picture}")


def main(argv):
    """Runs the program with a command line; returns its exit status."""
    return command_line.run(_program, FLAGS, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
