"""Meta-training: learns, can be stopped at any moment, resumes exactly."""

import csv
import dataclasses
import pathlib
import shutil

import influence_balancing
import keras
import numpy as np
import pytest
import slow_cases
import tensorflow as tf

from lopt_tf import checkpointing, metatraining
from lopt_tf.metatraining import (
    estimators,
    problem_runs,
    replicas,
    trainer,
    unroll,
)
from lopt_tf.optimizers.hierarchical_rnn import HierarchicalRNNRule
from problems import corpus, datasets
from problems.classifiers import FullyConnected
from problems.keras_model import KerasModelProblem
from problems.quadratic import Quadratic
from problems.wrappers import Reparameterized

NAMES = ["norm_problems.1", "bowl_problems.0"]
DATA = pathlib.Path(__file__).parent / "data" / "first_release"


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


class Broken(Quadratic):
    """A quadratic whose objective is never finite."""

    def loss(self, params, constants, batch=None):
        return super().loss(params, constants, batch) * np.nan


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


@pytest.mark.parametrize(
    "estimator", slow_cases.marked(estimators.ESTIMATORS, "full", "bptt")
)
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


def test_a_training_of_the_first_release_resumes_exactly(tmp_path):
    """As it did then: stopped after 7 of 12 meta-updates."""
    folder = tmp_path / "run"
    shutil.copytree(DATA / "metatraining", folder)
    expected = np.load(folder / "resumed.npz")
    best = (folder / "best.npz").read_bytes()

    def validate(rule, weights):
        return {"held_out.0": float(sum(np.sum(w) for w in weights.values()))}

    weights = metatraining.train(
        corpus.select([*NAMES, "softmax_2_class_problems_noisy.0"]),
        _rule(),
        _options(meta_updates=12, parallel_tasks=3),
        output_dir=folder,
        resume=True,
        validate=validate,
        eval_every=3,
    )
    # Other processors round otherwise; an update moves weights by about .003.
    for name, array in weights.items():
        np.testing.assert_allclose(
            array, expected[name], rtol=1e-4, atol=1e-5, err_msg=name
        )
    # Validations were worse than the best before.
    assert (folder / "best.npz").read_bytes() == best


@pytest.mark.slow
def test_training_repeats_with_its_seed():
    _assert_same(_train(_options()), _train(_options()))
    other = _train(_options(seed=1))
    assert np.any(other["update"] != _train(_options())["update"])


@pytest.mark.slow
def test_training_can_be_made_longer(tmp_path):
    lines = []
    _train(_options(meta_updates=3), tmp_path)
    longer = _train(_options(), tmp_path, resume=True, report=lines.append)
    _assert_same(longer, _train(_options()))
    assert not any("note" in line for line in lines)


def test_a_longer_run_with_a_falling_learning_rate_is_another_one(tmp_path):
    lines = []
    decay = {"meta_learning_rate_decay": 0.1}
    _train(_options(meta_updates=3, **decay), tmp_path)
    _train(_options(**decay), tmp_path, resume=True, report=lines.append)
    assert "falls over 8 meta-updates, before over 3" in lines[1]


@pytest.mark.slow
def test_training_learns():
    """On quadratics, the meta-loss falls far below where it began."""
    losses = []

    class Recorder(trainer.Trainer):
        def step(self):
            row = super().step()
            losses.append(row["meta_loss/all"])
            return row

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


def test_public_names_are_listed():
    public = set(metatraining.__all__)
    assert {"train", "TrainingOptions", "Validation"} <= public
    assert public <= set(dir(metatraining))


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
    tags = _tags(tmp_path)
    assert "meta_loss/all" in tags
    assert any(tag.startswith("meta_loss_of_problem/") for tag in tags)
    assert len(tags & {f"meta_loss/{n.split('.')[0]}" for n in NAMES}) >= 2


@pytest.mark.parametrize("error", [KeyboardInterrupt, FloatingPointError])
def test_a_start_that_fails_leaves_nothing(error, tmp_path, monkeypatch):
    def step(self):
        raise error("at once")

    monkeypatch.setattr(trainer.Trainer, "step", step)
    with pytest.raises(error):
        _train(_options(), tmp_path / "run")
    with pytest.raises(ValueError, match="no checkpoint .* to resume"):
        _train(_options(), tmp_path / "run", resume=True)
    assert not any(tmp_path.iterdir())


