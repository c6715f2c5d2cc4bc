"""Schedules and their training: gradients, tasks, rewards, round trips."""

import dataclasses
import itertools

import numpy as np
import pytest
import sklearn.datasets
import slow_cases
import tensorflow as tf

from lopt_tf import checkpointing
from lopt_tf.autoloss import (
    baselines,
    comparison,
    compiled_episodes,
    episodes,
    metadata,
    options,
    ppo,
    reinforce,
    rewards,
    schedule_argument,
    schedules,
    tasks,
    trainer,
)
from lopt_tf.autoloss import controller as controller_lib
from lopt_tf.autoloss.controller import ScheduleController
from lopt_tf.autoloss.policy import Policy
from lopt_tf.autoloss.starts import starts, training_starts
from problems import alternating
from problems.alternating import classification, regression


class Planted(alternating.AlternatingTask):
    """The second action lowers the loss, the first does not."""

    name = "planted"
    actions = ("useless", "useful")
    max_steps = 40
    period = 1
    result_name = "loss"

    def reset(self, seeds):
        count = len(seeds)
        state = {"time": tf.constant(0), "loss": tf.fill([count], 1.0)}
        return state, self._metadata(state, tf.zeros([count]))

    def step(self, state, action_weights):
        drop = 0.01 * action_weights[:, 1]
        state = {"time": state["time"] + 1, "loss": state["loss"] - drop}
        return state, self._metadata(state, drop)

    def _metadata(self, state, drop):
        ones = tf.ones_like(drop)
        return {
            "finished": (ones > 0) & (state["time"] >= self.max_steps),
            "validated": ones > 0,
            "improvement": drop,
            "mean_improvement": 0.005 * ones,
        }

    def result(self, state, split):
        return state["loss"]

    def get_config(self):
        return {}


PLANTED = options.ControllerOptions(
    features=("progress",),
    hidden=0,
    learning_rate=0.1,
    episodes=48,
    parallel=4,
    final_scale=1.0,
    collapse_after=1000,
)
TINY = {
    "regression": {"dimensions": 3, "max_steps": 40},
    "classification": {"features": 5, "hidden": [4], "max_steps": 40},
}


def _tiny(name, **more):
    return tasks.TASKS[name].make(**TINY[name], **more)


# Tasks


def test_regression_data_follow_the_recipe():
    np.random.seed(1)
    weights = np.random.rand(16) - 0.5
    rows = []
    for _ in range(1000):
        x = 10 * (np.random.rand(16) - 0.5)
        rows.append((x, x @ weights + np.random.normal(0, 2)))
    splits = regression.draw_data(1, 16, 2.0)
    x, y = (np.concatenate(part) for part in zip(*splits))
    np.testing.assert_allclose(x, [r[0] for r in rows], rtol=1e-6)
    np.testing.assert_allclose(y, [r[1] for r in rows], rtol=1e-5)


def test_classification_data_follow_the_recipe():
    np.random.seed(1)
    x, y = sklearn.datasets.make_classification(
        3400, 32, n_informative=2, n_redundant=2, n_clusters_per_class=2
    )
    splits = classification.draw_data(1, 32, 0.01)
    assert [len(part[0]) for part in splits] == [200, 1000, 200, 1000, 1000]
    np.testing.assert_allclose(np.concatenate([s[0] for s in splits]), x, 1e-6)
    np.testing.assert_array_equal(np.concatenate([s[1] for s in splits]), y)


def test_roles_take_their_splits():
    splits = regression.draw_data(1, 3, 2.0)
    for role, (train, valid) in {"controller": (0, 1), "task": (2, 3)}.items():
        task = _tiny("regression", role=role)
        for name, place in (("train", train), ("valid", valid), ("test", 4)):
            targets = task.splits[name][1]
            np.testing.assert_array_equal(targets, splits[place][1])
    with pytest.raises(ValueError, match="Unknown role 'judge'"):
        _tiny("regression", role="judge")


