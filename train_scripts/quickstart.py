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

from train_scripts import command_line

FLAGS = command_line.Flags()
FLAGS.str("output_dir", "results", "Folder for everything.")
FLAGS.bool("resume", False, "Resume where it was stopped.")
FLAGS.int(
    "meta_updates",
    None,
    "Number of meta-updates; the quick preset's if not given.",
    lower_bound=1,
)
FLAGS.int("seeds", 3, "Runs of each optimizer.", lower_bound=1)
FLAGS.int("epochs", 10, "Epochs on the digits.", lower_bound=1)


@command_line.main(FLAGS)
def main():
    from lopt_tf import folders, metatraining
    from lopt_tf.evaluation import experiment, experiments
    from lopt_tf.metatraining import presets
    from lopt_tf.optimizers.hierarchical_rnn import HierarchicalRNNRule
    from lopt_tf.reporting import figures
    from problems import corpus

    # Better now than after the meta-training.
    changes = {"seeds": FLAGS.seeds, "epochs": FLAGS.epochs}
    experiments.settings("digits", "quick", changes)
    figures.check_available()
    folder = pathlib.Path(FLAGS.output_dir)
    with folders.claimed(folder / "digits"):
        pass
    preset = presets.PRESETS["quick"]
    updates = FLAGS.meta_updates or preset.options.meta_updates
    metatraining.train(
        corpus.select(preset.problems),
        HierarchicalRNNRule(**preset.rule_settings),
        dataclasses.replace(preset.options, meta_updates=updates),
        output_dir=folder / "metatraining",
        resume=FLAGS.resume,
        report=command_line.say,
    )
    experiment.evaluate(
        "digits",
        folder / "digits",
        folder / "metatraining" / "optimizer.npz",
        changes=changes,
        report=command_line.say,
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv))
