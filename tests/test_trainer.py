"""Meta-training: learns, can be stopped at any moment, resumes exactly."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from lopt_tf import checkpointing, metatraining
from lopt_tf.metatraining import estimators, trainer
from lopt_tf.optimizers.hierarchical_rnn import HierarchicalRNNRule
from problems import corpus
from problems.quadratic import Quadratic

NAMES = ["quadratic_problems.0", "bowl_problems.0", "norm_problems.1"]


def _options(**kwargs):
    defaults = {
        "meta_updates": 8,
        "instances": 2,
        "segment_length": 5,
        "parallel_tasks": 2,
        "curriculum": metatraining.Curriculum(
            starts=2, mean_partials=1, min_length=5, mean_length=5
        ),
    }
    return metatraining.TrainingOptions(**{**defaults, **kwargs})


def _rule():
    return HierarchicalRNNRule(level_sizes=(3, 4, 5))


def _train(options, folder=None, **kwargs):
    return metatraining.train(
        corpus.select(NAMES), _rule(), options, output_dir=folder, **kwargs
    )


def _assert_same(ours, expected):
    assert set(ours) == set(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(ours[name], array, err_msg=name)


class _Stopper:
    """Interrupts a training after so many meta-updates."""

    def __init__(self, monkeypatch, updates):
        self.left = updates
        step = trainer.Trainer.step

        def stopping(it):
            if not self.left:
                raise KeyboardInterrupt
            self.left -= 1
            return step(it)

        monkeypatch.setattr(trainer.Trainer, "step", stopping)


@pytest.mark.parametrize("estimator", estimators.ESTIMATORS)
def test_stopped_training_resumes_exactly(estimator, tmp_path, monkeypatch):
    options = _options(estimator=estimator)
    expected = _train(options)
    for stop in (1, 4):
        with monkeypatch.context() as patch:
            _Stopper(patch, stop)
            with pytest.raises(KeyboardInterrupt):
                _train(options, tmp_path, resume=stop > 1)
    _assert_same(_train(options, tmp_path, resume=True), expected)


def test_an_update_happens_whole_or_not_at_all(tmp_path, monkeypatch):
    """An interrupt may come in the middle of an update."""
    calls = []
    count = trainer.Trainer._count_skipped

    def interrupted(self, *args):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return count(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(trainer.Trainer, "_count_skipped", interrupted)
        with pytest.raises(KeyboardInterrupt):
            _train(_options(), tmp_path)
    resumed = _train(_options(), tmp_path, resume=True)
    _assert_same(resumed, _train(_options()))


def test_training_repeats_with_its_seed():
    _assert_same(_train(_options()), _train(_options()))
    other = _train(_options(seed=1))
    assert np.any(other["update"] != _train(_options())["update"])


def test_training_can_be_made_longer(tmp_path):
    _train(_options(meta_updates=3), tmp_path)
    longer = _train(_options(), tmp_path, resume=True)
    _assert_same(longer, _train(_options()))


@pytest.mark.slow
def test_training_learns():
    """On quadratics, the meta-loss falls far below where it began."""
    losses = []

    class Recorder(trainer.Trainer):
        def step(self):
            outcome = super().step()
            losses.append(outcome[1].meta_loss)
            return outcome

    options = _options(
        meta_updates=300,
        instances=16,
        segment_length=20,
        curriculum=metatraining.Curriculum(mean_partials=0, mean_length=50),
    )
    run = Recorder({"quadratic": Quadratic(5)}, HierarchicalRNNRule(), options)
    while run.update < options.meta_updates:
        run.step()
    assert np.mean(losses[-50:]) < np.mean(losses[:50]) - 0.15


def test_output_folder(tmp_path):
    lines = []
    weights = _train(_options(), tmp_path, report=lines.append)
    assert "meta-update 8/8" in lines[-1]
    assert "inner steps/s" in lines[-1] and "min left" in lines[-1]
    _, saved = checkpointing.load(
        tmp_path / "optimizer.npz", "lopt_tf.optimizer"
    )
    assert saved["config"] == _rule().get_config()
    arrays, _ = checkpointing.load(
        tmp_path / "optimizer.npz", "lopt_tf.optimizer"
    )
    _assert_same(arrays, weights)
    (events,) = (tmp_path / "tensorboard").glob("*")
    tags = {
        value.tag
        for event in tf.compat.v1.train.summary_iterator(str(events))
        for value in event.summary.value
    }
    assert "meta_loss/all" in tags
    assert len(tags & {f"meta_loss/{n.split('.')[0]}" for n in NAMES}) >= 2


def test_nothing_to_resume(tmp_path):
    with pytest.raises(ValueError, match="no checkpoint .* to resume"):
        _train(_options(), tmp_path, resume=True)


def test_folder_in_use(tmp_path):
    _train(_options(meta_updates=1), tmp_path)
    before = sorted(tmp_path.rglob("*.npz"))
    with pytest.raises(ValueError, match="already holds a meta-training"):
        _train(_options(), tmp_path)
    assert sorted(tmp_path.rglob("*.npz")) == before


def test_other_settings(tmp_path):
    _train(_options(meta_updates=1), tmp_path)
    with pytest.raises(ValueError, match="instances: saved 2, given 3"):
        _train(_options(instances=3), tmp_path, resume=True)
    with pytest.raises(ValueError, match="other settings: rule.level_sizes"):
        metatraining.train(
            corpus.select(NAMES),
            HierarchicalRNNRule(),
            _options(),
            output_dir=tmp_path,
            resume=True,
        )


def test_damaged_checkpoint(tmp_path, monkeypatch):
    options = _options()
    with monkeypatch.context() as patch:
        _Stopper(patch, 2)
        with pytest.raises(KeyboardInterrupt):
            _train(options, tmp_path)
    _train(_options(meta_updates=5), tmp_path, resume=True)
    older, newest = sorted((tmp_path / "checkpoints").glob("*.npz"))
    content = newest.read_bytes()
    newest.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=f"Delete it .* {older.name}"):
        _train(options, tmp_path, resume=True)
    newest.unlink()
    _assert_same(_train(options, tmp_path, resume=True), _train(options))


def test_negative_objectives_are_refused():
    class Negative(Quadratic):
        nonnegative = False

    with pytest.raises(ValueError, match="use_log_objective=False"):
        metatraining.train({"bad": Negative(2)}, _rule(), _options())


def test_hopeless_training_ends_with_one_error(tmp_path):
    class Broken(Quadratic):
        def loss(self, params, constants, batch=None):
            return super().loss(params, constants, batch) * np.nan

    with pytest.raises(FloatingPointError, match="last 100 meta-gradients"):
        metatraining.train(
            {"broken": Broken(2)},
            _rule(),
            _options(meta_updates=200),
            output_dir=tmp_path,
        )
    arrays, _ = checkpointing.load(
        tmp_path / "optimizer.npz", "lopt_tf.optimizer"
    )
    _assert_same(arrays, _rule().init_weights(0))


@pytest.mark.parametrize(
    "wrong",
    [
        {"estimator": "guess"},
        {"meta_optimizer": "sgd"},
        {"meta_updates": 0},
        {"instances": 0},
    ],
)
def test_bad_options(wrong):
    (name,) = wrong
    with pytest.raises(ValueError, match=name):
        _options(**wrong)


def test_options_are_values():
    assert dataclasses.replace(_options(), seed=1) == _options(seed=1)