def test_regression_follows_numpy():
    """Twenty-five alternating steps against loops in double precision."""
    task = _tiny("regression")
    state, _ = task.reset([5])
    weights = task.initial_params([5])[0][0].astype("float64")
    x, y = regression.draw_data(1, 3, 2.0)[2]
    valid_x, valid_y = regression.draw_data(1, 3, 2.0)[3]
    terms = np.float64(regression._terms(x))
    valid_terms = np.float64(regression._terms(valid_x))
    first, second = np.zeros(12), np.zeros(12)
    best = np.inf
    for t in range(25):
        action = int(t % 3 == 0)
        if action:
            gradient = 0.2 * np.sign(weights)
        else:
            errors = terms @ weights - y
            gradient = 2 * terms.T @ errors / len(y)
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        rate = 5e-4 * np.sqrt(1 - 0.999 ** (t + 1)) / (1 - 0.9 ** (t + 1))
        weights = weights - rate * first / (np.sqrt(second) + 1e-8)
        choice = tf.one_hot([action], 2)
        state, found = task.step(state, choice)
        if (t + 1) % 10 == 0:
            valid = np.mean((valid_terms @ weights - valid_y) ** 2)
            best = min(best, valid)
            np.testing.assert_allclose(found["valid_loss"], [valid], 1e-5)
    np.testing.assert_allclose(state["params"][0][0], weights, 1e-4, 1e-6)
    np.testing.assert_allclose(task.result(state, "valid"), [best], 1e-5)
    errors = terms @ weights - y
    gradients = [2 * terms.T @ errors / len(y), 0.2 * np.sign(weights)]
    norms = [np.linalg.norm(g) for g in gradients]
    np.testing.assert_allclose(
        found["gradient_magnitudes"][0], np.array(norms) / np.sqrt(12), 1e-4
    )
    cosine = gradients[0] @ gradients[1] / norms[0] / norms[1]
    np.testing.assert_allclose(found["gradient_cosine"], [cosine], 1e-3)
    losses = [np.mean(errors**2), 0.2 * np.abs(weights).sum()]
    np.testing.assert_allclose(found["losses"][0], losses, 1e-4)


def test_classifier_gradients_follow_finite_differences():
    task = _tiny("classification", activation="tanh")
    params = [np.float64(p) for p in task.initial_params([3])]
    _, gradients = task._gradients([tf.constant(p, tf.float32) for p in params])
    x, y = classification.draw_data(1, 5, 0.01)[2]

    def loss(params):
        hidden = np.tanh(x @ params[0][0] + params[1][0])
        logits = hidden @ params[2][0] + params[3][0]
        logs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
        return -np.mean(logs[np.arange(len(y)), y])

    for i, param in enumerate(params):
        place = (0,) * param.ndim
        values = []
        for sign in (1, -1):
            moved = [p.copy() for p in params]
            moved[i][place] += sign * 1e-5
            values.append(loss(moved))
        expected = (values[0] - values[1]) / 2e-5
        np.testing.assert_allclose(gradients[0][i][place], expected, rtol=1e-3)


@pytest.mark.parametrize("name", slow_cases.marked(TINY, "classification"))
def test_episodes_side_by_side_are_as_alone(name):
    task = _tiny(name)
    even = [baselines.published(task)["1:1"]]
    together = baselines.outcomes(task, even, [4, 5, 6], "test")[0]
    alone = [baselines.outcomes(task, even, [s], "test")[0] for s in (4, 5, 6)]
    np.testing.assert_allclose(together[0], np.ravel(alone), rtol=1e-4)


def test_patience_ends_an_episode_and_freezes_it():
    task = _tiny("regression", patience=1)
    # Uphill: every validation is worse than the one before.
    schedule = schedules.Constant([[-1.0, 0.0]])
    position, _ = episodes.play(
        compiled_episodes.episodes_of(task, schedule, segment_length=10), [0]
    )
    state = position.state
    assert int(state["time"]) < 40
    assert bool(state["finished"][0])
    before = state["params"][0].numpy()
    after, _ = task.step(state, tf.constant([[1.0, 0.0]]))
    np.testing.assert_array_equal(after["params"][0], before)


