"""Replicas and workers compute what one device computes."""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import slow_cases
import tensorflow as tf

from lopt_tf import distribution, metatraining
from lopt_tf.metatraining import (
    estimators,
    inner_steps,
    loop,
    replicas,
    trainer,
)
from lopt_tf.optimizers.hierarchical_rnn import HierarchicalRNNRule
from problems import corpus, datasets
from problems.classifiers import FullyConnected
from problems.quadratic import Quadratic
from problems.wrappers import Reparameterized, SparseProblem

TESTS = pathlib.Path(__file__).parent


def _mirrored():
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


def _net():
    data = datasets.Dataset(datasets.random_mlp, 4, 30)
    return FullyConnected(4, 2, data, 7, (3,), noise_stdev=0.2)


def _estimates(problem, kind, strategy, config=None):
    """Two steps of an estimator on 4 instances: vectors and estimators."""
    rule = HierarchicalRNNRule(
        level_sizes=(3, 4, 5), init_lr_range=(0.02, 0.2), **(config or {})
    )
    options = metatraining.TrainingOptions(
        estimator=kind, instances=4, segment_length=3
    )
    estimator = estimators.make(
        options, problem, rule, replicas.Replicas(strategy)
    )
    weights = rule.init_weights(1)
    vector = estimators.WeightVector(weights)
    flat = vector.flatten(weights)
    constants = estimator.unroller.constants((5,))
    run, found = estimators.Run((6,)), []
    for segments in (2, 1):
        estimate, run = estimator.step(vector, flat, constants, run, segments)
        found.append(estimate)
    return estimator, run, found


@pytest.mark.parametrize(
    "problem, kind, config",
    [
        pytest.param(_net(), "bptt", {}, marks=pytest.mark.slow),
        pytest.param(
            *(_net(), "bptt", {"use_attention": True}), marks=pytest.mark.slow
        ),
        (SparseProblem(Quadratic(3), 0.5), "pes", {}),
        pytest.param(_net(), "es", {}, marks=pytest.mark.slow),
        (Quadratic(3, 0.5), "pes", {}),
        pytest.param(
            *(Reparameterized(_net(), (0.1, 10.0)), "bptt", {}),
            marks=pytest.mark.slow,
        ),
        (Reparameterized(_net(), (0.1, 10.0)), "pes", {}),
    ],
    ids=["net", "attention", "sparse", "es", "pes", "units", "units_pes"],
)
def test_two_replicas_are_one_device_with_the_doubled_batch(
    problem, kind, config
):
    _, _, alone = _estimates(problem, kind, None, config)
    estimator, _, shared = _estimates(problem, kind, _mirrored(), config)
    assert estimator.replicas.count == 2
    for ours, expected in zip(shared, alone):
        scale = np.max(np.abs(expected.gradient))
        np.testing.assert_allclose(
            ours.gradient, expected.gradient, rtol=1e-5, atol=1e-5 * scale
        )
        assert ours.meta_loss == pytest.approx(expected.meta_loss, rel=1e-5)
        assert ours.inner_steps == expected.inner_steps
        assert ours.size == expected.size and ours.lost == expected.lost == 0


def test_replicas_take_different_instances():
    estimator, run, _ = _estimates(_net(), "pes", _mirrored())
    initial = estimator.replicas.strategy.experimental_local_results(
        run.carry.initial
    )
    values = np.concatenate([part.numpy() for part in initial])
    # Each instance twice: the members of a pair begin alike.
    assert len(values) == 8 and len(set(values)) == 4


@pytest.mark.parametrize("kind", slow_cases.marked(["bptt", "pes"], "bptt"))
def test_saved_runs_do_not_depend_on_the_number_of_replicas(kind):
    one, run, _ = _estimates(_net(), kind, None)
    two, shared, _ = _estimates(_net(), kind, _mirrored())
    expected, about = one.save(run)
    saved, same = two.save(shared)
    assert about == same and set(saved) == set(expected)
    for name, array in expected.items():
        np.testing.assert_allclose(
            saved[name], array, rtol=1e-3, atol=1e-5, err_msg=name
        )
    again, _ = two.save(two.load(dict(saved), about))
    for name, array in saved.items():
        np.testing.assert_array_equal(again[name], array)


def _options(**kwargs):
    return metatraining.TrainingOptions(
        **{
            "meta_updates": 6,
            "instances": 2,
            "segment_length": 4,
            "parallel_tasks": 2,
            "curriculum": metatraining.Curriculum(
                starts=2, mean_partials=1, min_length=4, mean_length=4
            ),
            **kwargs,
        }
    )


