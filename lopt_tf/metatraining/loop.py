"""Meta-training: problems in, trained weights out, to be stopped any time."""

import tensorflow as tf

from lopt_tf import distribution, long_run
from lopt_tf.metatraining import options as options_lib
from lopt_tf.metatraining import parameter_server, validation
from lopt_tf.metatraining import replicas as replicas_lib
from lopt_tf.metatraining import trainer as trainer_lib

KIND = "lopt_tf.metatraining"


def train(
    problems,
    rule,
    options=None,
    *,
    weights=None,
    output_dir=None,
    resume=False,
    checkpoint_every_s=60.0,
    report=None,
    strategy=None,
    validate=None,
    eval_every=0,
    stop=None,
):
    """Meta-trains an update rule (paper, section 4).

    Args:
        problems: {name: Problem}, for instance from `problems.corpus.select`.
        rule: an `UpdateRule`.
        options: `TrainingOptions`; the defaults if None.
        weights: meta-parameters to start from; drawn by the seed if None.
        output_dir: where checkpoints, TensorBoard scalars and the trained
            optimizer (`optimizer.npz`) go; None writes nothing. Several
            workers need one folder that all of them see.
        resume: resume from the newest checkpoint in `output_dir`.
        checkpoint_every_s: seconds between checkpoints.
        report: a function of one line of text, called every few seconds.
        strategy: a `tf.distribute.Strategy`. Its replicas share each
            problem's instances, and the meta-gradient is averaged; the
            workers of a `ParameterServerStrategy` each have a problem of
            their own. The current one if None.
        validate: a `Validation` on held-out problems.
        eval_every: meta-updates between validations; the weights with the
            best mean so far, `weights` included, are kept in `best.npz`. 0
            validates never.
        stop: a function that tells whether to save and stop after the
            present meta-update. Several workers stop together.

    Returns:
        The trained meta-parameters, {name: NumPy array [out, in]}.

    Raises:
        CheckpointError: if there is nothing to resume, the checkpoint is
            damaged or of other settings, or (without `resume`) `output_dir`
            already holds checkpoints.
        NoRoomError: if the process cannot hold the compiled programs of one
            more problem; everything is saved, to be resumed in a new one.
        FloatingPointError: after 100 meta-gradients without a finite one, or
            if an update makes the weights infinite.
        WorkerLostError: if another worker does not answer any more; what
            the last checkpoint holds is not lost.
        ValueError: if another process works in `output_dir`.
        KeyboardInterrupt: when interrupted or after `stop`, with everything
            saved.
    """
    trainer = new_trainer(
        problems,
        rule,
        options or options_lib.TrainingOptions(),
        weights,
        replicas_lib.Replicas(strategy),
        validation.BestWeights(validate, eval_every, weights is not None),
    )
    run = long_run.LongRun(
        trainer,
        KIND,
        output_dir,
        report,
        checkpoint_every_s,
        stop,
        trainer.replicas,
    )
    with distribution.lost_workers_reported(), trainer.watch():
        run.run(resume)
    return trainer.trained_weights()


def new_trainer(problems, rule, options, weights, replicas, best=None):
    """The `Trainer` for the strategy of `replicas`; see there."""
    asynchronous = isinstance(
        replicas.strategy, tf.distribute.ParameterServerStrategy
    )
    kind = parameter_server.AsynchronousTrainer
    made = kind if asynchronous else trainer_lib.Trainer
    return made(problems, rule, options, weights, replicas, best)