def test_patience_counts_validations_worse_than_the_one_before():
    """Up and down by turns never ends an episode, however far from the best."""
    task = _tiny("regression", patience=2, learning_rate=0.05)
    state, _ = task.reset([0])
    signs = [1.0] * 10 + [-1.0] * 10
    for t in range(40):
        state, found = task.step(state, tf.constant([[signs[t % 20], 0.0]]))
        if t + 1 == 40:
            assert bool(found["finished"][0])
        else:
            assert not bool(found["finished"][0])
    assert int(state["without_improvement"][0]) < 2


@pytest.mark.parametrize(
    "name, bad",
    [
        ("regression", {"dimensions": 0}),
        ("regression", {"max_steps": "abc"}),
        ("regression", {"patience": -1}),
        ("regression", {"learning_rate": 0}),
        ("classification", {"features": 2}),
        ("classification", {"label_noise": 2.0}),
        ("classification", {"hidden": [0]}),
    ],
)
def test_task_arguments_are_checked(name, bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        tasks.TASKS[name].make(**bad)


def test_unknown_activation_is_named():
    with pytest.raises(ValueError, match="Unknown activation 'swosh'.*relu"):
        _tiny("classification", activation="swosh")


@pytest.mark.slow
def test_baselines_reproduce_the_release():
    """Means within two of the release's standard deviations."""
    cases = [
        (entry.task(), baseline, figures)
        for entry in tasks.TASKS.values()
        for baseline, figures in entry.reported.items()
    ]
    for task, baseline, (mean, deviation) in cases:
        candidate = baselines.published(task)[baseline]
        found = baselines.outcomes(task, [candidate], range(10), "test")[0][0]
        error = abs(found.mean() - mean)
        assert error < 2 * deviation, (baseline, found.mean())


# Policy and features


def test_policy_round_trip_and_scale(tmp_path):
    policy = Policy(3, hidden=4, logit_scale=2.0, seed=1)
    features = np.random.default_rng(0).normal(size=(5, 2)).astype("float32")
    once = policy(features).numpy()
    twin = Policy.from_config(policy.get_config())
    np.testing.assert_array_equal(twin(features), once)
    double = Policy(3, hidden=4, logit_scale=1.0, seed=1)
    np.testing.assert_allclose(double(features), 2 * once, rtol=1e-6)
    path = tmp_path / "policy.keras"
    policy.save(path)
    import keras

    np.testing.assert_array_equal(keras.models.load_model(path)(features), once)


def test_policy_distribution_mixes_epsilon():
    policy = Policy(2, hidden=0, seed=1)
    features = tf.constant([[1.0, -2.0]])
    chances = tf.nn.softmax(policy(features)).numpy()
    mixed = policy.distribution(features, tf.constant(0.4))
    np.testing.assert_allclose(
        np.exp(mixed.log_prob([0])), 0.6 * chances[:, 0] + 0.2, rtol=1e-5
    )
    with pytest.raises(ValueError, match="`num_actions` must be at least 2"):
        Policy(1)


def test_features_by_hand():
    task = _tiny("classification")
    state, _ = task.reset([0, 1])
    for t in range(20):
        state, found = task.step(state, tf.one_hot([0, t % 2], 2))
    choice = tf.one_hot([0, 1], 2)
    before = {
        "last_action": tf.one_hot([0, 0], 2),
        "run_length": tf.constant([8.0, 5.0]),
        "average_losses": tf.constant([[2.0, 3.0]] * 2),
    }
    found |= metadata.course(task, 20, 2, choice, before, found["losses"])
    # Others are of opposed networks.
    names = tuple(
        name
        for name, feature in metadata.FEATURES.items()
        if {*feature.needs} <= {*found}
    )
    values = metadata.Features(names)(found).numpy()
    train, valid = found["train_loss"].numpy(), found["valid_loss"].numpy()
    first, second = found["gradient_magnitudes"].numpy().T
    loss, penalty = found["losses"].numpy().T
    mean = found["mean_improvement"].numpy()
    expected = {
        "gap": (valid - train) / train,
        "improvement": 1 + np.log(mean + 1e-5) / 12,
        "level_20": np.minimum(1, loss / 20) - 0.5,
        "level_1": np.minimum(1, loss) - 0.5,
        "penalty": penalty - 1,
        "magnitudes": first - second,
        "relative_magnitudes": (first - second) / second,
        "log_magnitudes": np.log10(first / second),
        "log_ratio": np.log(first / second),
        "centred_log_ratio": np.log(first / second) + 1.2,
        "accuracy_gap": found["train_accuracy"] - found["valid_accuracy"],
        "cosine": found["gradient_cosine"],
        "progress": [20 / 40 - 0.5] * 2,
        "wide_progress": [4 * 20 / 40 - 2] * 2,
        "average_first": 0.9 * 2 + 0.1 * loss - 1,
        "average_second": 0.9 * 3 + 0.1 * penalty - 1,
        "average_ratio": np.log(
            (0.9 * 2 + 0.1 * loss) / (0.9 * 3 + 0.1 * penalty)
        ),
        "last_action": [-1, 1],
        "run_length": np.log10([10, 2]) - 1,
    }
    assert set(expected) == set(names)
    for name, column in zip(names, values.T):
        reference = np.clip(expected[name], -5, 5)
        np.testing.assert_allclose(column, reference, rtol=1e-4, atol=1e-6)
    with pytest.raises(ValueError, match="Unknown feature 'mood'.*gap"):
        metadata.Features(["mood"])


def test_improvements_are_those_of_the_validation_loss():
    task = _tiny("regression")
    state, found = task.reset([0])
    losses, mean = [float(found["valid_loss"][0])], None
    for t in range(30):
        state, found = task.step(state, tf.constant([[1.0, 0.0]]))
        assert bool(found["validated"][0]) == ((t + 1) % 10 == 0)
        if (t + 1) % 10 == 0:
            losses.append(float(found["valid_loss"][0]))
            drop = losses[-2] - losses[-1]
            np.testing.assert_allclose(found["improvement"], [drop], 1e-4)
            mean = abs(drop) if mean is None else 0.9 * mean + 0.1 * abs(drop)
            np.testing.assert_allclose(found["mean_improvement"], [mean], 1e-4)


# Rewards


def test_step_reward_by_hand():
    found = rewards.step_reward(0.5)(
        {
            "improvement": tf.constant([0.04, -0.09, 1e6, 0.04]),
            "mean_improvement": tf.constant([0.01, 0.01, 0.01, 0.01]),
            "validated": tf.constant([True, True, True, False]),
        }
    )
    np.testing.assert_allclose(found, [1.0, -1.5, 10.0, 0.0], rtol=1e-4)


def test_rewards_are_spread_over_their_steps():
    given = np.zeros([6, 2])
    given[2], given[5] = [1, 2], [3, 4]
    spread = rewards.spread(given, 3)
    np.testing.assert_array_equal(spread[:3], np.tile([[1, 2]], (3, 1)))
    np.testing.assert_array_equal(spread[3:], np.tile([[3, 4]], (3, 1)))


def test_longest_runs_against_a_loop():
    rng = np.random.default_rng(0)
    actions = rng.integers(2, size=(200, 5))
    actions[50:120, 3] = 1
    ends = [200, 150, 10, 200, 1]
    alive = np.arange(200)[:, None] < ends
    expected = [
        max(len(list(g)) for _, g in itertools.groupby(actions[:end, e]))
        for e, end in enumerate(ends)
    ]
    found = rewards.longest_runs(actions, alive)
    np.testing.assert_array_equal(found, expected)


# Policy gradients


def test_policy_gradient_is_that_of_the_expectation():
    """A task of three steps: all eight sequences against brute force."""
    policy = Policy(2, hidden=3, logit_scale=2.0, seed=3)
    rng = np.random.default_rng(1)
    pays = rng.normal(size=8).astype("float32")
    sequences = np.array(list(itertools.product([0, 1], repeat=3)))

    def features(sequence):
        """What is seen depends on what was done."""
        seen, rows = 0.3, []
        for action in sequence:
            rows.append([seen, 1.0])
            seen = 0.5 * seen + action - 0.2
        return rows

    seen = np.float32([features(s) for s in sequences])
    policy(seen[0])
    with tf.GradientTape() as tape:
        logs = tf.nn.log_softmax(
            tf.reshape(policy(seen.reshape(-1, 2)), [8, 3, 2])
        )
        chances = tf.exp(
            tf.reduce_sum(logs * tf.one_hot(sequences, 2), axis=[1, 2])
        )
        expectation = tf.reduce_sum(chances * pays)
    expected = tape.gradient(expectation, policy.trainable_variables)
    # Every sequence as often as its chance: weights instead of samples.
    weighted = np.tile(8 * chances.numpy() * pays, (3, 1))
    found, _ = reinforce.policy_gradient(
        policy,
        tf.constant(seen.transpose(1, 0, 2)),
        tf.constant(sequences.T),
        tf.constant(weighted, tf.float32),
        tf.ones([3, 8]),
    )
    for a, b in zip(found, expected):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_sampled_policy_gradient_points_to_the_expectation():
    """The same through sampled episodes, baseline and all."""
    task = Planted()
    learner_options = dataclasses.replace(PLANTED, step_scale=0.0)
    run = trainer.Trainer(task, learner_options)
    before = run.controller.policy.trainable_variables[1].numpy()
    for _ in range(4):
        run.step()
    after = run.controller.policy.trainable_variables[1].numpy()
    assert after[1] - after[0] > before[1] - before[0]


def test_advantages_follow_a_loop():
    rng = np.random.default_rng(2)
    reward, value = rng.normal(size=(2, 7, 3))
    last = rng.normal(size=3)
    alive = np.arange(7)[:, None] < [7, 4, 1]
    found = ppo.generalised_advantages(
        reward, value, last * alive[-1], alive, 0.9, 0.95
    )
    for e, end in enumerate([7, 4, 1]):
        following = np.append(value[1:end, e], last[e] if end == 7 else 0.0)
        errors = reward[:end, e] + 0.9 * following - value[:end, e]
        for t in range(end):
            powers = (0.9 * 0.95) ** np.arange(end - t)
            expected = np.sum(powers * errors[t:])
            np.testing.assert_allclose(found[t, e], expected, rtol=1e-9)
        assert not found[end:, e].any()


def test_replay_has_no_value_after_the_end():
    learner_options = dataclasses.replace(PLANTED, algorithm="ppo")
    task = Planted()
    run = trainer.Trainer(task, learner_options)
    # The episode of 40 steps ends within the segment or on its last step.
    for length in (40, 50):
        run.learner.replay = []
        played = compiled_episodes.episodes_of(
            task, run.schedule, length, rewards.step_reward()
        )
        _, records = played.advance(played.begin([0, 1]))
        assert records.finished.all()
        run.learner.replay = [records]
        batch = run.learner._transitions()
        returns = batch["returns"].reshape(length, 2)
        # The last return is the last reward, and nothing beyond.
        last = records.reward[39]
        np.testing.assert_allclose(returns[39], last, atol=1e-6)


def test_step_rewards_relative_to_the_other_episodes():
    given = np.array([[1.0, 2.0, 6.0], [1.0, 3.0, 0.0], [5.0, 0.0, 0.0]])
    alive = np.array([[1, 1, 1], [1, 1, 0], [1, 0, 0]], bool)
    found = reinforce.relative(given, alive)
    np.testing.assert_allclose(
        found, [[-3.0, -1.5, 4.5], [-2.0, 2.0, 0.0], [5.0, 0.0, 0.0]]
    )


def test_clipped_objective_against_numpy():
    rng = np.random.default_rng(3)
    new, old, advantages = rng.normal(size=(3, 50)).astype("float32")
    found = ppo.clipped_objective(
        tf.constant(new), tf.constant(old), tf.constant(advantages), 0.2
    )
    ratio = np.exp(new - old)
    expected = np.minimum(
        ratio * advantages, np.clip(ratio, 0.8, 1.2) * advantages
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("algorithm", options.ALGORITHMS)
@pytest.mark.parametrize("seed", [0, 1])
def test_a_planted_action_is_learned(algorithm, seed):
    rate = {"ppo": 0.05, "evolution": 1.5}.get(algorithm, 0.1)
    learner_options = dataclasses.replace(
        PLANTED, algorithm=algorithm, seed=seed, learning_rate=rate
    )
    assert learner_options.episodes < 50
    task = Planted()
    controller, _ = trainer.train(task, learner_options)
    _, shares = episodes.play(
        compiled_episodes.episodes_of(task, controller.schedule()), range(32)
    )
    assert np.nanmean(shares[..., 1]) > 0.9


def test_collapse_is_detected_and_restarts_the_controller():
    learner_options = dataclasses.replace(
        PLANTED, learning_rate=1.0, collapse_after=20
    )
    run = trainer.Trainer(Planted(), learner_options)
    lowest = []
    while not run.restarts:
        row = run.step()
        lowest.append(row)
        assert run.round < 40
    assert lowest[-1]["collapsed"] >= 3
    # The new controller is undecided again.
    chances = run.controller.policy.distribution(tf.zeros([1, 1]))
    assert 0.3 < float(chances.probs_parameter()[0, 0]) < 0.7
    # A restarted training is restored like any other.
    other = trainer.Trainer(Planted(), learner_options)
    other.restore(*run.snapshot())
    assert run.step() == other.step()


def test_collapsed_episodes_get_the_lowest_reward():
    run = trainer.Trainer(Planted(), PLANTED)
    actions = np.zeros([1200, 3], int)
    actions[::2, 1:] = 1
    alive = np.ones_like(actions, bool)
    final, collapsed = run._final_rewards(
        np.array([0.1, 0.5, 1.0]), actions, alive
    )
    assert collapsed.tolist() == [True, False, False]
    np.testing.assert_allclose(final, [1.0, 2.0, 1.0])


# Schedules and comparison


def test_fixed_schedules():
    def played(schedule, steps=12):
        rows = []
        for t in range(steps):
            found = {"train_loss": tf.ones(2), "valid_loss": [1.2, 3.0]}
            rows.append(schedule(found, t, tf.constant([7, t])).weights)
        return np.argmax(rows, -1).T

    ratio = played(schedules.Ratio([(1, 2), (3, 1)]))
    assert ratio[0].tolist() == [0, 1, 1] * 4
    assert ratio[1].tolist() == [0, 0, 0, 1] * 3
    watch = played(schedules.WatchOverfitting([0.5, 0.5]))
    assert watch.tolist() == [[0] * 12, [1] * 12]
    coin = played(schedules.Coin([(0.9, 0.1), (0.2, 0.8)]), 2000)
    np.testing.assert_allclose(coin.mean(1), [0.1, 0.8], atol=0.03)


def test_starts_do_not_overlap():
    validation, test = starts("validation", 2000), starts("test", 2000)
    training = [
        start
        for seed in range(20)
        for number in range(20)
        for start in training_starts(seed, number, 64)
    ]
    assert not set(validation) & set(test)
    assert not set(training) & {*validation, *test}
    assert len(set(training)) > 0.99 * len(training)


def test_tuning_reads_validation_alone(monkeypatch):
    task = _tiny("regression")
    read = []
    result = task.result
    monkeypatch.setattr(
        task, "result", lambda s, split: read.append(split) or result(s, split)
    )
    chosen, rows = baselines.tune(task, 2, fine=False)
    assert set(read) == {"valid"}
    for name, candidate in chosen.items():
        mine = [row for row in rows if row["baseline"] == name]
        best = min(mine, key=lambda row: row["validation"])
        assert best["chosen"] and best["setting"] == candidate.label


def test_paired_interval_against_scipy():
    import scipy.stats

    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 20))
    found = comparison.paired(a, b)
    expected = scipy.stats.ttest_rel(a, b).confidence_interval(0.95)
    np.testing.assert_allclose(
        [found["low"], found["high"]], [expected.low, expected.high]
    )


