"""Tasks that train Keras models: episodes, learners, baselines."""

import copy
import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from lopt_tf import autoloss
from lopt_tf.autoloss import (
    baselines,
    bench,
    comparison,
    compiled_episodes,
    episodes,
    kept_outcomes,
    rewards,
    sample_pictures,
    schedules,
    starts,
    trainer,
)
from lopt_tf.autoloss.controller import ScheduleController
from problems import alternating

RNG = np.random.default_rng(0)
INPUTS = RNG.normal(size=(40, 3)).astype("float32")
TARGETS = INPUTS @ np.float32([[1.0], [-1.0], [0.5]])


class Fit(alternating.ModelTask):
    """A linear fit; the second action does not help.

    Attributes:
        traces: calls of a loss: TensorFlow calls it once a compilation.
        builds: calls of `build`.
    """

    name = "fit"
    actions = ("fit", "shrink")
    max_steps = 12
    period = 4
    measures = ("loss", "error")
    result_name = "error"

    def __init__(self, optimizer="adam"):
        self.optimizer = optimizer
        self.builds = 0
        self.traces = {"fit": 0, "shrink": 0}

    def get_config(self):
        return {"optimizer": self.optimizer}

    def build(self):
        self.builds += 1
        net = keras.Sequential(
            [keras.Input((3,)), keras.layers.Dropout(0.1)]
            + [keras.layers.Dense(1)]
        )

        def fit(model, batch, training):
            self.traces["fit"] += 1
            inputs, targets = batch
            outputs = model.net(inputs, training=training)
            return ops.mean(ops.square(outputs - targets))

        def shrink(model, batch, training):
            self.traces["shrink"] += 1
            return sum(ops.sum(ops.abs(v)) for v in net.trainable_variables)

        model = autoloss.AlternatingModel(
            {
                "fit": autoloss.Objective(fit, net),
                "shrink": autoloss.Objective(shrink, net, updates=2),
            },
            net=net,
        )
        model.compile(self.optimizer)
        return model

    def start(self, model, setting, seed):
        rng = np.random.default_rng(seed)
        for v in model.net.trainable_variables:
            v.assign(rng.normal(size=v.shape))

    def batch(self, setting, seed, number):
        rows = np.random.default_rng([seed, number]).integers(0, 40, 8)
        return INPUTS[rows], TARGETS[rows]

    def measure(self, model, split):
        rows = slice(0, 20) if split == "valid" else slice(20, 40)
        error = TARGETS[rows] - model.net(INPUTS[rows]).numpy()
        return {"loss": float(np.mean(error**2)), "error": np.abs(error).mean()}


FEATURES = ("progress", "average_first", "log_magnitudes", "last_action")
OPTIONS = autoloss.ControllerOptions(
    features=FEATURES, hidden=0, episodes=4, parallel=2, learning_rate=0.05
)


def _schedule(task):
    config = {"num_actions": 2, "hidden": 0, "seed": 1}
    return ScheduleController(
        task.name, task.actions, FEATURES, config
    ).schedule()


@pytest.mark.slow
def test_24_episodes_compile_once():
    """Each update and each measurement is traced once, in all of them."""
    task = Fit()
    found = {}
    for algorithm, count in (("reinforce", 24), ("ppo", 8), ("evolution", 16)):
        options = autoloss.ControllerOptions(
            algorithm=algorithm,
            episodes=count,
            parallel=8,
            features=FEATURES,
            validate_every=10,
        )
        _, history = autoloss.train(task, options, validation_task=task)
        found[algorithm] = history[-1]
        assert history[-1]["episodes"] == count
        assert np.isfinite(history[-1]["validation"])
    assert task.builds == 1
    # One program each: its updates, and a measurement in the other's.
    assert task.traces == {"fit": 1 + 1, "shrink": 2 + 1}
    assert found["ppo"]["entropy"] > 0
    assert found["reinforce"]["gradient_norm"] > 0
    assert found["evolution"]["step_norm"] > 0