def _train(options, folder, strategy, **kwargs):
    return metatraining.train(
        corpus.select(["bowl_problems.0", "quadratic_problems_noisy.0"]),
        HierarchicalRNNRule(level_sizes=(3, 4)),
        options,
        output_dir=folder,
        strategy=strategy,
        **kwargs,
    )


def test_training_goes_on_with_fewer_replicas(tmp_path):
    """Staggered, too: which runs end early does not depend on replicas."""
    lines = []
    options = _options(staggered_starts=True)
    begun = dataclasses.replace(options, meta_updates=3)
    _train(begun, tmp_path, _mirrored(), report=lines.append)
    assert lines[0].startswith("2 replicas in use")
    ours = _train(options, tmp_path, None, resume=True)
    alone = _train(options, None, None, report=lines.append)
    assert "1 replicas in use on 1 workers" in lines
    for name, array in alone.items():
        np.testing.assert_allclose(ours[name], array, rtol=1e-2, atol=1e-3)


def test_instances_must_be_shared_evenly():
    with pytest.raises(ValueError, match="3 instances .* 2 replicas"):
        _train(_options(instances=3), None, _mirrored())


# What a TPU needs.


@pytest.mark.parametrize("kind", ["bptt", "pes"])
@pytest.mark.parametrize(
    "problem", [Quadratic(3, 0.5), _net()], ids=["quadratic", "net"]
)
def test_compiled_steps_have_static_shapes_and_no_host_calls(problem, kind):
    estimator, run, _ = _estimates(problem, kind, None)
    unroller = estimator.unroller
    weights = HierarchicalRNNRule(level_sizes=(3, 4, 5)).init_weights(0)
    weights = {name: tf.constant(array) for name, array in weights.items()}
    constants = unroller.constants((5,))
    params, state = run.carry.params, run.carry.state
    inputs = unroller.segment_inputs((6,), 0)
    arguments = (weights, constants, params, state, inputs)
    compiled = {"forward": (unroller.forward, arguments)}
    if kind == "bptt":
        _, _, objectives, trail = unroller.forward(*arguments)
        alive = tf.ones(objectives.shape, "bool")
        bars = inner_steps.Cotangents(params, state)
        compiled["backward"] = (
            unroller.backward,
            (weights, constants, trail, inputs, alive, bars, objectives),
        )
    for function, arguments in compiled.values():
        hlo = function.experimental_get_compiler_ir(*arguments)(stage="hlo")
        assert "while(" in hlo
        for word in ("<=", "infeed", "outfeed", "host", "send(", "recv("):
            assert word not in hlo, word


# Strategies by name.


def test_strategies_by_name():
    assert distribution.make("default").num_replicas_in_sync == 1
    assert distribution.make("mirrored").num_replicas_in_sync == 2


@pytest.mark.parametrize(
    "name, config, message",
    [
        ("guess", None, "Known: default, mirrored, multi_worker, tpu"),
        ("multi_worker", None, "at least one worker"),
        ("multi_worker", "{", "TF_CONFIG cannot be read"),
        ("multi_worker", '{"cluster": {"worker": ["a:1"]}}', "this process"),
        ("parameter_server", None, "one worker and one ps and one chief"),
        ("tpu", None, "There is no TPU here"),
    ],
)
def test_strategies_that_cannot_be_made(name, config, message, monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if config:
        monkeypatch.setenv("TF_CONFIG", config)
    with pytest.raises(ValueError, match=message):
        distribution.make(name)


def test_asynchronous_workers():
    """In a process of its own: it changes what TensorFlow runs on."""
    result = subprocess.run(
        [sys.executable, TESTS / "asynchronous_run.py"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(TESTS.parent)},
    )
    assert result.returncode == 0, result.stderr[-3000:]
    found = json.loads(result.stdout.splitlines()[-1])
    assert found["lines"][0] == "2 asynchronous workers"
    assert "meta-update 8/8" in found["lines"][-1]
    # With one problem under way nothing is stale: the same as in step.
    assert found["largest_difference"] < 1e-3
    for kind in ("pes", "bptt"):
        assert found["moved"][kind] > 0 and found["finite"][kind]


def test_trainers_of_strategies():
    made = loop.new_trainer(
        corpus.select(["bowl_problems.0"]),
        HierarchicalRNNRule(level_sizes=(3,)),
        _options(),
        None,
        replicas.Replicas(),
    )
    assert type(made) is trainer.Trainer