# Files


def test_training_resumes_exactly(tmp_path):
    learner_options = tasks.recipe(
        "regression", episodes=12, parallel=3, validate_every=2
    )
    task = _tiny("regression", role="controller")
    judge = _tiny("regression")
    whole, history = trainer.train(task, learner_options, validation_task=judge)

    class Stop(Exception):
        pass

    original = trainer.Trainer.step

    def stopping(self):
        row = original(self)
        if self.round == 2 and not resumed:
            raise Stop
        return row

    resumed = False
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer.Trainer, "step", stopping)
        with pytest.raises(Stop):
            trainer.train(
                task,
                learner_options,
                validation_task=judge,
                output_dir=tmp_path,
            )
        resumed = True
        again, second = trainer.train(
            task,
            learner_options,
            validation_task=judge,
            output_dir=tmp_path,
            resume=True,
        )
    assert second == history
    for name, array in whole.weights().items():
        np.testing.assert_array_equal(again.weights()[name], array)
    loaded = ScheduleController.load(tmp_path / "best.npz")
    for name, array in whole.weights().items():
        np.testing.assert_array_equal(loaded.weights()[name], array)


@pytest.mark.parametrize("algorithm", options.ALGORITHMS)
def test_snapshot_holds_everything(algorithm):
    learner_options = dataclasses.replace(
        PLANTED, algorithm=algorithm, episodes=16
    )
    straight = trainer.Trainer(Planted(), learner_options)
    for _ in range(2):
        straight.step()
    other = trainer.Trainer(Planted(), learner_options)
    other.restore(*straight.snapshot())
    assert straight.step() == other.step()