def test_resuming_after_hopeless_updates_counts_anew(tmp_path, monkeypatch):
    monkeypatch.setattr(trainer, "_MOST_IN_A_ROW", 3)
    kwargs = {"output_dir": tmp_path}
    for last in (2, 4):
        with pytest.raises(FloatingPointError, match="last 3 meta-gradients"):
            metatraining.train(
                {"broken": Broken(2)}, _rule(), _options(), **kwargs
            )
        assert (
            tmp_path / "checkpoints" / f"checkpoint-{last:08d}.npz"
        ).exists()
        kwargs["resume"] = True


def test_nothing_to_resume(tmp_path):
    with pytest.raises(ValueError, match="no checkpoint .* to resume"):
        _train(_options(), tmp_path, resume=True)


def test_folder_in_use(tmp_path):
    _train(_options(meta_updates=1), tmp_path)
    before = sorted(tmp_path.rglob("*.npz"))
    with pytest.raises(ValueError, match="already holds a meta-training"):
        _train(_options(), tmp_path)
    assert sorted(tmp_path.rglob("*.npz")) == before


@pytest.mark.slow
def test_options_newer_than_the_checkpoint(tmp_path):
    """They count as their defaults, which is what the run was made with."""
    _train(_options(meta_updates=1), tmp_path)
    store = checkpointing.Checkpoints(
        tmp_path / "checkpoints", "lopt_tf.metatraining"
    )
    arrays, metadata = store.load_latest()
    del metadata["settings"]["options"]["instance_clip"]
    del metadata["settings"]["rule"]["use_parameter_scale"]
    store.save(metadata["update"], arrays, metadata)
    _train(_options(), tmp_path, resume=True)
    with pytest.raises(ValueError, match="other settings: options.instance"):
        _train(_options(instance_clip=1.0), tmp_path, resume=True)
    rule = HierarchicalRNNRule(level_sizes=(3, 4, 5), use_parameter_scale=True)
    with pytest.raises(ValueError, match="settings: rule.use_parameter_scale"):
        metatraining.train(
            corpus.select(NAMES),
            rule,
            _options(),
            output_dir=tmp_path,
            resume=True,
        )


def test_scale_options_newer_than_the_checkpoint(tmp_path):
    """A part of the curriculum, too, counts as its default."""
    _train(_options(meta_updates=1), tmp_path)
    store = checkpointing.Checkpoints(
        tmp_path / "checkpoints", "lopt_tf.metatraining"
    )
    arrays, metadata = store.load_latest()
    options = metadata["settings"]["options"]
    del options["min_parameter_scale"], options["max_parameter_scale"]
    del options["weight_average_decay"], options["curriculum"]["min_steps"]
    store.save(metadata["update"], arrays, metadata)
    others = [
        {"max_parameter_scale": 10.0},
        {"weight_average_decay": 0.9},
        {
            "curriculum": dataclasses.replace(
                _options().curriculum, min_steps=5, max_steps=10
            )
        },
    ]
    for other in others:
        with pytest.raises(ValueError, match="other settings: options"):
            _train(_options(**other), tmp_path, resume=True)
    resumed = _train(_options(), tmp_path, resume=True)
    _assert_same(resumed, _train(_options()))


SCALES = {"min_parameter_scale": 1e-3, "max_parameter_scale": 1e3}


def test_training_in_other_units_resumes_exactly(tmp_path, monkeypatch):
    options = _options(**SCALES)
    expected = _train(options)
    with monkeypatch.context() as patch:
        _Stopper(patch, 3)
        with pytest.raises(KeyboardInterrupt):
            _train(options, tmp_path)
    _assert_same(_train(options, tmp_path, resume=True), expected)
    plain = _train(_options())
    assert any(np.any(plain[name] != expected[name]) for name in plain)


def test_every_problem_is_trained_in_other_units():
    """Each instance in one unit for all its starts."""
    problems = corpus.select(NAMES)
    runs = problem_runs.ProblemRuns(
        problems, _rule(), _options(**SCALES), replicas.Replicas()
    )
    for number in range(2):
        it = runs.draw(number)
        problem = runs.estimator(it.name).unroller.problem
        assert problem == Reparameterized(problems[it.name], (1e-3, 1e3))
        first, second = np.split(it.constants["alpha"], 2)
        # The runs of a pair share one.
        np.testing.assert_array_equal(first, second)
        assert len(set(first)) == 2
        assert runs.next_start(it).constants is it.constants
    assert _options().scaled(Quadratic(2)) == Quadratic(2)


