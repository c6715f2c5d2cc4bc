"""Meta-training: learns, can be stopped at any moment, resumes exactly."""

import csv
import dataclasses
import pathlib
import shutil

import keras
import numpy as np
import pytest
import slow_cases
import trainings

from lopt_tf import checkpointing, metatraining
from lopt_tf.metatraining import (
    estimators,
    problem_runs,
    replicas,
    trainer,
)
from lopt_tf.optimizers.hierarchical_rnn import HierarchicalRNNRule
from problems import corpus, datasets
from problems.classifiers import FullyConnected
from problems.keras_model import KerasModelProblem
from problems.quadratic import Quadratic
from problems.wrappers import Reparameterized

DATA = pathlib.Path(__file__).parent / "data" / "first_release"


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
    "estimator",
    slow_cases.marked(estimators.ESTIMATORS, "full", "bptt", "es"),
)
def test_stopped_training_resumes_exactly(estimator, tmp_path, monkeypatch):
    options = trainings.options(estimator=estimator)
    _check_resumes(options, (1, 4), tmp_path, monkeypatch)


def _check_resumes(options, stops, folder, monkeypatch):
    """Stopped there, and gone on with: the same weights as in one piece."""
    expected = trainings.train(options)
    for stop in stops:
        with monkeypatch.context() as patch:
            _Stopper(patch, stop)
            with pytest.raises(KeyboardInterrupt):
                trainings.train(options, folder, resume=stop > 1)
    trainings.assert_same(
        trainings.train(options, folder, resume=True), expected
    )


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
            trainings.train(trainings.options(), tmp_path)
    resumed = trainings.train(trainings.options(), tmp_path, resume=True)
    trainings.assert_same(resumed, trainings.train(trainings.options()))