def test_damaged_and_foreign_files(tmp_path):
    task = _tiny("regression", role="controller")
    learner_options = tasks.recipe("regression", episodes=2, parallel=2)
    trainer.train(task, learner_options, output_dir=tmp_path)
    with pytest.raises(checkpointing.CheckpointError, match="already holds"):
        trainer.train(task, learner_options, output_dir=tmp_path)
    other = dataclasses.replace(learner_options, learning_rate=1.0)
    with pytest.raises(checkpointing.CheckpointError, match="learning_rate"):
        trainer.train(task, other, output_dir=tmp_path, resume=True)
    # The task and the options both have a learning rate.
    faster = _tiny("regression", role="controller", learning_rate=0.1)
    with pytest.raises(checkpointing.CheckpointError, match="task.learning"):
        trainer.train(faster, learner_options, output_dir=tmp_path, resume=True)
    path = tmp_path / "controller.npz"
    controller = ScheduleController.load(path)
    with pytest.raises(ValueError, match="decides between mse, l1"):
        controller.check_fits(_tiny("classification"))
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(checkpointing.CheckpointError, match="damaged"):
        ScheduleController.load(path)
    with pytest.raises(checkpointing.CheckpointError, match="no file"):
        ScheduleController.load(tmp_path / "nothing.npz")
    with pytest.raises(ValueError, match="Unknown task 'juggling'"):
        tasks.recipe("juggling")
    with pytest.raises(ValueError, match="Unknown algorithm 'guess'"):
        tasks.recipe("regression", algorithm="guess")