RATE_HEAD = ("learning_rate", "learning_rate_bias", "learning_rate_momentum")


@pytest.mark.parametrize(
    "estimator", slow_cases.marked(["bptt", "pes"], "bptt")
)
def test_only_named_weights_are_trained(estimator, tmp_path):
    """Not even the perturbations of the others count."""
    start = _rule().init_weights(seed=0)
    options = _options(
        estimator=estimator, trained_weights=RATE_HEAD, l2_reg=0.1
    )
    trained = _train(options, tmp_path, weights=start)
    changed = {n for n in start if np.any(start[n] != trained[n])}
    assert changed == set(RATE_HEAD)
    _assert_same(_train(options, tmp_path, weights=start, resume=True), trained)
    with pytest.raises(ValueError, match="Unknown weights rate. Known: global"):
        _train(_options(trained_weights=("rate",)), weights=start)


def test_shares_of_problems(tmp_path, monkeypatch):
    """A table says which problems the inner steps were spent on."""
    with monkeypatch.context() as patch:
        _Stopper(patch, 3)
        with pytest.raises(KeyboardInterrupt):
            _train(_options(), tmp_path)
    _train(_options(), tmp_path, resume=True)
    with open(tmp_path / "problems.csv") as file:
        rows = list(csv.DictReader(file))
    assert {row["problem"] for row in rows} == set(NAMES)
    latest = checkpointing.Checkpoints(
        tmp_path / "checkpoints", "lopt_tf.metatraining"
    )
    _, metadata = latest.load_latest()
    steps = sum(int(row["inner_steps"]) for row in rows)
    assert steps == metadata["inner_steps"] > 0
    assert sum(float(row["share"]) for row in rows) == pytest.approx(1)
    (bowl,) = (r for r in rows if r["problem"] == "bowl_problems.0")
    assert int(bowl["parameters"]) == 2


def test_averaged_weights(tmp_path, monkeypatch):
    """They are what is validated, saved and returned; training is the same."""
    decay, every = 0.5, []
    step = trainer.Trainer.step

    def noting(self):
        row = step(self)
        every.append(self.vector.unflatten(self.weights))
        return row

    validated = []

    def validate(rule, weights):
        validated.append(weights)
        return {"held_out.0": 1.0}

    def train(updates, **kwargs):
        options = _options(meta_updates=updates, weight_average_decay=decay)
        return _train(
            options, tmp_path, validate=validate, eval_every=6, **kwargs
        )

    with monkeypatch.context() as patch:
        patch.setattr(trainer.Trainer, "step", noting)
        train(5)
        average = train(8, resume=True)
    plain = _train(_options())
    for name, array in plain.items():
        values = [weights[name].numpy() for weights in every]
        np.testing.assert_array_equal(values[-1], array)
        # The mean of two, then half of each more.
        expected = [values[0], (values[0] + values[1]) / 2]
        for value in values[2:]:
            expected.append((expected[-1] + value) / 2)
        np.testing.assert_allclose(average[name], expected[-1], atol=1e-6)
        np.testing.assert_allclose(validated[0][name], expected[5], atol=1e-6)
        assert np.any(average[name] != array) or np.all(values[0] == array)
    saved, _ = checkpointing.load(
        tmp_path / "optimizer.npz", "lopt_tf.optimizer"
    )
    _assert_same(saved, average)


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


def _keras_problem(loss):
    def build_model():
        layers = [keras.layers.Input((3,)), keras.layers.Dense(2)]
        return keras.Sequential(layers, name="small")

    data, labels = np.ones((6, 3), "float32"), np.ones((6, 2), "float32")
    return KerasModelProblem(build_model, data, labels, loss, 2)


def _net(num_scored):
    data = datasets.Dataset(datasets.random_mlp, 4, 30)
    return FullyConnected(4, 2, data, 7, (3,), num_scored=num_scored)


