"""Meta-trains a learned optimizer on problems of the corpus.

    python -m train_scripts.metatrain --preset=quick --output_dir=DIR

DIR gets checkpoints, TensorBoard scalars and the trained `optimizer.npz`.
Stop it at any moment, and go on with --resume.

Several machines: start the same command on each, with TF_CONFIG set and a DIR
that all of them see. --strategy=multi_worker shares each problem's instances;
--strategy=parameter_server gives each worker a problem of its own (workers and
parameter servers run until they are terminated).
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
    ["quick", "recommended", "paper"],
    "quick and recommended: backpropagation with the meta-gradient of each "
    "instance clipped, and bounded learning rates; minutes on eleven small "
    "problems, and an hour or two on fifty, networks above all (add "
    "--eval_every to keep the best weights). paper: the published procedure "
    "and budget (days on a small machine).",
    flag_values=FLAGS,
)
flags.DEFINE_enum(
    "optimizer",
    "hierarchical_rnn",
    [
        "hierarchical_rnn",
        "coordinatewise_rnn",
        "learned_adam",
        "global_learning_rate",
        "learning_rate_schedule",
    ],
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
    ["bptt", "full", "es", "pes"],
    "Meta-gradient: truncated backpropagation, through whole (short) runs, "
    "evolution strategies on each truncation, or persistent ones.",
    flag_values=FLAGS,
)
flags.DEFINE_enum(
    "strategy",
    "default",
    ["default", "mirrored", "multi_worker", "tpu", "parameter_server"],
    "Devices: one, all of this machine, several machines in step, a TPU, or "
    "asynchronous workers.",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "tpu", None, "With --strategy=tpu: its name.", flag_values=FLAGS
)
flags.DEFINE_integer(
    "eval_every",
    0,
    "Meta-updates between validations on held-out problems; the best weights "
    "are kept in best.npz. 0: never.",
    lower_bound=0,
    flag_values=FLAGS,
)
flags.DEFINE_list(
    "eval_problems",
    ["mlp_test"],
    "Problems to validate on, by name as --problems.",
    flag_values=FLAGS,
)
flags.DEFINE_integer(
    "eval_steps",
    200,
    "Inner steps of a validation.",
    lower_bound=1,
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "data_dir",
    None,
    "Folder of TFDS data sets, for problems that need one.",
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
    "meta_learning_rate_decay": (
        float,
        "The learning rate falls linearly to this share of itself.",
    ),
    "gradient_clip": (float, "Bound of each meta-gradient element."),
    "l2_reg": (float, "Weight of half the squared norm."),
    "perturbation": (float, "Standard deviation of perturbations (es, pes)."),
    "instance_clip": (
        float,
        "Bound of the norm of each instance's meta-gradient; 0: none.",
    ),
    "obj_train_max_multiplier": (
        float,
        "An objective beyond this multiple of its start ends the run (with es "
        "and pes: counts as this multiple); 0: no limit.",
    ),
    "use_second_derivatives": (bool, "Through the problems' gradients."),
    "use_log_objective": (bool, "Average logarithms of objectives."),
    "use_numerator_epsilon": (bool, "Epsilon inside the numerator."),
    "objective_epsilon": (
        float,
        "Where an objective's logarithm levels off, as a share of its start "
        "(in meta-training; validations always count to a millionth).",
    ),
    "seed": (int, "Of everything that is drawn."),
}
_CURRICULUM = {
    "starts": (int, "Fresh starts on each problem."),
    "min_partials": (int, "Fewest partial unrolls of a start."),
    "mean_partials": (float, "Mean of the exponential part."),
    "min_length": (int, "Fewest inner steps of a partial unroll."),
    "mean_length": (float, "Mean of the exponential part."),
    "max_steps": (int, "Inner steps after which a start ends; 0: none."),
}
_DEFINERS = {
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    bool: flags.DEFINE_bool,
}
for _name, (_type, _help) in {**_OPTIONS, **_CURRICULUM}.items():
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
    "With hierarchical_rnn: hidden sizes of the parameter, tensor and global "
    "RNN.",
    flag_values=FLAGS,
)
flags.DEFINE_bool(
    "use_attention",
    False,
    "With hierarchical_rnn: take gradients at a learned point.",
    flag_values=FLAGS,
)
flags.DEFINE_bool(
    "use_lr_shortcut",
    None,
    "With hierarchical_rnn: the learning rate itself as an input. The "
    "preset's (false with paper) if not given.",
    flag_values=FLAGS,
)
_NEWER = "If not given: that of --start_from, the preset's, or with paper "
flags.DEFINE_float(
    "min_log_lr",
    None,
    "With hierarchical_rnn: lower bound of the log learning rate, for instance "
    f"-7. {_NEWER}-33.",
    flag_values=FLAGS,
)
flags.DEFINE_float(
    "max_log_lr",
    None,
    "With hierarchical_rnn: upper bound of the log learning rate, for instance "
    f"-4. {_NEWER}33.",
    flag_values=FLAGS,
)
flags.DEFINE_bool(
    "use_parameter_scale",
    None,
    "With hierarchical_rnn: learning rates in units of the root mean square of "
    f"a tensor's starting values, where that is above 1. {_NEWER}false.",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "start_from",
    None,
    "Trained optimizer (file, folder or name) whose weights to begin with; "
    "its settings count.",
    flag_values=FLAGS,
)
flags.DEFINE_float(
    "checkpoint_every_s",
    60.0,
    "Seconds between checkpoints.",
    flag_values=FLAGS,
)
command_line.define_threads(FLAGS)
command_line.define_compile_cache(FLAGS)

# What may be given with --start_from, too.
_ADJUSTABLE = ("min_log_lr", "max_log_lr", "use_parameter_scale")
_NETS = "fully_connected_random_2_class_problems"
_QUICK_PROBLEMS = (
    *(f"wide_classifier_problems.{i}" for i in (0, 3, 4, 9)),
    *(f"{_NETS}.{i}" for i in (0, 7, 10)),
    "softmax_2_class_problems.0",
    "quadratic_problems_noisy.0",
    "optimization_test_problems.4",
    "bowl_problems.2",
)
# Networks of everyday shapes above all, and a few of whatever else there is.
_RECOMMENDED_PROBLEMS = (
    "wide_classifier_problems",
    *(f"{_NETS}.{i}" for i in (0, 1, 2, 3, 6, 7, 8, 10)),
    "softmax_2_class_problems.0",
    "softmax_2_class_problems.3",
    "softmax_2_class_problems_noisy.1",
    "softmax_2_class_problems_noisy.2",
    "sparse_gradient_problems_mlp.0",
    "sparse_gradient_problems_mlp.1",
    "quadratic_problems_noisy.0",
    "quadratic_problems_noisy.2",
    *(f"bowl_problems.{i}" for i in (0, 2, 3)),
    *(f"optimization_test_problems.{i}" for i in (0, 1, 2, 5, 7)),
    "optimization_test_problems_noisy.3",
    "matmul_problems.1",
    "matmul_problems.6",
    "log_objective_problems.1",
    "log_objective_problems.5",
    "norm_problems.0",
    "norm_problems.2",
    "sum_problems.3",
    *(f"sparse_gradient_problems.{i}" for i in (0, 1, 3, 5)),
    *(f"rescale_problems.{i}" for i in (2, 4, 6)),
)


def preset(name):
    """(problem names, `TrainingOptions`) of a preset."""
    from lopt_tf import metatraining

    if name == "paper":
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
    options = metatraining.TrainingOptions(
        meta_updates=500,
        estimator="bptt",
        instances=8,
        instance_clip=1.0,
        meta_learning_rate=1e-3,
        meta_learning_rate_decay=0.05,
        obj_train_max_multiplier=1e4,
        curriculum=metatraining.Curriculum(
            starts=1, mean_partials=6, min_length=40, mean_length=60
        ),
    )
    if name == "quick":
        return _QUICK_PROBLEMS, options
    return _RECOMMENDED_PROBLEMS, dataclasses.replace(
        options,
        meta_updates=4500,
        meta_learning_rate=5e-4,
        objective_epsilon=1e-12,
        curriculum=dataclasses.replace(options.curriculum, mean_partials=10),
    )


def rule_settings(name):
    """Settings of the hierarchical RNN that go with a preset."""
    from lopt_tf.optimizers import hierarchical_rnn

    return {} if name == "paper" else hierarchical_rnn.ROBUST


def train(names, rule, options, output_dir, resume, data_dir=None, **how):
    """Meta-trains on problems by name, and reports progress.

    Args:
        names: as for `problems.corpus.select`.
        rule: the `UpdateRule`.
        options: `TrainingOptions`.
        output_dir: folder for everything.
        resume: go on from the last checkpoint.
        data_dir: folder of TFDS data sets.
        **how: more arguments of `metatraining.train`.
    """
    from lopt_tf import metatraining
    from problems import corpus

    metatraining.train(
        corpus.select(names, data_dir),
        rule,
        options,
        output_dir=output_dir,
        resume=resume,
        report=command_line.say,
        **how,
    )
    command_line.say(f"Trained optimizer: {output_dir}/optimizer.npz")


def _program():
    try:
        _train_as_told()
    except RuntimeError as error:
        # Imported earlier, it would start TensorFlow before its settings.
        from lopt_tf import compilation

        if not isinstance(error, compilation.NoRoomError):
            raise
        if FLAGS.strategy in ("multi_worker", "parameter_server"):
            # The other processes would miss this one.
            raise ValueError(str(error)) from error
        raise command_line.Restart(str(error)) from error


def _train_as_told():
    if not FLAGS.output_dir:
        raise flags.Error("--output_dir must be given.")
    command_line.set_compile_cache(FLAGS.compile_cache)
    command_line.set_threads(FLAGS.threads)
    from lopt_tf import distribution

    if FLAGS.strategy == "parameter_server" and distribution.serve():
        return
    strategy = distribution.make(FLAGS.strategy, FLAGS.tpu)
    names, options = _options()
    rule, weights = _rule()
    train(
        FLAGS.problems or names,
        rule,
        options,
        FLAGS.output_dir,
        FLAGS.resume,
        FLAGS.data_dir,
        weights=weights,
        checkpoint_every_s=FLAGS.checkpoint_every_s,
        strategy=strategy,
        validate=_validation() if FLAGS.eval_every else None,
        eval_every=FLAGS.eval_every,
        # Workers in step stop together, between two meta-updates.
        stop=command_line.deferred_stop()
        if FLAGS.strategy == "multi_worker"
        else None,
    )


def _options():
    """(problem names, `TrainingOptions`) of the preset and the flags."""
    names, options = preset(FLAGS.preset)
    curriculum = dataclasses.replace(options.curriculum, **_given(_CURRICULUM))
    given = _given((*_OPTIONS, "estimator", "meta_optimizer"))
    return names, dataclasses.replace(options, curriculum=curriculum, **given)


def _given(names):
    return {
        name: FLAGS[name].value
        for name in names
        if FLAGS[name].value is not None
    }


def _rule():
    """(the update rule, weights to begin with or None)."""
    from lopt_tf.optimizers import learned_optimizer, registry

    if FLAGS.start_from:
        load = learned_optimizer.LearnedOptimizer.from_pretrained
        optimizer = load(FLAGS.start_from)
        rule, given = optimizer.rule, _given(_ADJUSTABLE)
        _check_goes_with_weights()
        if given and not set(given) <= set(rule.adjustable):
            raise flags.Error(f"{rule.name} has no --{next(iter(given))}.")
        config = {**rule.get_config(), **given}
        return registry.rule(rule.name, **config), optimizer.rule_weights()
    config = {}
    if FLAGS.optimizer == "hierarchical_rnn":
        sizes = _integers("level_sizes", FLAGS.level_sizes)
        config = {
            "level_sizes": sizes,
            "use_attention": FLAGS.use_attention,
            **rule_settings(FLAGS.preset),
            **_given(["use_lr_shortcut", *_ADJUSTABLE]),
        }
    return registry.rule(FLAGS.optimizer, **config), None


def _check_goes_with_weights():
    """Refuses flags that trained weights decide."""
    for name in (
        "optimizer",
        "level_sizes",
        "use_attention",
        "use_lr_shortcut",
    ):
        if FLAGS[name].present:
            raise flags.Error(
                f"--start_from decides on --{name}: leave it out."
            )


def _validation():
    from lopt_tf import metatraining
    from problems import corpus

    # Whoever converges further on problems without noise must not be chosen
    # for that alone.
    published = metatraining.TrainingOptions.objective_epsilon
    options = dataclasses.replace(_options()[1], objective_epsilon=published)
    return metatraining.Validation(
        corpus.select(FLAGS.eval_problems, FLAGS.data_dir),
        steps=FLAGS.eval_steps,
        objective=options.objective(),
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