def test_release_figures_stand_beside_its_own_task_only():
    values = {"1:1": ("1:1", np.array([4.0, 5.0]))}
    (row,) = comparison.summary(alternating.Regression(), values)
    assert row["release"] == "4.281 +- 0.034"
    (row,) = comparison.summary(_tiny("regression"), values)
    assert "release" not in row


def test_evolution_begins_evenly():
    settings = {"features": ("progress",), "hidden": 0, "seed": 3}
    for algorithm, is_even in (("evolution", True), ("reinforce", False)):
        chosen = options.ControllerOptions(algorithm=algorithm, **settings)
        made = ScheduleController.untrained(
            "toy", ("one", "two", "three"), chosen
        )
        logits = made.policy(np.ones([1, 1], "float32"))[0].numpy()
        assert (np.ptp(logits) == 0) == is_even


@pytest.mark.parametrize("first", [0, 10**8])
def test_even_draws_keep_to_their_shares(first):
    """Each interval gets its share of steps in a row, wherever they begin."""
    steps = np.arange(first, first + 300)
    draws = np.stack(
        [
            schedules.spread_draws(2, tf.constant([5, step], tf.int32))
            for step in steps
        ]
    )
    start = schedules.spread_draws(2, tf.constant([5, 0]))
    # In parts of 2^32; Python counts in integers of any length.
    golden = round((5**0.5 - 1) / 2 * 2**32)
    passed = np.array([int(step) * golden % 2**32 for step in steps]) / 2**32
    apart = np.abs(draws - (start + passed[:, None]) % 1)
    assert np.minimum(apart, 1 - apart).max() < 1e-6
    assert abs(draws[0, 0] - draws[0, 1]) > 1e-3
    for low, high in ((0, 0.1), (0.1, 0.75), (0.75, 1)):
        inside = (draws >= low) & (draws < high)
        for length in (20, 100):
            passed = np.cumsum(inside, axis=0)
            counts = passed[length:] - passed[:-length]
            assert np.abs(counts - length * (high - low)).max() < 3
    assert draws.min() >= 0 and draws.max() < 1