@pytest.mark.parametrize(
    "make, before, after",
    [(_net, None, 5), (_keras_problem, "mse", "mae")],
    ids=["scored_examples", "keras_loss"],
)
def test_another_objective_is_noticed(make, before, after, tmp_path):
    def train(value, **kwargs):
        metatraining.train(
            {"net": make(value)},
            _rule(),
            _options(meta_updates=1, instances=1),
            output_dir=tmp_path,
            **kwargs,
        )

    train(before)
    train(before, resume=True)
    with pytest.raises(ValueError, match="other settings: objectives.net"):
        train(after, resume=True)


def test_problems_of_first_release_checkpoints(tmp_path):
    """Their texts left settings out: types and names count."""
    _train(_options(meta_updates=1), tmp_path)
    store = checkpointing.Checkpoints(
        tmp_path / "checkpoints", "lopt_tf.metatraining"
    )
    arrays, metadata = store.load_latest()
    settings = metadata["settings"]
    del settings["objectives"]
    lines = []
    for text in ("Bowl(0.1)", "Quadratic(2)"):
        settings["problems"] = {NAMES[0]: "Norm(5)", NAMES[1]: text}
        store.save(1, arrays, metadata)
        if text.startswith("Bowl"):
            _train(_options(), tmp_path, resume=True, report=lines.append)
            assert "does not hold all settings of its problems" in lines[1]
        shutil.rmtree(tmp_path / "checkpoints")
    store.save(1, arrays, metadata)
    with pytest.raises(ValueError, match=r"bowl.*saved 'Quadratic\(2\)'"):
        _train(_options(), tmp_path, resume=True)


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
    lines = []
    resumed = _train(options, tmp_path, resume=True, report=lines.append)
    assert newest.name in lines[0]
    assert lines[0].endswith(f"damaged; resuming from {older.name}")
    _assert_same(resumed, _train(options))


def test_negative_objectives_are_refused():
    class Negative(Quadratic):
        nonnegative = False

    with pytest.raises(ValueError, match="use_log_objective=False"):
        metatraining.train({"bad": Negative(2)}, _rule(), _options())


def test_hopeless_training_ends_with_one_error(tmp_path):
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
        {"weight_average_decay": 1.0},
        {"weight_average_decay": -0.1},
        {"min_parameter_scale": 0.0},
        {"min_parameter_scale": 2.0},
        {"max_parameter_scale": float("inf")},
    ],
)
def test_bad_options(wrong):
    (name,) = wrong
    with pytest.raises(ValueError, match=name):
        _options(**wrong)


def test_runs_have_at_least_a_segment():
    curriculum = metatraining.Curriculum(min_steps=4, max_steps=100)
    with pytest.raises(ValueError, match="min_steps=4, segment_length=5"):
        _options(curriculum=curriculum)


def test_options_are_values():
    assert dataclasses.replace(_options(), seed=1) == _options(seed=1)


def test_plans_of_the_estimators():
    curriculum = metatraining.Curriculum(
        min_partials=2, mean_partials=0, min_length=20, mean_length=0
    )

    def plan(**kwargs):
        options = _options(curriculum=curriculum, **kwargs)
        return options.plan(np.random.default_rng(0))

    assert plan(estimator="bptt") == [4, 4]
    assert plan(estimator="bptt", truncation=15) == [3, 1, 3, 1]
    assert plan(estimator="full") == [8]
    assert plan(estimator="pes") == [1] * 8
    assert plan(estimator="es", truncation=20) == [4, 4]
    with pytest.raises(ValueError, match="cuts nothing"):
        _options(estimator="full", truncation=5)