def test_a_training_of_the_first_release_resumes_exactly(tmp_path):
    """As it did then: stopped after 7 of 12 meta-updates."""
    folder = tmp_path / "run"
    shutil.copytree(DATA / "metatraining", folder)
    expected = np.load(folder / "resumed.npz")
    best = (folder / "best.npz").read_bytes()

    def validate(rule, weights):
        return {"held_out.0": float(sum(np.sum(w) for w in weights.values()))}

    weights = metatraining.train(
        corpus.select([*trainings.NAMES, "softmax_2_class_problems_noisy.0"]),
        trainings.rule(),
        trainings.options(meta_updates=12, parallel_tasks=3),
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
    trainings.assert_same(
        trainings.train(trainings.options()),
        trainings.train(trainings.options()),
    )
    other = trainings.train(trainings.options(seed=1))
    assert np.any(
        other["update"] != trainings.train(trainings.options())["update"]
    )


@pytest.mark.slow
def test_training_can_be_made_longer(tmp_path):
    lines = []
    trainings.train(trainings.options(meta_updates=3), tmp_path)
    longer = trainings.train(
        trainings.options(), tmp_path, resume=True, report=lines.append
    )
    trainings.assert_same(longer, trainings.train(trainings.options()))
    assert not any("note" in line for line in lines)


def test_a_longer_run_with_a_falling_learning_rate_is_another_one(tmp_path):
    lines = []
    decay = {"meta_learning_rate_decay": 0.1}
    trainings.train(trainings.options(meta_updates=3, **decay), tmp_path)
    trainings.train(
        trainings.options(**decay), tmp_path, resume=True, report=lines.append
    )
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

    options = trainings.options(
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
    weights = trainings.train(
        trainings.options(), tmp_path, report=lines.append
    )
    assert "meta-update 8/8" in lines[-1]
    assert "inner steps/s" in lines[-1] and "min left" in lines[-1]
    _, saved = checkpointing.load(
        tmp_path / "optimizer.npz", "lopt_tf.optimizer"
    )
    assert saved["config"] == trainings.rule().get_config()
    arrays, _ = checkpointing.load(
        tmp_path / "optimizer.npz", "lopt_tf.optimizer"
    )
    trainings.assert_same(arrays, weights)
    tags = trainings.tags(tmp_path)
    assert "meta_loss/all" in tags
    assert any(tag.startswith("meta_loss_of_problem/") for tag in tags)
    assert (
        len(tags & {f"meta_loss/{n.split('.')[0]}" for n in trainings.NAMES})
        >= 2
    )


@pytest.mark.parametrize("error", [KeyboardInterrupt, FloatingPointError])
def test_a_start_that_fails_leaves_nothing(error, tmp_path, monkeypatch):
    def step(self):
        raise error("at once")

    monkeypatch.setattr(trainer.Trainer, "step", step)
    with pytest.raises(error):
        trainings.train(trainings.options(), tmp_path / "run")
    with pytest.raises(ValueError, match="no checkpoint .* to resume"):
        trainings.train(trainings.options(), tmp_path / "run", resume=True)
    assert not any(tmp_path.iterdir())


def test_resuming_after_hopeless_updates_counts_anew(tmp_path, monkeypatch):
    monkeypatch.setattr(trainer, "_MOST_IN_A_ROW", 3)
    kwargs = {"output_dir": tmp_path}
    for last in (2, 4):
        with pytest.raises(FloatingPointError, match="last 3 meta-gradients"):
            metatraining.train(
                {"broken": Broken(2)},
                trainings.rule(),
                trainings.options(),
                **kwargs,
            )
        assert (
            tmp_path / "checkpoints" / f"checkpoint-{last:08d}.npz"
        ).exists()
        kwargs["resume"] = True


def test_nothing_to_resume(tmp_path):
    with pytest.raises(ValueError, match="no checkpoint .* to resume"):
        trainings.train(trainings.options(), tmp_path, resume=True)


def test_folder_in_use(tmp_path):
    trainings.train(trainings.options(meta_updates=1), tmp_path)
    before = sorted(tmp_path.rglob("*.npz"))
    with pytest.raises(ValueError, match="already holds a meta-training"):
        trainings.train(trainings.options(), tmp_path)
    assert sorted(tmp_path.rglob("*.npz")) == before


@pytest.mark.slow
def test_options_newer_than_the_checkpoint(tmp_path):
    """They count as their defaults, which is what the run was made with."""
    trainings.train(trainings.options(meta_updates=1), tmp_path)
    store = checkpointing.Checkpoints(
        tmp_path / "checkpoints", "lopt_tf.metatraining"
    )
    arrays, metadata = store.load_latest()
    del metadata["settings"]["options"]["instance_clip"]
    del metadata["settings"]["rule"]["use_parameter_scale"]
    store.save(metadata["update"], arrays, metadata)
    trainings.train(trainings.options(), tmp_path, resume=True)
    with pytest.raises(ValueError, match="other settings: options.instance"):
        trainings.train(
            trainings.options(instance_clip=1.0), tmp_path, resume=True
        )
    rule = HierarchicalRNNRule(level_sizes=(3, 4, 5), use_parameter_scale=True)
    with pytest.raises(ValueError, match="settings: rule.use_parameter_scale"):
        metatraining.train(
            corpus.select(trainings.NAMES),
            rule,
            trainings.options(),
            output_dir=tmp_path,
            resume=True,
        )


def test_scale_options_newer_than_the_checkpoint(tmp_path):
    """A part of the curriculum, too, counts as its default."""
    trainings.train(trainings.options(meta_updates=1), tmp_path)
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
                trainings.options().curriculum, min_steps=5, max_steps=10
            )
        },
    ]
    for other in others:
        with pytest.raises(ValueError, match="other settings: options"):
            trainings.train(trainings.options(**other), tmp_path, resume=True)
    resumed = trainings.train(trainings.options(), tmp_path, resume=True)
    trainings.assert_same(resumed, trainings.train(trainings.options()))


SCALES = {"min_parameter_scale": 1e-3, "max_parameter_scale": 1e3}


def test_training_in_other_units_resumes_exactly(tmp_path, monkeypatch):
    options = trainings.options(**SCALES)
    expected = trainings.train(options)
    with monkeypatch.context() as patch:
        _Stopper(patch, 3)
        with pytest.raises(KeyboardInterrupt):
            trainings.train(options, tmp_path)
    trainings.assert_same(
        trainings.train(options, tmp_path, resume=True), expected
    )
    plain = trainings.train(trainings.options())
    assert any(np.any(plain[name] != expected[name]) for name in plain)