class Sources(alternating.ModelTask):
    """A classifier with labels from two annotators, one of whom guesses.

    Which one it is differs from episode to episode.
    """

    name = "sources"
    actions = ("first", "second")
    max_steps = 24
    period = 6
    measures = ("accuracy",)
    result_name = "accuracy"
    higher_is_better = True

    def __init__(self):
        self.started = []

    def get_config(self):
        return {}

    def setting_of(self, seed):
        return int(np.random.default_rng([seed, 1]).integers(2))

    def build(self):
        net = keras.Sequential([keras.Input((8,)), keras.layers.Dense(1)])

        def of(place):
            def loss(model, batch, training):
                logits = model.net(batch[0])[:, 0]
                labels = batch[1][:, place]
                return ops.mean(ops.softplus(logits) - labels * logits)

            return autoloss.Objective(loss, net)

        model = autoloss.AlternatingModel(
            {"first": of(0), "second": of(1)}, net=net
        )
        model.compile(keras.optimizers.SGD(1.0))
        return model

    def start(self, model, setting, seed):
        self.started.append((setting, seed))
        for v in model.net.trainable_variables:
            v.assign(np.zeros(v.shape))

    def batch(self, setting, seed, number):
        rng = np.random.default_rng([seed, number])
        inputs = rng.normal(size=(16, 8)).astype("float32")
        labels = np.stack([inputs[:, 0] > 0] * 2, 1)
        labels[:, setting] = rng.random(16) < 0.5
        return inputs, labels.astype("float32")

    def measure(self, model, split):
        inputs = np.random.default_rng(split == "test").normal(size=(400, 8))
        logits = model.net(inputs.astype("float32")).numpy()[:, 0]
        return {"accuracy": np.mean((logits > 0) == (inputs[:, 0] > 0))}


def test_settings_differ_between_groups_alone():
    """A group has a setting, a start and batches in common, not actions."""
    task = Sources()
    options = autoloss.ControllerOptions(
        features=("progress",),
        episodes=8,
        parallel=8,
        group=4,
        reward="mean score",
        step_scale=0.0,
        collapse_after=9,
    )
    played = trainer.Trainer(task, options)
    task.started = []
    drawn = []
    inner = played.episodes.advance

    def advance(position):
        position, records = inner(position)
        drawn.append(records.actions)
        return position, records

    played.episodes.advance = advance
    row = played.step()
    settings, seeds = zip(*task.started)
    for same in (settings, seeds):
        assert same == (same[0],) * 4 + (same[4],) * 4
    assert seeds[0] != seeds[4]
    actions = np.concatenate(drawn)[: task.max_steps]
    assert len(np.unique(actions, axis=1).T) == 8
    assert 0 < row["reward"] < 1 and row["gradient_norm"] > 0