class TestInfluenceBalancing:
    """Truncation is known to bias here; see influence_balancing.py."""

    STEPS = 200
    THETAS = np.linspace(-1, 1, 2001)

    def train(self, estimator, meta_updates, **kwargs):
        """Theta after meta-training from 0."""
        options = metatraining.TrainingOptions(
            meta_updates=meta_updates,
            estimator=estimator,
            instances=32,
            segment_length=5,
            parallel_tasks=1,
            meta_learning_rate=1e-2,
            meta_learning_rate_decay=0.05,
            perturbation=0.05,
            use_log_objective=False,
            curriculum=metatraining.Curriculum(
                min_partials=1,
                mean_partials=0,
                min_length=self.STEPS,
                mean_length=0,
            ),
            **kwargs,
        )
        problems = {"balance": influence_balancing.Balance()}
        rule = influence_balancing.BalanceRule()
        return metatraining.train(problems, rule, options)["theta"].item()

    @property
    def optimum(self):
        losses = [
            influence_balancing.loss(theta, self.STEPS) for theta in self.THETAS
        ]
        return self.THETAS[np.argmin(losses)]

    @pytest.mark.slow
    def test_persistent_evolution_finds_the_optimum(self):
        assert abs(self.train("pes", 1500) - self.optimum) < 0.01

    @pytest.mark.parametrize("estimator", ["es", "bptt"])
    def test_truncation_goes_astray(self, estimator):
        # The optimum is below 0.
        assert self.train(estimator, 200, truncation=5) > 0.5

    @pytest.mark.parametrize(
        "estimator, options",
        [
            ("es", {"truncation": 200}),
            pytest.param("full", {}, marks=pytest.mark.slow),
        ],
    )
    def test_whole_runs_find_the_optimum(self, estimator, options):
        assert abs(self.train(estimator, 80, **options) - self.optimum) < 0.01


def test_validation_keeps_the_best(tmp_path, monkeypatch):
    losses = iter([3.0, 1.0, 2.0, 0.5])
    weights = []

    def validate(rule, trained):
        weights.append(trained)
        return {"held_out.0": next(losses), "held_out.1": 1.0}

    lines = []

    def train(meta_updates, **kwargs):
        _train(
            _options(meta_updates=meta_updates),
            tmp_path,
            validate=validate,
            eval_every=2,
            report=lines.append,
            **kwargs,
        )
        return checkpointing.load(tmp_path / "best.npz", "lopt_tf.optimizer")[0]

    _assert_same(train(5), weights[1])
    # A resumed training knows what the best one was.
    _assert_same(train(7, resume=True), weights[1])
    _assert_same(train(8, resume=True), weights[3])
    said = [line for line in lines if line.startswith("validation")]
    assert said[1] == "validation after meta-update 4: 1.0000 (best so far)"
    assert said[2] == "validation after meta-update 6: 1.5000"
    tags = _tags(tmp_path)
    assert {"validation/all", "validation/held_out.0"} <= tags


def test_validation_measures_the_meta_objective():
    problem = Quadratic(3)
    rule = _rule()
    weights = rule.init_weights(1)
    validate = metatraining.Validation(
        {"a": problem, "b": Quadratic(2)}, instances=4, steps=30
    )
    first = validate(rule, weights)
    assert first == validate(rule, weights)
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
        _train(_options(), eval_every=2)


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
        options = _options(meta_updates=4)
        _train(options, tmp_path, validate=validate, eval_every=2, **kwargs)

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
    _assert_same(
        calls[0],
        metatraining.train(
            corpus.select(NAMES), _rule(), _options(meta_updates=2)
        ),
    )


@pytest.mark.parametrize(
    "estimator", slow_cases.marked(["bptt", "es", "pes"], "bptt")
)
def test_a_problem_that_blows_up_is_skipped_and_reported(estimator, tmp_path):
    lines = []

    def train(problems, updates):
        return metatraining.train(
            problems,
            _rule(),
            _options(meta_updates=updates, estimator=estimator),
            output_dir=tmp_path / str(len(problems)),
            report=lines.append,
        )

    train({"fine": Quadratic(2), "broken": Broken(2)}, 8)
    # The others' updates are as if it had not been there.
    arrays, metadata = checkpointing.load(
        sorted((tmp_path / "2" / "checkpoints").glob("*.npz"))[-1],
        "lopt_tf.metatraining",
    )
    skipped = metadata["skipped"]["broken"]
    assert set(metadata["skipped"]) == {"broken"} and skipped >= 4
    assert arrays["slots/step"] == 8 - skipped / 2
    said = [line for line in lines if "skipped instances" in line]
    assert sum(int(line.split("broken: ")[1]) for line in said) == skipped
    assert np.all(np.isfinite(arrays["weights"]))


def _tags(folder):
    (events, *_) = sorted((folder / "tensorboard").glob("*"))
    return {
        value.tag
        for event in tf.compat.v1.train.summary_iterator(str(events))
        for value in event.summary.value
    }
