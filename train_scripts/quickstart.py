"""The main job: meta-train an optimizer, then train networks with it.

    python -m train_scripts.quickstart --output_dir=results

Meta-trains a hierarchical RNN from random weights on small problems of the
corpus, then trains networks on scikit-learn's digits with it, with the same
optimizer before meta-training, and with tuned Adam and RMSProp. Leaves
metatraining/optimizer.npz, digits/summary.csv, digits/curves.png and
digits/report.html. Minutes on two cores.
"""

import dataclasses
import pathlib
import sys

from absl import flags

from train_scripts import command_line, evaluate, metatrain

FLAGS = flags.FlagValues()
flags.DEFINE_string(
    "output_dir", "results", "Folder for everything.", flag_values=FLAGS
)
flags.DEFINE_bool(
    "resume", False, "Go on where it was stopped.", flag_values=FLAGS
)
flags.DEFINE_integer(
    "meta_updates",
    None,
    "Number of meta-updates; the quick preset's if not given.",
    lower_bound=1,
    flag_values=FLAGS,
)
flags.DEFINE_integer(
    "seeds", 3, "Runs of each optimizer.", lower_bound=1, flag_values=FLAGS
)
flags.DEFINE_integer(
    "epochs", 10, "Epochs on the digits.", lower_bound=1, flag_values=FLAGS
)
command_line.define_threads(FLAGS)
command_line.define_compile_cache(FLAGS)


def _program():
    command_line.set_compile_cache(FLAGS.compile_cache)
    command_line.set_threads(FLAGS.threads)
    folder = pathlib.Path(FLAGS.output_dir)
    from lopt_tf.optimizers.hierarchical_rnn import HierarchicalRNNRule

    names, options = metatrain.preset("quick")
    if FLAGS.meta_updates:
        options = dataclasses.replace(options, meta_updates=FLAGS.meta_updates)
    metatrain.train(
        names,
        HierarchicalRNNRule(**metatrain.rule_settings("quick")),
        options,
        folder / "metatraining",
        FLAGS.resume,
    )
    evaluate.evaluate(
        "digits",
        folder / "digits",
        folder / "metatraining" / "optimizer.npz",
        changes={"seeds": FLAGS.seeds, "epochs": FLAGS.epochs},
    )


def main(argv):
    """Runs the program with a command line; returns its exit status."""
    return command_line.run(_program, FLAGS, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