def test_every_problem_is_trained_in_other_units():
    """Each instance in one unit for all its starts."""
    problems = corpus.select(trainings.NAMES)
    runs = problem_runs.ProblemRuns(
        problems,
        trainings.rule(),
        trainings.options(**SCALES),
        replicas.Replicas(),
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
    assert trainings.options().scaled(Quadratic(2)) == Quadratic(2)


# Twenty meta-updates for each run.
STAGGERED = {
    "estimator": "pes",
    "staggered_starts": True,
    "curriculum": metatraining.Curriculum(
        starts=2, min_steps=100, max_steps=100
    ),
}


def test_only_first_runs_are_staggered():
    def draw(number, is_first, **kwargs):
        options = trainings.options(**{**STAGGERED, **kwargs})
        runs = problem_runs.ProblemRuns(
            *(problems, trainings.rule(), options, replicas.Replicas())
        )
        it = runs.draw(number, is_first)
        return it.plan, runs.next_start(it).plan

    problems = {"only": Quadratic(2)}
    whole = [1] * 20
    assert draw(0, True, staggered_starts=False) == (whole, whole)
    assert draw(0, False) == (whole, whole)
    found = [draw(number, True) for number in range(100)]
    assert all(then == whole for _, then in found)
    lengths = [len(plan) for plan, _ in found]
    assert all(plan == whole[: len(plan)] for plan, _ in found)
    assert min(lengths) == 1 and max(lengths) == 20
    assert np.mean(lengths) == pytest.approx(10.5, abs=2)


def test_staggered_runs_are_of_different_ages():
    def ages(**kwargs):
        """Of the two runs under way, after each pair of meta-updates."""
        trainer_ = trainer.Trainer(
            corpus.select(trainings.NAMES),
            trainings.rule(),
            trainings.options(**{**STAGGERED, **kwargs}),
        )
        found = []
        for _ in range(50):
            trainer_.step()
            trainer_.step()
            found.append([it.run.step for it in trainer_._under_way])
        return np.array(found)

    assert np.all(np.ptp(ages(staggered_starts=False), axis=1) == 0)
    together = np.ptp(ages(), axis=1) == 0
    # Only until the first of them has ended.
    assert not np.any(together[20:])


def test_staggered_training_resumes_exactly(tmp_path, monkeypatch):
    options = trainings.options(**STAGGERED, meta_updates=50)
    _check_resumes(options, (1, 20), tmp_path, monkeypatch)


RATE_HEAD = ("learning_rate", "learning_rate_bias", "learning_rate_momentum")


@pytest.mark.parametrize(
    "estimator", slow_cases.marked(["bptt", "pes"], "bptt")
)
def test_only_named_weights_are_trained(estimator, tmp_path):
    """Not even the perturbations of the others count."""
    start = trainings.rule().init_weights(seed=0)
    options = trainings.options(
        estimator=estimator, trained_weights=RATE_HEAD, l2_reg=0.1
    )
    trained = trainings.train(options, tmp_path, weights=start)
    changed = {n for n in start if np.any(start[n] != trained[n])}
    assert changed == set(RATE_HEAD)
    trainings.assert_same(
        trainings.train(options, tmp_path, weights=start, resume=True), trained
    )
    with pytest.raises(ValueError, match="Unknown weights rate. Known: global"):
        trainings.train(
            trainings.options(trained_weights=("rate",)), weights=start
        )


def test_weight_decay_is_towards_the_start(tmp_path, monkeypatch):
    """Also in a run that was resumed without the weights it began with."""
    start = {n: w + 1 for n, w in trainings.rule().init_weights(0).items()}

    def train(decay, folder=None, **kwargs):
        options = trainings.options(
            meta_optimizer="adamw" if decay else "adam",
            meta_weight_decay=decay,
            meta_learning_rate=0.01,
            trained_weights=RATE_HEAD,
        )
        return trainings.train(options, folder, **kwargs)

    def distance(weights):
        return sum(np.sum((start[n] - w) ** 2) for n, w in weights.items())

    free, held = (train(decay, weights=start) for decay in (0.0, 50.0))
    assert 0 < distance(held) < distance(free)
    changed = {n for n in start if np.any(start[n] != held[n])}
    assert changed == set(RATE_HEAD)
    with monkeypatch.context() as patch:
        _Stopper(patch, 3)
        with pytest.raises(KeyboardInterrupt):
            train(50.0, tmp_path, weights=start)
    trainings.assert_same(train(50.0, tmp_path, resume=True), held)


def test_shares_of_problems(tmp_path, monkeypatch):
    """A table says which problems the inner steps were spent on."""
    with monkeypatch.context() as patch:
        _Stopper(patch, 3)
        with pytest.raises(KeyboardInterrupt):
            trainings.train(trainings.options(), tmp_path)
    trainings.train(trainings.options(), tmp_path, resume=True)
    with open(tmp_path / "problems.csv") as file:
        rows = list(csv.DictReader(file))
    assert {row["problem"] for row in rows} == set(trainings.NAMES)
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
        options = trainings.options(
            meta_updates=updates, weight_average_decay=decay
        )
        return trainings.train(
            options, tmp_path, validate=validate, eval_every=6, **kwargs
        )

    with monkeypatch.context() as patch:
        patch.setattr(trainer.Trainer, "step", noting)
        train(5)
        average = train(8, resume=True)
    plain = trainings.train(trainings.options())
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
    trainings.assert_same(saved, average)


def test_other_settings(tmp_path):
    trainings.train(trainings.options(meta_updates=1), tmp_path)
    with pytest.raises(ValueError, match="instances: saved 2, given 3"):
        trainings.train(trainings.options(instances=3), tmp_path, resume=True)
    with pytest.raises(ValueError, match="other settings: rule.level_sizes"):
        metatraining.train(
            corpus.select(trainings.NAMES),
            HierarchicalRNNRule(),
            trainings.options(),
            output_dir=tmp_path,
            resume=True,
        )


def test_another_order_of_problems(tmp_path):
    """It would decide which of them comes next."""
    trainings.train(trainings.options(meta_updates=1), tmp_path)
    names = trainings.NAMES
    for order, fits in ((names[::-1], False), (names, True)):
        selected = corpus.select(names)

        def resume(order=order, selected=selected):
            metatraining.train(
                {name: selected[name] for name in order},
                trainings.rule(),
                trainings.options(meta_updates=2),
                output_dir=tmp_path,
                resume=True,
            )

        if fits:
            resume()
        else:
            with pytest.raises(ValueError, match=f"one: {','.join(names)}"):
                resume()


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
            trainings.rule(),
            trainings.options(meta_updates=1, instances=1),
            output_dir=tmp_path,
            **kwargs,
        )

    train(before)
    train(before, resume=True)
    with pytest.raises(ValueError, match="other settings: objectives.net"):
        train(after, resume=True)


