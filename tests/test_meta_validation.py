"""Validation during meta-training: what it measures, what it keeps."""

import shutil

import numpy as np
import pytest
import trainings

from lopt_tf import checkpointing, metatraining
from lopt_tf.metatraining import unroll, validation
from lopt_tf.optimizers.hierarchical_rnn import HierarchicalRNNRule
from problems import corpus
from problems.quadratic import Quadratic


def test_validation_keeps_the_best(tmp_path, monkeypatch):
    losses = iter([3.0, 1.0, 2.0, 0.5])
    weights = []

    def validate(rule, trained):
        weights.append(trained)
        return {"held_out.0": next(losses), "held_out.1": 1.0}

    lines = []

    def train(meta_updates, **kwargs):
        trainings.train(
            trainings.options(meta_updates=meta_updates),
            tmp_path,
            validate=validate,
            eval_every=2,
            report=lines.append,
            **kwargs,
        )
        return checkpointing.load(tmp_path / "best.npz", "lopt_tf.optimizer")[0]

    trainings.assert_same(train(5), weights[1])
    # A resumed training knows what the best one was.
    trainings.assert_same(train(7, resume=True), weights[1])
    trainings.assert_same(train(8, resume=True), weights[3])
    said = [line for line in lines if line.startswith("validation")]
    assert said[1] == "validation after meta-update 4: 1.0000 (best so far)"
    assert said[2] == "validation after meta-update 6: 1.5000"
    tags = trainings.tags(tmp_path)
    assert {"validation/all", "validation/held_out.0"} <= tags


def test_the_weights_at_the_start_may_be_the_best(tmp_path):
    """And a checkpoint tells which were, wherever it is taken to."""
    losses = iter([1.0, 3.0, 2.0])
    start = trainings.rule().init_weights(7)
    own, other = tmp_path / "own", tmp_path / "other"

    def train(meta_updates, folder, **kwargs):
        trainings.train(
            trainings.options(meta_updates=meta_updates),
            folder,
            validate=lambda rule, trained: {"held_out": next(losses)},
            eval_every=2,
            weights=start,
            **kwargs,
        )
        return checkpointing.load(folder / "best.npz", "lopt_tf.optimizer")[0]

    trainings.assert_same(train(2, own), start)
    (other / "checkpoints").mkdir(parents=True)
    (path,) = (own / "checkpoints").glob("*2.npz")
    shutil.copy(path, other / "checkpoints")
    trainings.assert_same(train(4, other, resume=True), start)
    assert not list(losses)


def test_validation_measures_the_meta_objective():
    problem = Quadratic(3)
    rule = trainings.rule()
    weights = rule.init_weights(1)
    validate = metatraining.Validation(
        {"a": problem, "b": Quadratic(2)}, instances=4, steps=30
    )
    best = validation.BestWeights(validate, 1)
    assert best.num_compilations() == 0
    first = validate(rule, weights)
    compilations = best.num_compilations()
    assert compilations >= 2
    assert first == validate(rule, weights)
    assert best.num_compilations() == compilations
    unroller = unroll.Unroller(problem, rule, 4, 40)
    constants = unroller.constants((0, 9, 0))
    start = unroller.draw_start((0, 9, 0))
    carry = unroller.begin(weights, constants, start)
    _, objectives, _ = unroller.advance(
        weights, constants, carry, unroller.segment_inputs((0, 9, 0), 0)
    )
    logs = np.log(objectives / (carry.initial + 1e-6) + 1e-6)
    assert first["a"] == pytest.approx(np.mean(logs), rel=1e-3)
    with pytest.raises(ValueError, match="no problems to validate on"):
        metatraining.Validation({})
    with pytest.raises(ValueError, match="can be negative"):
        metatraining.Validation(corpus.select(["saddle"]))
    with pytest.raises(ValueError, match="needs `validate`"):
        trainings.train(trainings.options(), eval_every=2)


def test_another_validation_is_noticed(tmp_path):
    """Its best loss would be compared with other problems' losses."""

    def train(meta_updates, problem=None, **kwargs):
        if problem is not None:
            validate = metatraining.Validation(
                {"a": problem}, instances=2, steps=20
            )
            kwargs |= {"validate": validate, "eval_every": 1}
        trainings.train(
            trainings.options(meta_updates=meta_updates), tmp_path, **kwargs
        )

    train(1)
    # Nothing was measured so far.
    train(2, Quadratic(3), resume=True)
    for changes in ({"problem": Quadratic(2)}, {}):
        with pytest.raises(checkpointing.CheckpointError, match="validation"):
            train(3, **changes, resume=True)
    train(3, Quadratic(3), resume=True)


def test_one_validation_serves_two_rules():
    """Each is measured as by a validation of its own."""
    problems = corpus.select(["bowl_problems.1"])
    shared = metatraining.Validation(problems, instances=2, steps=20)
    for rule in (
        HierarchicalRNNRule(level_sizes=(3,)),
        HierarchicalRNNRule(level_sizes=(3,), max_log_lr=-9.0),
    ):
        own = metatraining.Validation(problems, instances=2, steps=20)
        weights = rule.init_weights(0)
        assert shared(rule, weights) == own(rule, weights)


@pytest.mark.slow
def test_interrupted_validation_is_made_up_for(tmp_path):
    def train(validate, **kwargs):
        options = trainings.options(meta_updates=4)
        trainings.train(
            options, tmp_path, validate=validate, eval_every=2, **kwargs
        )

    def interrupted(rule, weights):
        raise KeyboardInterrupt

    calls = []

    def validate(rule, weights):
        calls.append(weights)
        return {"held_out.0": 1.0}

    with pytest.raises(KeyboardInterrupt):
        train(interrupted)
    train(validate, resume=True)
    assert len(calls) == 2
    trainings.assert_same(
        calls[0],
        metatraining.train(
            corpus.select(trainings.NAMES),
            trainings.rule(),
            trainings.options(meta_updates=2),
        ),
    )