def test_controllers_keep_to_even_draws(tmp_path):
    options = tasks.recipe("translation", "evolution")
    assert options.even_draws
    made = ScheduleController.untrained("any", ("a", "b", "c"), options)
    made.save(tmp_path / "even.npz")
    loaded = ScheduleController.load(tmp_path / "even.npz")
    schedule = loaded.schedule()
    schedule.features = lambda metadata: tf.zeros([2, len(made.features)])
    taken = [schedule({}, i, tf.constant([3, i])) for i in range(200)]
    shares = np.mean([choice.weights for choice in taken], axis=0)
    # Independent draws miss by 0.03.
    np.testing.assert_allclose(shares, [[0.75, 0.125, 0.125]] * 2, atol=0.011)
    for choice in taken:
        chance = np.sum(choice.weights * np.float32([0.75, 0.125, 0.125]), 1)
        np.testing.assert_allclose(choice.log_prob, np.log(chance), atol=1e-5)
    assert made.identity() == loaded.identity()
    loaded.even_draws = False
    assert made.identity() != loaded.identity()
    config = schedule_argument.get_config(made.schedule())
    assert schedule_argument.from_config(config).even_draws
    # Files of before do not say so.
    del config["even_draws"]
    assert not schedule_argument.from_config(config).even_draws