def test_problems_of_first_release_checkpoints(tmp_path):
    """Their texts left settings out: types and names count."""
    trainings.train(trainings.options(meta_updates=1), tmp_path)
    store = checkpointing.Checkpoints(
        tmp_path / "checkpoints", "lopt_tf.metatraining"
    )
    arrays, metadata = store.load_latest()
    settings = metadata["settings"]
    del settings["objectives"]
    lines = []
    for text in ("Bowl(0.1)", "Quadratic(2)"):
        settings["problems"] = {
            trainings.NAMES[0]: "Norm(5)",
            trainings.NAMES[1]: text,
        }
        store.save(1, arrays, metadata)
        if text.startswith("Bowl"):
            trainings.train(
                trainings.options(), tmp_path, resume=True, report=lines.append
            )
            assert "does not hold all settings of its problems" in lines[1]
        shutil.rmtree(tmp_path / "checkpoints")
    store.save(1, arrays, metadata)
    with pytest.raises(ValueError, match=r"bowl.*saved 'Quadratic\(2\)'"):
        trainings.train(trainings.options(), tmp_path, resume=True)


def test_damaged_checkpoint(tmp_path, monkeypatch):
    options = trainings.options()
    with monkeypatch.context() as patch:
        _Stopper(patch, 2)
        with pytest.raises(KeyboardInterrupt):
            trainings.train(options, tmp_path)
    trainings.train(trainings.options(meta_updates=5), tmp_path, resume=True)
    older, newest = sorted((tmp_path / "checkpoints").glob("*.npz"))
    content = newest.read_bytes()
    newest.write_bytes(content[: len(content) // 2])
    lines = []
    resumed = trainings.train(
        options, tmp_path, resume=True, report=lines.append
    )
    assert newest.name in lines[0]
    assert lines[0].endswith(f"damaged; resuming from {older.name}")
    trainings.assert_same(resumed, trainings.train(options))


def test_negative_objectives_are_refused():
    class Negative(Quadratic):
        nonnegative = False

    with pytest.raises(ValueError, match="use_log_objective=False"):
        metatraining.train(
            {"bad": Negative(2)}, trainings.rule(), trainings.options()
        )


@pytest.mark.parametrize("estimator", ["bptt", "pes", "es"])
@pytest.mark.parametrize("shift", [0.9, 30.0])
def test_objectives_that_become_negative_end_a_training(estimator, shift):
    class Shifted(Quadratic):
        def loss(self, params, constants, batch=None):
            return 0.01 * super().loss(params, constants) - shift

    options = trainings.options(estimator=estimator)
    problems = {"shifted": Shifted(2)}
    with pytest.raises(ValueError, match="objective of shifted became negat"):
        metatraining.train(problems, trainings.rule(), options)
    validation = metatraining.Validation(problems)
    with pytest.raises(ValueError, match="objective of shifted became negat"):
        validation(trainings.rule(), trainings.rule().init_weights(0))
    # It may be: without a logarithm.
    options = dataclasses.replace(
        options, use_log_objective=False, meta_updates=1
    )
    metatraining.train(problems, trainings.rule(), options)


def test_weights_to_start_from_are_checked():
    good = trainings.rule().init_weights(0)
    name = min(good)
    for bad, message in (
        ({**good, "x": good[name]}, "unknown: x"),
        ({n: w for n, w in good.items() if n != name}, f"{name} is missing"),
        ({**good, name: good[name][:0]}, f"{name}: .* instead of"),
        ({**good, name: np.nan * good[name]}, f"{name} has NaN"),
    ):
        with pytest.raises(ValueError, match=message):
            trainings.train(trainings.options(), weights=bad)
    options = trainings.options(meta_updates=1)
    doubles = {n: w.astype("float64") for n, w in good.items()}
    trainings.assert_same(
        trainings.train(options, weights=doubles),
        trainings.train(options, weights=good),
    )


def test_what_xla_cannot_differentiate_twice_says_what_to_do():
    def build():
        return keras.Sequential(
            [
                keras.Input((3,), dtype="int32"),
                keras.layers.Embedding(5, 2),
                keras.layers.GRU(2),
                keras.layers.Dense(1),
            ]
        )

    words = np.arange(12).reshape(4, 3) % 5
    problem = KerasModelProblem(build, words, words[:, :1], "mse", 2)
    assert problem.data.dtype.kind == "i"
    problems = {"words": problem}
    options = trainings.options(estimator="bptt", instances=1, meta_updates=1)
    with pytest.raises(ValueError, match="Steps of words cannot be .*pes"):
        metatraining.train(problems, trainings.rule(), options)
    options = dataclasses.replace(options, use_second_derivatives=False)
    found = metatraining.train(problems, trainings.rule(), options)
    assert found is not None


def test_hopeless_training_ends_with_one_error(tmp_path):
    with pytest.raises(FloatingPointError, match="last 100 meta-gradients"):
        metatraining.train(
            {"broken": Broken(2)},
            trainings.rule(),
            trainings.options(meta_updates=200),
            output_dir=tmp_path,
        )
    arrays, _ = checkpointing.load(
        tmp_path / "optimizer.npz", "lopt_tf.optimizer"
    )
    trainings.assert_same(arrays, trainings.rule().init_weights(0))


@pytest.mark.parametrize(
    "wrong",
    [
        {"estimator": "guess"},
        {"meta_optimizer": "sgd"},
        {"meta_updates": 0},
        {"instances": 0},
        {"meta_weight_decay": 0.1},
        {"meta_optimizer": "adamw"},
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
        trainings.options(**wrong)


def test_runs_have_at_least_a_segment():
    curriculum = metatraining.Curriculum(min_steps=4, max_steps=100)
    with pytest.raises(ValueError, match="min_steps=4, segment_length=5"):
        trainings.options(curriculum=curriculum)


def test_options_are_values():
    assert dataclasses.replace(
        trainings.options(), seed=1
    ) == trainings.options(seed=1)


def test_plans_of_the_estimators():
    curriculum = metatraining.Curriculum(
        min_partials=2, mean_partials=0, min_length=20, mean_length=0
    )

    def plan(**kwargs):
        options = trainings.options(curriculum=curriculum, **kwargs)
        return options.plan(np.random.default_rng(0))

    assert plan(estimator="bptt") == [4, 4]
    assert plan(estimator="bptt", truncation=15) == [3, 1, 3, 1]
    assert plan(estimator="full") == [8]
    assert plan(estimator="pes") == [1] * 8
    assert plan(estimator="es", truncation=20) == [4, 4]
    # Not [3, 1, 3, 1]: remainders would count as much.
    assert plan(estimator="pes", truncation=15) == [3, 3, 2]
    with pytest.raises(ValueError, match="cuts nothing"):
        trainings.options(estimator="full", truncation=5)


@pytest.mark.parametrize(
    "estimator", slow_cases.marked(["bptt", "es", "pes"], "bptt", "es")
)
def test_a_problem_that_blows_up_is_skipped_and_reported(estimator, tmp_path):
    lines = []

    def train(problems, updates):
        return metatraining.train(
            problems,
            trainings.rule(),
            trainings.options(meta_updates=updates, estimator=estimator),
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
