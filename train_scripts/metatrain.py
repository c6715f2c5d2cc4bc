"""Meta-trains a learned optimizer on problems of the corpus.

    python -m train_scripts.metatrain --preset=quick --output_dir=DIR

DIR gets checkpoints, TensorBoard scalars and the trained `optimizer.npz`.
Stop it at any moment, and go on with --resume.
"""

import dataclasses
import sys

from absl import flags

from train_scripts import command_line

FLAGS = flags.FlagValues()
flags.DEFINE_string(
    "output_dir", None, "Folder for everything.", flag_values=FLAGS
)
flags.DEFINE_enum(
    "preset",
    "quick",
    ["quick", "paper"],
    "quick: minutes, persistent evolution on small problems. paper: the "
    "published procedure and budget (days on a small machine).",
    flag_values=FLAGS,
)
flags.DEFINE_enum(
    "optimizer",
    "hierarchical_rnn",
    ["hierarchical_rnn"],
    "Which learned optimizer.",
    flag_values=FLAGS,
)
flags.DEFINE_list(
    "problems",
    None,
    "Sets (bowl_problems), single problems (bowl_problems.2), or default; "
    "the preset's if not given.",
    flag_values=FLAGS,
)
flags.DEFINE_enum(
    "estimator",
    None,
    ["bptt", "pes"],
    "Meta-gradient: truncated backpropagation, or persistent evolution "
    "strategies.",
    flag_values=FLAGS,
)
flags.DEFINE_bool(
    "resume", False, "Go on from the last checkpoint.", flag_values=FLAGS
)
_OPTIONS = {
    "meta_updates": (int, "Number of meta-updates."),
    "instances": (int, "Problem instances side by side."),
    "segment_length": (int, "Inner steps in one compiled call."),
    "truncation": (int, "Inner steps after which a gradient is cut."),
    "parallel_tasks": (int, "Problems under way at a time."),
    "meta_learning_rate": (float, "Learning rate of the meta-optimizer."),
    "gradient_clip": (float, "Bound of each meta-gradient element."),
    "l2_reg": (float, "Weight of the squared norm of the weights."),
    "perturbation": (float, "Standard deviation of perturbations (pes)."),
    "obj_train_max_multiplier": (float, "Ends runs that blow up; 0: never."),
    "use_second_derivatives": (bool, "Through the problems' gradients."),
    "use_log_objective": (bool, "Average logarithms of objectives."),
    "use_numerator_epsilon": (bool, "Epsilon inside the numerator."),
    "seed": (int, "Of everything that is drawn."),
}
_DEFINERS = {
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    bool: flags.DEFINE_bool,
}
for _name, (_type, _help) in _OPTIONS.items():
    _DEFINERS[_type](
        _name, None, f"{_help} The preset's if not given.", flag_values=FLAGS
    )
flags.DEFINE_enum(
    "meta_optimizer",
    None,
    ["adam", "rmsprop"],
    "Updates the weights.",
    flag_values=FLAGS,
)
flags.DEFINE_list(
    "level_sizes",
    ["10", "20", "20"],
    "Hidden sizes of the parameter, tensor and global RNN.",
    flag_values=FLAGS,
)
flags.DEFINE_bool(
    "use_attention",
    False,
    "Take gradients at a learned point.",
    flag_values=FLAGS,
)
flags.DEFINE_float(
    "checkpoint_every_s",
    60.0,
    "Seconds between checkpoints.",
    flag_values=FLAGS,
)
command_line.define_threads(FLAGS)

_NETS = "fully_connected_random_2_class_problems"
_QUICK_PROBLEMS = (
    f"{_NETS}.1",
    f"{_NETS}.7",
    f"{_NETS}.10",
    f"{_NETS}.0",
    f"{_NETS}.6",
    "softmax_2_class_problems.0",
    "softmax_2_class_problems_noisy.1",
    "quadratic_problems_noisy.0",
    "quadratic_problems_noisy.2",
    "optimization_test_problems.4",
    "bowl_problems.2",
)


def preset(name):
    """(problem names, `TrainingOptions`) of a preset."""
    from lopt_tf import metatraining

    if name == "quick":
        options = metatraining.TrainingOptions(
            meta_updates=3000,
            meta_learning_rate_decay=0.1,
            curriculum=metatraining.Curriculum(
                mean_partials=0, min_length=100, mean_length=250
            ),
        )
        return _QUICK_PROBLEMS, options
    # 1000 problems, 5 starts, 41 partial unrolls on average.
    options = metatraining.TrainingOptions(
        meta_updates=205_000,
        estimator="bptt",
        instances=1,
        segment_length=10,
        parallel_tasks=1,
        meta_optimizer="rmsprop",
        meta_learning_rate=1e-6,
    )
    return ("default",), options


def train(names, rule, options, output_dir, resume, checkpoint_every_s=60.0):
    """Meta-trains on problems by name, and reports progress."""
    from lopt_tf import metatraining
    from problems import corpus

    metatraining.train(
        corpus.select(names),
        rule,
        options,
        output_dir=output_dir,
        resume=resume,
        checkpoint_every_s=checkpoint_every_s,
        report=command_line.say,
    )
    command_line.say(f"Trained optimizer: {output_dir}/optimizer.npz")


def _program():
    if not FLAGS.output_dir:
        raise flags.Error("--output_dir must be given.")
    command_line.set_threads(FLAGS.threads)
    from lopt_tf.optimizers.hierarchical_rnn import HierarchicalRNNRule

    names, options = preset(FLAGS.preset)
    given = {
        name: FLAGS[name].value
        for name in (*_OPTIONS, "estimator", "meta_optimizer")
        if FLAGS[name].value is not None
    }
    rule = HierarchicalRNNRule(
        level_sizes=_integers("level_sizes", FLAGS.level_sizes),
        use_attention=FLAGS.use_attention,
    )
    train(
        FLAGS.problems or names,
        rule,
        dataclasses.replace(options, **given),
        FLAGS.output_dir,
        FLAGS.resume,
        FLAGS.checkpoint_every_s,
    )


def _integers(name, texts):
    try:
        return tuple(int(text) for text in texts)
    except ValueError:
        raise flags.Error(
            f"--{name} takes integers, separated by commas. "
            f"Received: {','.join(texts)}"
        ) from None


def main(argv):
    """Runs the program with a command line; returns its exit status."""
    return command_line.run(_program, FLAGS, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