def test_files_say_nothing_of_independent_draws(tmp_path):
    """As those of before, so that earlier versions can read them."""
    options = tasks.recipe("regression")
    path = tmp_path / "old.npz"
    made = ScheduleController.untrained("any", ("a", "b"), options)
    made.save(path)
    _, facts = checkpointing.load(path, controller_lib._KIND)
    assert "even_draws" not in facts["config"]
    loaded = ScheduleController.load(path)
    assert not loaded.even_draws and not loaded.schedule().even_draws


@pytest.mark.parametrize("algorithm", ["reinforce", "ppo"])
def test_even_draws_are_for_evolution(algorithm):
    with pytest.raises(ValueError, match="`even_draws` is for"):
        tasks.recipe("regression", algorithm, even_draws=True)
    with pytest.raises(ValueError, match="`even_draws` must be True or False"):
        tasks.recipe("regression", "evolution", even_draws=1)


def test_episodes_side_by_side_draw_evenly():
    """A compiled round of a policy that has seen nothing yet."""
    chosen = dataclasses.replace(
        PLANTED, algorithm="evolution", parallel=4, episodes=4, even_draws=True
    )
    played = trainer.Trainer(Planted(), chosen)
    for weights in played.schedule.weights:
        weights.assign(tf.zeros(weights.shape))
    _, records = played.episodes.advance(played.episodes.begin([0, 0, 1, 1], 3))
    actions = records.actions
    np.testing.assert_array_equal(actions[:, ::2], actions[:, 1::2])
    assert np.any(actions[:, 0] != actions[:, 2])
    for count in (5, 10, 20):
        shares = actions[:count].mean(0)
        assert np.abs(shares - 0.5).max() <= 1.5 / count
