"""Meta-trains a learned optimizer on problems of the corpus.

    python -m train_scripts.metatrain --preset=quick --output_dir=DIR

DIR gets checkpoints, TensorBoard scalars and the trained `optimizer.npz`.
Stop it at any moment, and resume with --resume.

Several machines: start the same command on each, with TF_CONFIG set and a DIR
that all of them see. --strategy=multi_worker shares each problem's instances;
--strategy=parameter_server gives each worker a problem of its own (workers and
parameter servers run until they are terminated).
"""

import dataclasses
import pathlib
import sys

from absl import flags

from train_scripts import command_line

FLAGS = command_line.Flags()
FLAGS.str("output_dir", None, "Folder for everything.")
FLAGS.enum(
    "preset",
    "quick",
    ["quick", "recommended", "paper", "scale", "rates"],
    "quick and recommended: backpropagation with the meta-gradient of each "
    "instance clipped, and bounded learning rates; minutes on eleven small "
    "problems, and an hour or two on fifty, networks above all (add "
    "--eval_every to keep the best weights). paper: the published procedure "
    "and budget (days on a small machine). scale: recommended with wide "
    "networks, small starts, runs of 100 to 2,000 steps and averaged weights "
    "(hours on two cores). rates: of the weights of --start_from those that "
    "set the learning rates, by pes, over runs of 100 to 5,000 steps, with "
    "validations (a day).",
)
FLAGS.enum(
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
)
FLAGS.list(
    "problems",
    None,
    "Sets (bowl_problems), single problems (bowl_problems.2), or default; "
    "the preset's if not given.",
)
FLAGS.enum(
    "estimator",
    None,
    ["bptt", "full", "es", "pes"],
    "Meta-gradient: truncated backpropagation, through whole (short) runs, "
    "evolution strategies on each truncation, or persistent ones.",
)
FLAGS.enum(
    "strategy",
    "default",
    ["default", "mirrored", "multi_worker", "tpu", "parameter_server"],
    "Devices: one, all of this machine, several machines in step, a TPU, or "
    "asynchronous workers.",
)
FLAGS.str("tpu", None, "With --strategy=tpu: its name.")
FLAGS.int(
    "eval_every",
    None,
    "Meta-updates between validations on held-out problems; the best weights "
    "are kept in best.npz. 0: never; the preset's if not given.",
    lower_bound=0,
)
FLAGS.list(
    "eval_problems",
    None,
    "Problems to validate on, by name as --problems; the preset's if not "
    "given.",
)
FLAGS.int(
    "eval_steps",
    None,
    "Inner steps of a validation; the preset's if not given.",
    lower_bound=1,
)
FLAGS.str(
    "data_dir", None, "Folder of TFDS data sets, for problems that need one."
)
FLAGS.long_run()
_OPTIONS = {
    "meta_updates": (int, "Number of meta-updates."),
    "instances": (int, "Problem instances side by side."),
    "segment_length": (int, "Inner steps in one compiled call."),
    "truncation": (int, "Inner steps after which a gradient is cut."),
    "parallel_tasks": (int, "Problems under way at a time."),
    "staggered_starts": (
        bool,
        "The first runs end early at random, so that later ones do not begin "
        "together.",
    ),
    "meta_learning_rate": (float, "Learning rate of the meta-optimizer."),
    "meta_learning_rate_decay": (
        float,
        "The learning rate falls linearly to this share of itself.",
    ),
    "meta_weight_decay": (
        float,
        "With adamw: each update goes the learning rate times this share of "
        "the way back to the weights that training began with.",
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
    "use_minibatch_objective": (
        bool,
        "With es and pes: the objective is the loss that a step sees.",
    ),
    "use_numerator_epsilon": (bool, "Epsilon inside the numerator."),
    "objective_epsilon": (
        float,
        "Where an objective's logarithm levels off, as a share of its start "
        "(in meta-training; validations always count to a millionth).",
    ),
    "min_parameter_scale": (
        float,
        "With --max_parameter_scale: each instance trains parameters in a "
        "unit of its own, log-uniform between the two (say 1e-3 and 1e3).",
    ),
    "max_parameter_scale": (float, "See --min_parameter_scale."),
    "trained_weights": (
        list,
        "Train these weights only (say learning_rate,learning_rate_bias,"
        "learning_rate_momentum,step_offset, the rates' part of a "
        "hierarchical RNN), and leave those of --start_from.",
    ),
    "weight_average_decay": (
        float,
        "Validate and save a moving average of the weights, of this decay at "
        "each meta-update (say 0.99); 0: the weights themselves.",
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
    "min_steps": (
        int,
        "Draw each start's number of inner steps log-uniformly between this "
        "and --max_steps, however many partial unrolls that makes; 0: do not.",
    ),
}
FLAGS.options({**_OPTIONS, **_CURRICULUM}, "{} The preset's if not given.")
FLAGS.enum(
    "meta_optimizer",
    None,
    ["adam", "adamw", "rmsprop"],
    "Updates the weights; adamw needs --meta_weight_decay.",
)
_RULE_SETTINGS = {
    "level_sizes": (
        list,
        "hidden sizes of the parameter, tensor and global RNN, by default "
        "10,20,20.",
    ),
    "use_attention": (bool, "take gradients at a learned point."),
    "use_lr_shortcut": (bool, "the learning rate itself as an input."),
    "min_log_lr": (
        float,
        "lower bound of the log learning rate, for instance -7.",
    ),
    "max_log_lr": (
        float,
        "upper bound of the log learning rate, for instance -4.",
    ),
    "use_parameter_scale": (
        bool,
        "learning rates in units of the root mean square of a tensor's "
        "starting values, where that is above 1.",
    ),
    "step_unit": (
        str,
        "'start': gradients and learning rates in a unit that is measured "
        "where each tensor starts; 'role': that, and by what embeddings and "
        "attention are for; '' for none.",
    ),
    "rest_without_gradient": (
        bool,
        "elements that never had a gradient stay where they are.",
    ),
    "bound_reference": (
        str,
        "what --min_log_lr is relative to: the gradients of the 'first' step "
        "or the 'least' ones so far.",
    ),
}
FLAGS.options(
    _RULE_SETTINGS,
    "With hierarchical_rnn: {} If not given: that of --start_from, or the "
    "preset's.",
)
FLAGS.str(
    "start_from",
    None,
    "Trained optimizer (file, folder or name) whose weights to begin with; "
    "its settings count (but for the lower bound, with --preset=rates).",
)


@command_line.main(FLAGS, "output_dir")
def main():
    from lopt_tf import compilation, distribution

    _refuse_ignored()
    if FLAGS.strategy == "parameter_server" and distribution.serve():
        return
    strategy = distribution.make(FLAGS.strategy, FLAGS.tpu)
    before = _checkpoints()
    try:
        _train(strategy)
    except compilation.NoRoomError as error:
        if FLAGS.strategy in ("multi_worker", "parameter_server"):
            # The other processes would miss this one.
            raise ValueError(str(error)) from error
        if _checkpoints() == before:
            # Another process would come no further.
            raise ValueError(f"{error} Here not one step has room.") from error
        raise command_line.Restart(str(error)) from error
    command_line.say(f"Trained optimizer: {FLAGS.output_dir}/optimizer.npz")


def _checkpoints():
    """The names of the run's checkpoints."""
    folder = pathlib.Path(FLAGS.output_dir or ".") / "checkpoints"
    return sorted(path.name for path in folder.glob("*.npz"))


def _refuse_ignored():
    """Refuses flags that others make meaningless."""
    if FLAGS.strategy != "tpu":
        FLAGS.refuse(["tpu"], "without --strategy=tpu")
    if FLAGS.optimizer != "hierarchical_rnn" and not FLAGS.start_from:
        FLAGS.refuse(_RULE_SETTINGS, f"with --optimizer={FLAGS.optimizer}")


def _refuse_unused(options):
    """Refuses flags that the options make meaningless."""
    estimator = f"with --estimator={options.estimator}"
    if options.estimator in ("bptt", "full"):
        FLAGS.refuse(["perturbation"], estimator)
    else:
        FLAGS.refuse(["use_second_derivatives"], estimator)
    if options.curriculum.min_steps:
        names = ("min_partials", "mean_partials")
        FLAGS.refuse(names, "where --min_steps decides")
        if options.estimator != "bptt":
            # Only truncations cut such runs, or nothing does.
            names = ("min_length", "mean_length")
            FLAGS.refuse(names, f"beside --min_steps {estimator}")
    if not options.use_log_objective:
        names = ("objective_epsilon", "use_numerator_epsilon")
        FLAGS.refuse(names, "with --nouse_log_objective")


def _check_start(options, rule):
    """Refuses to train a part of weights that nobody has trained."""
    if not options.trained_weights or FLAGS.start_from:
        return
    begun = pathlib.Path(FLAGS.output_dir) / "checkpoints"
    if FLAGS.resume and any(begun.glob("*.npz")):
        return
    first, second = (rule.init_weights(seed) for seed in (0, 1))
    if any((first[name] != second[name]).any() for name in first):
        raise flags.Error(
            f"Only {', '.join(options.trained_weights)} would be trained, and "
            "all other weights stay random: --start_from must name trained "
            "ones, such as --start_from=hierarchical_rnn_scaled."
        )


def _train(strategy):
    from lopt_tf import metatraining
    from lopt_tf.metatraining import presets
    from problems import corpus

    preset = presets.PRESETS[FLAGS.preset]
    options = _changed(preset.options)
    _refuse_unused(options)
    rule, weights = _rule(preset.rule_settings, preset.lower_bound)
    _check_start(options, rule)
    if not getattr(rule, "has_lower_bound", False):
        FLAGS.refuse(["bound_reference"], "without --min_log_lr")
    # What was begun with it goes on with it.
    scaled = FLAGS.use_parameter_scale and not FLAGS.resume
    if scaled and getattr(rule, "step_unit", None):
        unit = f"with --step_unit={rule.step_unit}"
        FLAGS.refuse(["use_parameter_scale"], unit)
    validations = _validations(preset.validations, options)
    problems = FLAGS.problems or preset.problems
    corpus.check_data_dir(
        [*problems, *(validations.problems if validations.every else ())],
        FLAGS.data_dir,
    )
    in_step = FLAGS.strategy == "multi_worker"
    metatraining.train(
        corpus.select(problems, FLAGS.data_dir),
        rule,
        options,
        weights=weights,
        output_dir=FLAGS.output_dir,
        resume=FLAGS.resume,
        checkpoint_every_s=FLAGS.checkpoint_every_s,
        report=command_line.say,
        strategy=strategy,
        validate=_validate(validations, options) if validations.every else None,
        eval_every=validations.every,
        # Workers in step stop together, between two meta-updates.
        stop=command_line.deferred_stop() if in_step else None,
    )


def _changed(options):
    """The preset's `TrainingOptions` with what the flags say."""
    curriculum = dataclasses.replace(
        options.curriculum, **FLAGS.given(_CURRICULUM)
    )
    given = FLAGS.given((*_OPTIONS, "estimator", "meta_optimizer"))
    if "trained_weights" in given:
        given["trained_weights"] = tuple(given["trained_weights"])
    return dataclasses.replace(options, curriculum=curriculum, **given)


def _rule(settings, lower_bound):
    """(the update rule, weights to begin with or None).

    Args:
        settings: of the hierarchical RNN, where the flags say nothing.
        lower_bound: in place of a higher one of trained weights, or None.
    """
    from lopt_tf.optimizers import pretrained, registry

    given = FLAGS.given(_RULE_SETTINGS)
    if FLAGS.start_from:
        trained = pretrained.load_rule(FLAGS.start_from)
        for name in ("optimizer", *given):
            if FLAGS[name].present and name not in trained.rule.adjustable:
                raise flags.Error(
                    f"--start_from decides on --{name}: leave it out."
                )
        lower = _lower_bound(trained.rule, lower_bound)
        config = {**trained.rule.get_config(), **lower, **given}
        return registry.rule(trained.rule.name, **config), trained.weights
    if FLAGS.optimizer != "hierarchical_rnn":
        return registry.rule(FLAGS.optimizer), None
    if FLAGS.level_sizes:
        given["level_sizes"] = FLAGS.integers("level_sizes")
    return registry.rule(FLAGS.optimizer, **{**settings, **given}), None


def _lower_bound(rule, most):
    """{"min_log_lr": most} for a rule whose bound is a higher one, or {}."""
    if most is None or not getattr(rule, "has_lower_bound", False):
        return {}
    if FLAGS.min_log_lr is not None or rule.min_log_lr <= most:
        return {}
    command_line.say(
        f"--preset={FLAGS.preset} takes min_log_lr={most:g} in place of "
        f"{rule.min_log_lr:g}, in validations, too; --min_log_lr decides else"
    )
    return {"min_log_lr": most}


def _validations(preset, options):
    """The preset's `Validations` with what the flags say."""
    given = FLAGS.given(("eval_every", "eval_steps", "eval_problems"))
    given = {name.removeprefix("eval_"): x for name, x in given.items()}
    found = preset._replace(**given)
    if not found.every:
        FLAGS.refuse(("eval_problems", "eval_steps"), "without --eval_every")
    if found.every > options.meta_updates:
        raise flags.Error(
            f"--eval_every={found.every} is beyond the end, "
            f"{options.meta_updates} meta-updates: nothing would be validated. "
            "Choose a lower number, or 0."
        )
    return found


def _validate(validations, options):
    from lopt_tf import metatraining
    from problems import corpus

    # Convergence beyond the published epsilon on problems without noise must
    # not decide which weights are best; nor must one problem, whose loss has
    # grown a hundredfold, where logarithms can be taken.
    published = metatraining.TrainingOptions.objective_epsilon
    problems = corpus.select(validations.problems, FLAGS.data_dir)
    has_log = all(each.nonnegative for each in problems.values())
    options = dataclasses.replace(
        options, objective_epsilon=published, use_log_objective=has_log
    )
    return metatraining.Validation(
        problems, steps=validations.steps, objective=options.objective()
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv))