def test_rewards_from_the_curve_of_scores():
    """Mean, last and best of what an episode has shown."""

    class Curve(Fit):
        scores = (9.0, 4.0, 2.0, 3.0)

        def measure(self, model, split):
            step = int(model.schedule_state.step.numpy())
            return {"loss": 0.0, "error": self.scores[step // self.period]}

    task = Curve()
    played = compiled_episodes.episodes_of(task, _schedule(task), 20)
    found = []
    for segment in (20, 5):
        played.segment_length = segment
        position = played.begin([1, 2])
        while not played.finished(position):
            position, _ = played.advance(position)
            position = played.load(*played.save(position))
        found.append(played.details(position))
    for details in found:
        np.testing.assert_array_equal(details["mean score"], [3, 3])
        np.testing.assert_array_equal(details["last score"], [3, 3])
        np.testing.assert_array_equal(details["best score"], [2, 2])
    for name, expected in (("mean score", -3), ("best score", -2)):
        options = autoloss.ControllerOptions(
            **{**vars(OPTIONS), "reward": name, "final_scale": -1.0}
        )
        _, (row, *_) = autoloss.train(task, options)
        assert row["reward"] == expected
    unknown = autoloss.ControllerOptions(reward="score", step_scale=0.0)
    with pytest.raises(ValueError, match="mean score, last score, best score"):
        trainer.Trainer(task, unknown)


@pytest.mark.parametrize("even_draws", [False, True])
def test_pairs_of_evolution_share_their_random_numbers(even_draws):
    """With equal weights both of a pair act alike; pairs differ."""
    task = Fit()
    options = autoloss.ControllerOptions(
        **vars(OPTIONS)
        | {"algorithm": "evolution", "parallel": 4, "even_draws": even_draws}
    )
    played = trainer.Trainer(task, options)
    assert played.schedule.even_draws == even_draws
    kernel, bias = played.schedule.weights
    kernel.assign(tf.zeros(kernel.shape))
    for strength in (0.0, 30.0):
        bias.assign(strength * np.float32([[1, 0], [0, 1]] * 2))
        position, records = played.episodes.advance(
            played.episodes.begin([3, 3, 4, 4], draw=7)
        )
        actions = records.actions[: task.max_steps].T
        if strength:
            np.testing.assert_array_equal(actions.mean(1), [0, 1, 0, 1])
        else:
            np.testing.assert_array_equal(actions[::2], actions[1::2])
            assert not np.array_equal(actions[0], actions[2])


@pytest.mark.parametrize("algorithm", ["reinforce", "evolution"])
def test_a_collapse_restarts_the_controller(algorithm):
    """The new one trains the same compiled model."""
    task = Fit()
    options = autoloss.ControllerOptions(
        **{**vars(OPTIONS), "algorithm": algorithm, "collapse_after": 12},
    )
    played = trainer.Trainer(task, options)
    for variable in played.controller.policy.trainable_variables:
        variable.assign(tf.zeros_like(variable.value))
    (bias,) = played.controller.policy.trainable_variables[1:]
    bias.assign([200.0, -200.0])
    row = played.step()
    assert row["collapsed"] == 2 and row["restarts"] == 1
    assert played.controller.policy.trainable_variables[1] is not bias
    row = played.step()
    assert task.builds == 1 and task.traces["fit"] <= 2
    assert np.isfinite(row["reward"])


@pytest.mark.parametrize("algorithm", ["ppo", "evolution"])
def test_a_training_stopped_in_an_episode_resumes(algorithm, tmp_path):
    class Stops(Fit):
        left = None

        def batch(self, setting, seed, number):
            if self.left is not None:
                self.left -= 1
                if not self.left:
                    raise KeyboardInterrupt
            return super().batch(setting, seed, number)

    options = autoloss.ControllerOptions(
        **{**vars(OPTIONS), "algorithm": algorithm}
    )
    task = Stops()
    undisturbed, history = autoloss.train(task, options)
    task.left = 70
    with pytest.raises(KeyboardInterrupt):
        autoloss.train(task, options, output_dir=tmp_path)
    task.left = None
    resumed, again = autoloss.train(
        task, options, output_dir=tmp_path, resume=True
    )
    assert history == again
    for name, array in undisturbed.weights().items():
        np.testing.assert_array_equal(array, resumed.weights()[name])


@pytest.mark.parametrize("algorithm", ["reinforce", "ppo", "evolution"])
def test_a_round_is_kept_while_it_is_played(algorithm, tmp_path):
    class Counts(Fit):
        max_steps = 100
        period = 25
        seen = 0
        last = None

        def batch(self, setting, seed, number):
            self.seen += 1
            if self.seen == self.last:
                raise KeyboardInterrupt
            return super().batch(setting, seed, number)

    options = autoloss.ControllerOptions(
        **{**vars(OPTIONS), "algorithm": algorithm, "episodes": 4}
    )
    task, lines = Counts(), []
    undisturbed, history = autoloss.train(task, options)
    total, task.seen = task.seen, 0
    task.last = int(0.9 * total)
    kept = {"output_dir": tmp_path, "checkpoint_every_s": 0.0}
    with pytest.raises(KeyboardInterrupt):
        autoloss.train(task, options, report=lines.append, **kept)
    assert "in round 2 of 2: step 50 of 100" in lines
    task.seen, task.last = 0, None
    resumed, again = autoloss.train(task, options, resume=True, **kept)
    # Half of the second round at most, where a round is half of all.
    assert task.seen < 0.3 * total
    assert history == again
    for name, array in undisturbed.weights().items():
        np.testing.assert_array_equal(array, resumed.weights()[name])


@pytest.mark.slow
def test_a_learned_schedule_beats_fixed_ones():
    """It finds out whom to trust: the one whose labels can be fitted."""
    task = Sources()
    options = autoloss.ControllerOptions(
        features=("average_ratio",),
        hidden=0,
        episodes=112,
        parallel=16,
        group=4,
        learning_rate=0.4,
        seed=1,
        reward="mean score",
        step_scale=0.0,
        validate_every=100,
    )
    controller, _ = autoloss.train(task, options)
    seeds = list(range(2_000_000, 2_000_016))
    played = compiled_episodes.episodes_of(task, controller.schedule())
    position, _ = episodes.play(played, seeds)
    learned = played.result(position, "test")
    for ratio in ([1, 0], [1, 1], [3, 1]):
        fixed = compiled_episodes.episodes_of(
            task, schedules.Ratio([ratio] * len(seeds))
        )
        position, _ = episodes.play(fixed, seeds)
        gain = learned - fixed.result(position, "test")
        error = gain.std(ddof=1) / len(seeds) ** 0.5
        assert gain.mean() > 2 * error, ratio


def test_episodes_take_turns_as_if_alone():
    task = Fit()
    schedule, reward = _schedule(task), rewards.step_reward()
    together = compiled_episodes.episodes_of(task, schedule, 5, reward)
    position = together.begin([3, 4], draw=9)
    rows = []
    while not together.finished(position):
        position, records = together.advance(position)
        rows.append(records)
    whole = episodes.joined(rows)
    assert whole.features.shape == (15, 2, 4) and whole.alive.sum() == 24
    assert np.count_nonzero(whole.reward) == 6
    results = together.result(position, "test")
    for place, seed in enumerate((3, 4)):
        alone = compiled_episodes.episodes_of(task, schedule, 15, reward)
        last, record = alone.advance(alone.begin([seed], draw=9 + place))
        for name in ("features", "weights", "log_prob", "reward", "alive"):
            np.testing.assert_array_equal(
                getattr(whole, name)[:12, place],
                getattr(record, name)[:12, 0],
                err_msg=name,
            )
        assert alone.result(last, "test") == results[place]


def test_positions_are_saved_exactly():
    task = Fit()
    played = compiled_episodes.episodes_of(task, _schedule(task), 5)
    position, _ = played.advance(played.begin([1, 2]))
    again = played.load(*played.save(position))
    found = []
    for each in (position, again):
        after, records = played.advance(each)
        found.append((*records, played.result(after, "valid")))
    for a, b in zip(*found):
        np.testing.assert_array_equal(a, b)


def test_a_model_task_begins_as_its_first_episode():
    """What an episode leaves behind is no part of the next one."""
    task = Fit()
    candidate = baselines.published(task)["1:1"]
    first = baselines.outcomes(task, [candidate] * 2, [5], "test")[0]
    again = baselines.outcomes(task, [candidate], [5], "test")[0]
    np.testing.assert_array_equal(first, [again[0]] * 2)
    other = baselines.outcomes(task, [candidate], [6], "test")[0]
    assert other[0] != first[0]


class Counts(Fit):
    """Counts episodes; is interrupted when the one of a number begins."""

    seen = 0
    last = None

    def start(self, model, setting, seed):
        self.seen += 1
        if self.seen == self.last:
            raise KeyboardInterrupt
        super().start(model, setting, seed)


def test_a_comparison_that_was_stopped_goes_on(tmp_path):
    task = Counts()
    candidates = [*baselines.published(task).values()][:2]
    candidates = [c for c in candidates if c.kind is candidates[0].kind]
    arguments = task, candidates, [1, 2], "test"
    expected = baselines.outcomes(*arguments)
    task.seen, task.last = 0, 3
    kept = kept_outcomes.KeptOutcomes(tmp_path / "kept")
    with pytest.raises(KeyboardInterrupt):
        baselines.outcomes(*arguments, kept=kept)
    task.seen, task.last = 0, None
    damaged = min((tmp_path / "kept").iterdir())
    damaged.write_text(damaged.read_text().replace("0.", "1."))
    found = baselines.outcomes(*arguments, kept=kept)
    # Of four, one of the two that were kept was damaged.
    assert task.seen == 3
    np.testing.assert_array_equal(found[0], expected[0])
    for name, values in expected[1].items():
        np.testing.assert_array_equal(found[1][name], values)
    assert found[2] == expected[2]
    # Another split is not the same, nor are other data.
    baselines.outcomes(*arguments[:-1], "valid", kept=kept)
    assert task.seen == 7
    task.data_digest = "other"
    baselines.outcomes(*arguments, kept=kept)
    assert task.seen == 11


def test_a_training_goes_on_with_its_data_alone(tmp_path):
    def trained(digest, episodes=2, **more):
        task = Fit()
        task.data_digest = digest
        options = autoloss.ControllerOptions(
            **{**vars(OPTIONS), "episodes": episodes}
        )
        return autoloss.train(
            *(task, options), validation_task=task, output_dir=tmp_path, **more
        )

    trained("some")
    with pytest.raises(
        ValueError, match="contents of files.task: saved 'some', given 'other'"
    ):
        trained("other", 4, resume=True)
    _, history = trained("some", 4, resume=True)
    assert len(history) == 2
    # Older checkpoints do not tell.
    played = trainer.Trainer(Fit(), OPTIONS)
    saved = played.settings()
    del saved["contents of files"]
    assert played.completed(saved) == played.settings()


def test_a_controllers_test_that_was_stopped_goes_on(tmp_path):
    task = Counts()
    config = {"num_actions": 2, "hidden": 0, "seed": 1}
    learned, other = (
        ScheduleController(task.name, task.actions, FEATURES, config | more)
        for more in ({}, {"seed": 2})
    )
    expected, shares = comparison.run_controller(task, learned, 3)
    kept = kept_outcomes.KeptOutcomes(tmp_path / "kept")
    task.seen, task.last = 0, 3
    with pytest.raises(KeyboardInterrupt):
        comparison.run_controller(task, learned, 3, None, kept)
    task.seen, task.last = 0, None
    found, again = comparison.run_controller(task, learned, 3, None, kept)
    assert task.seen == 1
    np.testing.assert_array_equal(again, shares)
    ours, theirs = found["controller"], expected["controller"]
    np.testing.assert_array_equal(ours.results, theirs.results)
    assert ours.curves == [[*map(tuple, each)] for each in theirs.curves]
    for name, values in theirs.details.items():
        np.testing.assert_array_equal(ours.details[name], values)
    # Another controller has episodes of its own.
    comparison.run_controller(task, other, 3, None, kept)
    assert task.seen == 4


def test_pictures_of_a_test_that_was_stopped_are_of_all_starts(tmp_path):
    class Pictured(Counts):
        def samples_of(self, model, count):
            level = np.tanh(float(model.net.get_weights()[0][0, 0]))
            return np.full([count, 3, 3], level)

    class Look(sample_pictures.SamplePicture):
        def draw(self, task, images):
            self.images = images
            super().draw(task, images)

    config = {"num_actions": 2, "hidden": 0, "seed": 1}
    task = Pictured()
    learned = ScheduleController(task.name, task.actions, FEATURES, config)
    kept = kept_outcomes.KeptOutcomes(tmp_path / "kept")
    found = []
    for number in range(2):
        look = Look(tmp_path / f"{number}.png", [1, 2, 3])
        if number == 0:
            task.last = 3
            with pytest.raises(KeyboardInterrupt):
                comparison.run_controller(task, learned, 3, look, kept)
            task.seen, task.last = 0, None
        comparison.run_controller(task, learned, 3, look, kept)
        found.append(look.images)
        assert task.seen == 1 and look.path.exists()
    np.testing.assert_array_equal(*found)
    played = compiled_episodes.episodes_of(task, learned.schedule())
    position, _ = episodes.play(played, starts.starts("test", 3))
    expected = played.samples(position, 16)
    assert len(np.unique(expected)) == 3
    np.testing.assert_allclose(found[0], expected, atol=1 / 127)


def test_a_mean_over_validations_does_not_favour_early_ends():
    class Patient(Fit):
        patience = 1

        def measure(self, model, split):
            # 1 at the start, then worse and worse.
            number = 1 + int(model.schedule_state.step) // self.period
            return {"loss": 0.0, "error": float(number)}

    task = Patient()
    played = compiled_episodes.episodes_of(task, schedules.Ratio([(1, 1)]))
    position, _ = episodes.play(played, [1])
    assert [y for _, y in played.curves(position)[0]] == [2.0]
    task.patience = 2
    position, _ = episodes.play(played, [1])
    # The third of three validations was not made.
    assert played.details(position)["mean score"] == pytest.approx(8 / 3)


def test_baselines_can_be_tuned_for_the_mean_of_the_curve(
    tmp_path, monkeypatch
):
    task = Fit()
    grids = baselines.grids(task)
    (name, candidates), *_ = grids.items()
    best = {"result": 1, "mean score": 2}

    def outcomes(task, candidates, seeds, *_, **__):
        values = {
            of: np.tile(np.arange(len(candidates))[:, None] != place, (1, 2))
            for of, place in best.items()
        }
        return values.pop("result"), values, None

    monkeypatch.setattr(baselines, "outcomes", outcomes)
    purposes = {None: 1, "mean score": 2}
    for by, place in purposes.items():
        chosen, _ = baselines.tune(task, 2, names=[name], by=by)
        assert chosen[name].label == candidates[place].label
    # Each choice is kept for its own purpose, and for these data.
    for digest in ("some", "other"):
        task.data_digest = digest
        for news in (2, 0):
            for by, place in purposes.items():
                said = []
                runs = bench.Bench(
                    *(tmp_path, 2, 2, True, said.append, [name], by)
                )
                chosen = runs.chosen(task)
                assert chosen[name].label == candidates[place].label
                assert len(said) == news
    with pytest.raises(ValueError, match="cannot be tuned by 'loss'.*mean sc"):
        baselines.tune(task, 2, names=[name], by="loss")


def test_a_training_that_cannot_begin_makes_nothing(tmp_path):
    class Dear(Fit):
        def build(self):
            raise AssertionError("it was built")

    with pytest.raises(ValueError, match="no checkpoint"):
        autoloss.train(Dear(), OPTIONS, output_dir=tmp_path, resume=True)
    autoloss.train(Fit(), OPTIONS, output_dir=tmp_path)
    with pytest.raises(ValueError, match="already holds a training"):
        autoloss.train(Dear(), OPTIONS, output_dir=tmp_path)


def test_validations_of_models_draw_otherwise_than_tests():
    """A coin that is chosen on some draws must not be tested on them."""
    task = Fit()
    coin = baselines.published(task)["even coin"]
    played = compiled_episodes.episodes_of(task, coin.kind([coin.setting] * 3))
    drawn = {}
    for draw in (0, starts.VALIDATION_DRAW):
        position = played.begin([1, 2, 3], draw)
        _, records = played.advance(position)
        drawn[draw] = {tuple(x) for x in records.actions.T[:, : task.max_steps]}
    assert not drawn[0] & drawn[starts.VALIDATION_DRAW]


def test_a_task_sees_what_it_looks_at():
    """Magnitudes are computed for the task alone."""

    class Looks(Fit):
        tells = ("size",)
        looks_at = ("gradient_magnitudes",)

        def metadata(self, model, found):
            return {"size": found["gradient_magnitudes"][:, 0]}

    task = Looks()
    candidate = baselines.published(task)["1:1"]
    played = compiled_episodes.episodes_of(
        task, candidate.kind([candidate.setting])
    )
    position, _ = episodes.play(played, [1])
    values = position.state[0].values
    for variable, value in zip(played.model.variables, values):
        variable.assign(value)
    state = played.model.schedule_state.metadata()
    assert np.all(state["gradient_magnitudes"].numpy() > 0)
    # A copy has a model of its own, and a task that is gone leaves none.
    assert task.made is not None and copy.copy(task).made is None


def test_results_are_those_of_the_best_validation():
    class Worse(Fit):
        """Each validation is worse than the one before; two end it."""

        patience = 2
        calls = 0

        def measure(self, model, split):
            if split == "test":
                (kernel, _) = model.net.trainable_variables
                return {"loss": 0.0, "error": float(np.sum(kernel))}
            self.calls += 1
            return {"loss": 0.0, "error": float(self.calls)}

    task = Worse()
    played = compiled_episodes.episodes_of(
        task, schedules.Constant([[1.0, 0.0]]), 12
    )
    position, records = played.advance(played.begin([7]))
    assert records.alive.sum() == 8
    # The best were the first weights.
    kernel = np.random.default_rng(7).normal(size=(3, 1)).astype("float32")
    np.testing.assert_allclose(
        played.result(position, "test"), kernel.sum(), rtol=1e-5
    )


def test_an_interrupted_training_of_a_controller_resumes(tmp_path):
    task = Fit()
    undisturbed, history = autoloss.train(task, OPTIONS)
    half = autoloss.ControllerOptions(**{**vars(OPTIONS), "episodes": 2})
    autoloss.train(task, half, output_dir=tmp_path)
    resumed, again = autoloss.train(
        task, OPTIONS, output_dir=tmp_path, resume=True
    )
    assert history == again
    for name, array in undisturbed.weights().items():
        np.testing.assert_array_equal(array, resumed.weights()[name])


def test_model_tasks_break_no_contract_silently():
    class NoResult(Fit):
        measures = ("loss",)

    class OtherActions(Fit):
        actions = ("fit", "other")

    class Forgets(Fit):
        def measure(self, model, split):
            return {"error": 1.0}

    for kind, message in (
        (NoResult, "`measures`.*'error'"),
        (OtherActions, "must be its actions, fit, other"),
        (Forgets, "must return loss, error"),
    ):
        with pytest.raises(ValueError, match=message):
            task = kind()
            played = compiled_episodes.episodes_of(
                task, schedules.Ratio([[1, 1]])
            )
            played.begin([0])
    with pytest.raises(ValueError, match="'gradient_cosine'"):
        trainer.Trainer(Fit(), autoloss.ControllerOptions(features=("cosine",)))
    assert tf.executing_eagerly()


def test_episodes_begin_with_new_optimizers():
    """Also where `build` returns a model that was trained before."""

    @dataclasses.dataclass
    class Trained(Fit):
        """Compared by value: no key of a dictionary."""

        rate: float = 0.02

        def __post_init__(self):
            super().__init__()

        def build(self):
            model = super().build()
            model.compile(keras.optimizers.Adam(self.rate))
            if self.trains:
                data = tf.data.Dataset.from_tensors((INPUTS, TARGETS))
                model.fit(data.repeat(), steps_per_epoch=5, verbose=0)
                model.optimizer.learning_rate = 0.01
            else:
                model.optimizer.learning_rate = 0.01
            return model

    found = []
    for trains in (False, True):
        task = Trained()
        task.trains = trains
        candidate = baselines.published(task)["1:1"]
        found.append(baselines.outcomes(task, [candidate], [5], "test")[0])
    np.testing.assert_array_equal(*found)
