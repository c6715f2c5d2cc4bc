"""A GAN under a schedule: scores, networks, episodes, learners, program."""

import csv
import dataclasses
import functools

import keras
import numpy as np
import pytest
import scipy.linalg
import tensorflow as tf

from lopt_tf.autoloss import (
    baselines,
    comparison,
    compiled_episodes,
    episodes,
    evolution,
    metadata,
    options,
    reinforce,
    rewards,
    sample_pictures,
    schedules,
    tasks,
    trainer,
)
from lopt_tf.autoloss.policy import Policy
from lopt_tf.autoloss.starts import training_starts
from problems import alternating
from problems.alternating import (
    gan_losses,
    gan_nets,
    gan_update,
    image_data,
    scores,
)
from problems.alternating import judge as judge_lib
from train_scripts import autoloss

TINY = {
    "width": 4,
    "z_dim": 4,
    "batch_size": 8,
    "score_images": 50,
    "period": 5,
    "max_steps": 20,
}


@pytest.fixture(scope="module")
def tiny():
    return alternating.Gan(**TINY)


# Scores


def test_inception_score_against_a_loop():
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(4) * 0.3, 30)
    mean = probabilities.mean(0)
    total = 0.0
    for row in probabilities:
        total += sum(p * (np.log(p) - np.log(q)) for p, q in zip(row, mean))
    found = float(scores.inception_score(probabilities))
    assert found == pytest.approx(np.exp(total / 30), rel=1e-9)
    # Sure of all classes alike; of one class alone.
    assert float(scores.inception_score(np.eye(4))) == pytest.approx(4)
    same = np.eye(4)[[1, 1, 1]]
    assert float(scores.inception_score(same)) == pytest.approx(1)


def test_frechet_distance_against_scipy():
    rng = np.random.default_rng(1)
    for count, width in ((40, 5), (4, 6)):
        a = rng.normal(size=[count, width])
        b = rng.normal(size=[70, width]) @ rng.normal(size=[width, width]) + 1
        one, two = np.cov(a.T, ddof=0), np.cov(b.T, ddof=0)
        root = scipy.linalg.sqrtm(one @ two).real
        expected = np.sum((a.mean(0) - b.mean(0)) ** 2)
        expected += np.trace(one + two - 2 * root)
        found = scores.frechet_distance(a, b)
        assert found == pytest.approx(expected, rel=1e-3)
        assert scores.frechet_distance(b, b) == pytest.approx(0, abs=1e-9)
    with pytest.raises(ValueError, match="two images at least"):
        scores.frechet_distance(a[:1], b)
    with pytest.raises(ValueError, match="the same features"):
        scores.frechet_distance(a, b[:, 1:])


def test_the_classifier_of_digits_knows_them():
    judge, images = judge_lib.digits_judge(), judge_lib.digits()
    assert len(images.train) == 1400 and len(images.held_out) == 397
    held_out = images.held_out, images.held_out_labels
    assert judge_lib.accuracy(judge, *held_out) >= 0.98
    rows = {r["images"]: r for r in judge_lib.sanity_rows(judge, images)}
    score = {name: row["inception score"] for name, row in rows.items()}
    distance = {name: row["Frechet distance"] for name, row in rows.items()}
    assert score["real"] > 9.5 and score["held out"] > 9.3
    assert score["one class"] < 1.1
    assert 2 < score["noise"] < 5 and 2 < score["pixels shuffled"] < 5
    assert distance["real"] == pytest.approx(0, abs=1e-6)
    assert 0 < distance["held out"] < 5
    for name in ("noise", "one class", "pixels shuffled"):
        assert distance[name] > 40, name


def test_the_classifier_is_kept_and_reused(tmp_path, monkeypatch):
    path = tmp_path / "run" / "classifier.keras"
    first = judge_lib.digits_judge(path)
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    monkeypatch.setattr(judge_lib, "_digits_classifier", None)
    again = judge_lib.digits_judge(path)
    images = judge_lib.digits().held_out
    np.testing.assert_allclose(
        first.ask(images)[0], again.ask(images)[0], rtol=1e-6
    )
    whole = path.read_bytes()
    for place in (len(whole) // 3, len(whole) // 2):
        broken = bytearray(whole)
        broken[place] ^= 0xFF
        path.write_bytes(broken)
        with pytest.raises(ValueError, match="damaged.*Delete it"):
            judge_lib.digits_judge(path)
    path.write_bytes(whole[:1000])
    with pytest.raises(ValueError, match="damaged"):
        judge_lib.digits_judge(path)
    with pytest.raises(ValueError, match="There is no classifier"):
        judge_lib.read_classifier(tmp_path / "none.keras")


def test_any_classifier_judges(tmp_path):
    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input([8, 8, 3]),
            layers.Flatten(),
            layers.Dense(5, "tanh", name="first"),
            layers.Dense(4, "relu", name="second"),
            layers.Dense(3, "softmax"),
        ]
    )
    path = tmp_path / "mine.keras"
    model.save(path)
    data = np.random.default_rng(0).uniform(size=[20, 8, 8]).astype("float32")
    np.savez(tmp_path / "images.npz", images=data)
    task = alternating.Gan(
        dataset=str(tmp_path / "images.npz"),
        classifier_path=str(path),
        classifier_layer="first",
        classifier_range=[0.0, 255.0],
        classifier_outputs="probabilities",
        **TINY,
    )
    assert len(task.images.train) == 16 and len(task.images.held_out) == 4
    images = 2 * data[..., None] - 1
    found, features = task.judge.ask(images)
    inputs = 255 * np.repeat(data[..., None], 3, 3)
    np.testing.assert_allclose(found, model(inputs), atol=1e-4)
    expected = model.layers[1](inputs.reshape(20, -1))
    np.testing.assert_allclose(features, expected, atol=1e-3)
    assert {r["images"] for r in task.sanity_rows()} == {
        *("real", "held out", "noise", "pixels shuffled")
    }
    with pytest.raises(ValueError, match="no layer 'third'.*second"):
        judge_lib.Judge(model, "third")
    with pytest.raises(ValueError, match="Unknown outputs 'odds'"):
        judge_lib.Judge(model, outputs="odds")
    with pytest.raises(ValueError, match=r"of \(8, 8\) pixels; .* \(4, 4\)"):
        task.judge.check_fits(images[:, :4, :4])
    with pytest.raises(ValueError, match="no logits.*='probabilities'"):
        judge_lib.Judge(model, value_range=(0, 255)).check_fits(images)
    ends_before = keras.Model(model.inputs, model.layers[-2].output)
    with pytest.raises(ValueError, match="no probabilities.*='logits'"):
        judge_lib.Judge(ends_before, outputs="probabilities").check_fits(images)
    with pytest.raises(ValueError, match="sequential or functional"):
        judge_lib.Judge(Policy(2))


@pytest.mark.parametrize(
    "arguments, answer",
    [
        ({"balance": 0.5}, "`balance` must be at least 1"),
        ({"balance": float("nan")}, "`balance` must be a positive number"),
        ({"balances": 3}, "`balances` must be a list"),
        ({"balances": [0]}, "`balances` must be a positive number"),
        ({"width": 0}, "`width` must be a positive integer"),
        ({"period": 2.5}, "`period` must be a positive integer"),
        ({"loss": "hinge"}, "Unknown loss 'hinge'. Known: non_saturating"),
        ({"dataset": "none.npz"}, "need a classifier.*classifier_path"),
        (
            {"dataset": "none.npz", "classifier_path": "x"},
            "none.npz cannot be read .*images",
        ),
        ({"classifier_range": [1, 0]}, "`classifier_range` must be two"),
        ({"batch_norm": "yes"}, "`batch_norm` must be True or False"),
    ],
)
def test_arguments_are_checked(arguments, answer):
    with pytest.raises(ValueError, match=answer):
        alternating.Gan(**arguments)


# Networks


@pytest.mark.parametrize("batch_norm", [False, True])
def test_networks_are_convolutions(batch_norm):
    nets = gan_nets.Nets(8, 5, 3, batch_norm)
    generator, discriminator = nets.initial(0)
    rng = np.random.default_rng(0)
    # Biases that are not zero.
    generator = generator + rng.normal(size=generator.shape).astype("f4") / 9
    discriminator += rng.normal(size=discriminator.shape).astype("f4") / 9
    images = rng.normal(size=[6, 64]).astype("float32")
    k1, b1, k2, b2, k3, b3 = gan_nets._split(
        tf.constant(discriminator), nets.discriminator_shapes
    )
    x = tf.reshape(images, [6, 8, 8, 1])
    for kernel, bias in ((k1, b1), (k2, b2)):
        shape = [4, 4, *kernel.shape[1:]]
        x = tf.nn.conv2d(x, tf.reshape(kernel, shape), 2, "SAME") + bias
        x = tf.nn.leaky_relu(x, 0.2)
    expected = (tf.reshape(x, [6, -1]) @ k3 + b3)[:, 0]
    found = nets.discriminate(discriminator, images)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)

    def hidden(x, arrays):
        bias = next(arrays)
        if batch_norm:
            x = keras.ops.subtract(x, np.mean(x, (0, 1, 2)))
            deviation = np.sqrt(np.mean(np.square(x), (0, 1, 2)) + 1e-5)
            x = x / deviation * next(arrays)
        return tf.nn.relu(x + bias)

    z = rng.normal(size=[6, 5]).astype("float32")
    arrays = iter(
        gan_nets._split(tf.constant(generator), nets.generator_shapes)
    )
    x = hidden(tf.reshape(z @ next(arrays), [6, 2, 2, 6]), arrays)
    for size, channels in ((4, 3), (8, 1)):
        kernel = next(arrays)
        kernel = tf.reshape(kernel, [4, 4, *kernel.shape[1:]])
        kernel = tf.transpose(kernel, [0, 1, 3, 2])
        shape = [6, size, size, channels]
        x = tf.nn.conv2d_transpose(x, kernel, shape, 2, "SAME")
        x = hidden(x, arrays) if size == 4 else tf.tanh(x + next(arrays))
    np.testing.assert_allclose(
        nets.generate(generator, z),
        *(tf.reshape(x, [6, -1]), 1e-4, 1e-5),
    )


def test_initial_weights_are_those_of_he():
    nets = gan_nets.Nets(8, 64, 32, True)
    for vector, shapes, places in zip(
        nets.initial(0),
        (nets.generator_shapes, nets.discriminator_shapes),
        (4, 16),
    ):
        for array in gan_nets._split(tf.constant(vector), shapes):
            if len(array.shape) == 1:
                assert set(np.unique(array)) <= {0.0, 1.0}
                continue
            inputs = array.shape[-2] * (places if len(array.shape) == 3 else 1)
            deviation = np.std(array) * np.sqrt(inputs / 2)
            assert 0.8 < deviation < 1.2, array.shape


@pytest.mark.parametrize("loss", gan_losses.LOSSES)
def test_gradients_follow_finite_differences(loss):
    nets = gan_nets.Nets(8, 4, 2, False)
    generator, discriminator = nets.initial(3)
    params = {"generator": generator, "discriminator": discriminator}
    rng = np.random.default_rng(0)
    real = tf.constant(rng.uniform(-1, 1, [30, 64]), tf.float32)
    updates = gan_update.Updates(nets, gan_losses.LOSSES[loss], real, 8)
    compiled = tf.function(
        lambda place, p: gan_update._gradient(place, p, 5, 7, updates),
        jit_compile=True,
    )

    # The loss itself, of the same draws, as a function of one network. Steps
    # are small: the penalty jumps at a leaky relu's kink.
    @tf.function(jit_compile=True)
    def value(place, p):
        z = gan_update.normal([8, 4], 5, 14)
        if place == 1:
            return updates.losses.generator(nets, p, z)[0]
        rows = tf.random.stateless_uniform(
            [8], [5, 15], 0, 30, tf.int32, alg="threefry"
        )
        return updates.losses.discriminator(
            *(nets, p, tf.gather(real, rows), z),
            functools.partial(
                tf.random.stateless_uniform, seed=[5, -8], alg="threefry"
            ),
        )[0]

    for place, name in enumerate(gan_update.NAMES):
        gradient, found = compiled(place, params)
        assert found.shape == [3]
        direction = rng.normal(size=gradient.shape).astype("float32")
        direction /= np.linalg.norm(direction)
        ends = [
            float(value(place, {**params, name: params[name] + e * direction}))
            for e in (1e-3, -1e-3)
        ]
        slope = (ends[0] - ends[1]) / 2e-3
        expected = float(np.sum(gradient * direction))
        assert slope == pytest.approx(expected, rel=0.02, abs=3e-3)


# Episodes


def _played(task, schedule, seeds, draw=0):
    played = compiled_episodes.episodes_of(task, schedule)
    position, _ = episodes.play(played, seeds, draw)
    return played, position


@pytest.mark.slow
def test_episodes_side_by_side_are_as_alone(tiny):
    ratios = [(1, 1), (2, 1), (1, 3)]
    together, position = _played(tiny, schedules.Ratio(ratios), [4, 5, 6])
    whole = together.result(position, "test")
    for place, (ratio, seed) in enumerate(zip(ratios[:2], [4, 5])):
        alone, single = _played(tiny, schedules.Ratio([ratio]), [seed])
        for name in ("generator", "discriminator"):
            np.testing.assert_allclose(
                position.state["params"][name][place],
                single.state["params"][name][0],
                rtol=1e-4,
                atol=1e-6,
            )
        np.testing.assert_allclose(
            alone.result(single, "test"), whole[[place]], rtol=1e-4
        )


def test_episodes_resume_in_the_middle(tiny):
    ratio = schedules.Ratio([(1, 1), (2, 1)])
    played = compiled_episodes.episodes_of(tiny, ratio, 12)
    position, _ = played.advance(played.begin([1, 2]))
    saved = played.save(position)
    other = compiled_episodes.episodes_of(tiny, ratio, 12)
    other._advance = played._advance
    again = other.load(*saved)
    assert not played.finished(position)
    ends = [played.advance(each)[0] for each in (position, again)]
    assert played.finished(ends[0])
    for one, two in zip(*map(tf.nest.flatten, ends)):
        np.testing.assert_array_equal(one, two)


def test_an_action_moves_its_network_alone(tiny):
    step = tf.function(tiny.step, jit_compile=True)
    state, found = tiny.reset([1, 2, 3])
    assert not np.any(found["gradient_magnitudes"])
    weights = tf.constant([[1.0, 0], [0, 1], [0, 1]])
    after, found = step(state, weights)
    moved = [
        np.any(after["params"][name] != state["params"][name], axis=1).tolist()
        for name in gan_update.NAMES
    ]
    assert moved == [[True, False, False], [False, True, True]]
    assert after["updates"].numpy().tolist() == [[1, 0], [0, 1], [0, 1]]
    magnitudes = found["gradient_magnitudes"].numpy()
    assert (magnitudes > 0).tolist() == [[True, False]] + 2 * [[False, True]]
    # Adam's first step is a learning rate, wherever there is a gradient.
    first = after["params"]["generator"] - state["params"]["generator"]
    size = np.abs(first.numpy()).max(1)
    rates = state["rates"].numpy()[:, 1]
    np.testing.assert_allclose(size[1:], rates[1:], rtol=1e-2)
    # An episode that has finished stays as it is.
    ended = {**after, "finished": tf.constant([True, False, True])}
    last, _ = step(ended, weights)
    for name in gan_update.NAMES:
        same = np.all(
            last["params"][name] == ended["params"][name], axis=1
        ).tolist()
        assert same == ([True, False, True] if name == "generator" else 3 * [1])


def test_averages_and_scores_of_a_run(tiny):
    """Moving averages by hand; the kept generator is scored afresh."""
    step = tf.function(tiny.step, jit_compile=True)
    compiled = tf.function(gan_update._gradient, jit_compile=True)
    state, _ = tiny.reset([9])
    average, curve, kept = np.zeros(3), [], []
    for t in range(10):
        place = int(t % 3 == 1)
        params = {n: p[0] for n, p in state["params"].items()}
        _, found = compiled(place, params, 9, t, tiny._updates)
        found, decay = found.numpy(), 0.9 if t else 0.0
        mixed = decay * average + (1 - decay) * found
        average[:2] = mixed[:2]
        average[2] = mixed[2] if place == 0 else average[2]
        state, metadata_ = step(state, tf.one_hot([place], 2))
        np.testing.assert_allclose(state["averages"][0], average, rtol=1e-3)
        assert bool(metadata_["validated"][0]) == (t in (4, 9))
        if t in (4, 9):
            curve.append(float(metadata_["score"][0]))
            kept.append(state["params"]["generator"][0].numpy())
    details = {n: v[0] for n, v in compiled_details(tiny, state).items()}
    assert details["mean score"] == pytest.approx(np.mean(curve))
    assert details["best score"] == pytest.approx(max(curve))
    assert details["last score"] == pytest.approx(curve[-1])
    assert details["reaches 5"] == 0 and np.isnan(details["updates to 5"])
    best = kept[int(np.argmax(curve))]
    np.testing.assert_array_equal(state["best_params"][0], best)
    images = tiny.samples(state, 5000)
    assert images.shape == (1, 5000, 8, 8) and np.abs(images).max() <= 1
    found = tiny.result(state, "test").numpy()
    fresh = float(tiny.judge.score(images[0][..., None]))
    assert found[0] == pytest.approx(fresh, rel=1e-3)
    assert found[0] != tiny.result(state, "valid").numpy()[0]
    assert tiny.distances(state, 100).shape == (1,)
    tested = tiny.details(state, "test")
    assert tested["Frechet distance"] == pytest.approx(tiny.distances(state))


def compiled_details(task, state):
    return {n: v.numpy() for n, v in task.details(state).items()}


def test_other_losses_and_layers_play_episodes():
    task = alternating.Gan(loss="wgan_gp", batch_norm=True, **TINY)
    _, position = _played(task, schedules.Ratio([(2, 1), (1, 2)]), [1, 2])
    before, _ = task.reset([1, 2])
    for name, after in position.state["params"].items():
        assert np.isfinite(after).all()
        assert np.any(after != before["params"][name], axis=1).all()


def test_balances_are_drawn_from_the_start():
    task = alternating.Gan(**TINY)
    ratios = task.balances_of(range(400))
    assert 1 / 8 <= ratios.min() < 1 / 6 and 6 < ratios.max() <= 8
    assert abs(np.log(ratios).mean()) < 0.2
    state, _ = task.reset(range(5))
    rates = state["rates"].numpy()
    np.testing.assert_allclose(rates.max(1), 3e-3, rtol=1e-6)
    np.testing.assert_allclose(rates[:, 1] / rates[:, 0], ratios[:5], rtol=1e-5)
    assert set(task.groups(range(400))) == {"0.125", "0.354", "1", "2.83", "8"}
    listed = alternating.Gan(balances=[0.5, 2.0], **TINY)
    assert listed.balances_of([0, 1, 2]).tolist() == [0.5, 2.0, 0.5]
    assert listed.groups([0, 1]) == ["0.5", "2"]
    assert set(alternating.Gan(balance=1.0, **TINY).balances_of(range(9))) == {
        1.0
    }


def test_one_to_one_learns_digits_and_one_to_five_does_not():
    """At one balance: 5.4 +- 0.6 and 1.1 +- 0.1 in the mean of many runs."""
    task = alternating.Gan(balance=1.0, learning_rate=1e-3, max_steps=900)
    ratio = schedules.Ratio([(1, 1), (1, 1), (1, 5)])
    played, position = _played(task, ratio, [1, 2, 1])
    last = played.details(position)["last score"]
    assert last[:2].min() > 4.0 and last[2] < 2.0
    result = played.result(position, "test")
    assert result[:2].min() > 4.0
    distances = task.distances(position.state, 1000)
    assert distances[:2].max() < 80 < distances[2]


# Features, groups, exploration, rewards


def test_features_of_two_networks_by_hand():
    given = {
        "gradient_magnitudes": tf.constant([[2.0, 1.0]]),
        "generator_loss": tf.constant([1.7]),
        "discriminator_loss": tf.constant([0.6]),
        "score": tf.constant([6.0]),
        "last_action": tf.constant([[0.0, 1.0]]),
    }
    expected = {
        "log_ratio": np.log(2),
        "generator_loss": 0.7,
        "discriminator_loss": 0.6,
        "score": -2.0,
        "centred_log_ratio": np.log(2) + 1.2,
        "centred_generator_loss": 0.8,
        "centred_discriminator_loss": 0.45,
        "centred_score": 0.5,
        "last_action": 1.0,
    }
    found = metadata.Features(list(expected))(given)
    np.testing.assert_allclose(found[0], list(expected.values()), rtol=1e-5)


def test_feedback_rule_by_hand():
    rule = schedules.Feedback([(3.0, 1.5)] * 2000, "generator_loss")
    found = {"generator_loss": tf.fill([2000], 1.2)}
    share = np.mean(rule(found, 0, tf.constant([1, 2])).weights[:, 0])
    assert share == pytest.approx(1 / (1 + np.exp(-0.9)), abs=0.03)
    single = rule.alone(7)
    assert single.settings.shape == [1, 2] and single.needs == rule.needs
    grids = baselines.grids(alternating.Gan(**TINY))
    assert len(grids["best feedback rule"]) == 24
    assert len(grids["best coin"]) == 9 and len(grids["best ratio"]) == 13
    assert "best weighted sum" not in grids
    assert "best feedback rule" not in baselines.grids(
        alternating.Regression(dimensions=2)
    )


def test_groups_share_starts_and_are_compared_within():
    seeds = training_starts(0, 3, 12, 4)
    assert [len(set(seeds[i : i + 4])) for i in (0, 4, 8)] == [1, 1, 1]
    assert len(set(seeds)) == 3
    final = np.array([1.0, 3.0, 2.0, 2.0, 5.0, 5.0])
    found = reinforce.of_groups(final, 3)
    for start in (0, 3):
        group = final[start : start + 3]
        for i in range(3):
            others = np.delete(group, i).mean()
            expected = (group[i] - others) / (group.std() + 0.2)
            assert found[start + i] == pytest.approx(expected)
    with pytest.raises(ValueError, match="multiple of 4"):
        options.ControllerOptions(parallel=6, group=4)
    with pytest.raises(ValueError, match="multiple of 2"):
        options.ControllerOptions(algorithm="evolution", parallel=5)
    with pytest.raises(ValueError, match="`alternation` is for linear"):
        options.ControllerOptions(alternation=1.0)
    with pytest.raises(ValueError, match="two actions. This policy has 3"):
        Policy(3, hidden=0).alternate(0, 1.0)


def test_exploration_does_not_hide_a_collapse():
    """A policy that takes one action alone, with a tenth drawn evenly."""
    rng = np.random.default_rng(0)
    actions = (rng.uniform(size=[400, 2]) < 0.05).astype(int)
    actions[:, 1] = rng.integers(2, size=400)
    chance = np.where(actions == 0, 0.95, 0.05)
    chance[:, 1] = 0.5
    alive = np.ones_like(actions, bool)
    assert rewards.longest_runs(actions, alive)[0] < 200
    own = rewards.without_exploration(actions, np.log(chance), 0.1, 2)
    runs = rewards.longest_runs(own, alive)
    assert runs[0] == 400 and runs[1] < 30
    same = rewards.without_exploration(actions, np.log(chance), 0.0, 2)
    np.testing.assert_array_equal(same, actions)


def test_explored_actions_count_by_their_mixed_chance():
    policy = Policy(2, hidden=0, seed=0)
    policy.build([None, 1])
    features = np.ones([1, 3, 1], "float32")
    actions = np.array([[0, 1, 1]])
    gains = np.array([[1.0, -2.0, 0.5]], "float32")
    mask = np.ones([1, 3], "float32")
    found, _ = reinforce.policy_gradient(
        *(policy, features, actions, gains, mask), 0.0, 0.2
    )

    def objective(bias):
        logits = policy.trainable_variables[0].numpy()[0] + bias
        own = np.exp(logits) / np.exp(logits).sum()
        chances = 0.8 * own + 0.1
        return np.sum(gains[0] * np.log(chances[actions[0]])) / 3

    for i in range(2):
        step = 1e-4 * np.eye(2)[i]
        slope = (objective(step) - objective(-step)) / 2e-4
        assert float(found[1][i]) == pytest.approx(slope, rel=1e-3, abs=1e-5)


def test_a_detail_can_be_the_reward(tiny):
    chosen = dataclasses.replace(
        *(tasks.TASKS["gan"].recipe,),
        **{"episodes": 4, "parallel": 4, "group": 2, "final_scale": 3.0},
    )
    run = trainer.Trainer(tiny, chosen)
    row = run.step()
    assert row["collapsed"] == 0 and 3 < row["reward"] < 30
    wrong = dataclasses.replace(chosen, reward="beauty")
    with pytest.raises(ValueError, match="does not tell 'beauty'.*mean score"):
        trainer.Trainer(tiny, wrong)


# Evolution


def _population(pairs=3, sigma=0.5, hidden=4):
    chosen = options.ControllerOptions(
        algorithm="evolution",
        parallel=2 * pairs,
        hidden=hidden,
        sigma=sigma,
        learning_rate=0.7,
    )
    policy = Policy(2, hidden=hidden, activation="tanh", seed=1)
    policy.build([None, 1])
    learner = evolution.Evolution(policy, chosen)

    class Controller:
        pass

    return policy, learner, learner.schedule(Controller())


def test_pairs_are_opposite_and_share_their_draws():
    policy, learner, played = _population()
    learner.before_round(4)
    for mean, varied in zip(policy.trainable_variables, played.weights):
        noise = varied.numpy() - mean.numpy()
        np.testing.assert_allclose(noise[::2], -noise[1::2], atol=1e-6)
        assert len(np.unique(noise.round(4))) > 1
    found = {"progress": tf.constant([0.1] * 6)}
    features = metadata.Features(("progress",))(found)
    for episode in range(6):
        own = Policy(2, hidden=4, activation="tanh")
        own.build([None, 1])
        for variable, varied in zip(own.trainable_variables, played.weights):
            variable.assign(varied[episode])
        np.testing.assert_allclose(
            played._logits(features, played.weights)[episode],
            own(features)[episode],
            atol=1e-5,
        )
    # Of equal policies, the two of a pair do the same.
    for mean, varied in zip(policy.trainable_variables, played.weights):
        varied.assign(tf.repeat(mean[None], 6, 0))
    rows = [
        played(found, t, tf.constant([3, t])).weights.numpy().argmax(1)
        for t in range(40)
    ]
    rows = np.array(rows)
    np.testing.assert_array_equal(rows[:, ::2], rows[:, 1::2])
    assert np.any(rows[:, 0] != rows[:, 2])
    chances = tf.nn.softmax(policy(features))[0]
    choice = played(found, 0, tf.constant([3, 0]))
    expected = np.log(np.take(chances, choice.weights.numpy().argmax(1)))
    np.testing.assert_allclose(choice.log_prob, expected, rtol=1e-4)


def test_an_evolution_step_by_hand():
    policy, learner, _ = _population(pairs=2, hidden=0)
    learner.before_round(0)
    before = [v.numpy() for v in policy.trainable_variables]
    noise = [n.copy() for n in learner._noise]
    row = learner.after_round(np.array([3.0, 1.0, 0.0, 0.4]))
    size = np.sqrt((1 + 0.04) / 2)
    assert row["difference"] == pytest.approx(size)
    for old, draws, variable in zip(before, noise, policy.trainable_variables):
        step = 0.7 * (1.0 * draws[0] - 0.2 * draws[1]) / (size + 0.1) / 2
        np.testing.assert_allclose(variable, old + step, rtol=1e-5)


def test_a_restarted_controller_takes_smaller_steps(tiny):
    chosen = dataclasses.replace(
        tasks.TASKS["gan"].recipe, episodes=8, parallel=4, collapse_after=2
    )
    run = trainer.Trainer(tiny, chosen)
    rates = [float(run.learner.optimizer.learning_rate)]
    row = run.step()
    assert row["collapsed"] >= 3 and run.restarts == 1
    rates.append(float(run.learner.optimizer.learning_rate))
    assert rates == pytest.approx([0.2, 0.1])
    # It begins by turns again: after the second action, the first.
    logits = run.controller.policy(np.eye(6, dtype="float32")).numpy()
    last = chosen.features.index("last_action")
    assert logits[last, 0] - logits[last, 1] == pytest.approx(1.0)
    assert not np.delete(logits, last, 0).any()


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["evolution", "reinforce"])
def test_a_training_resumes_exactly(algorithm, tiny, tmp_path):
    chosen = tasks.recipe(
        "gan", algorithm, episodes=12, parallel=4, validate_every=10
    )
    straight = trainer.Trainer(tiny, chosen)
    rows = [straight.step() for _ in range(3)]
    trainer.train(
        tiny, dataclasses.replace(chosen, episodes=8), output_dir=tmp_path
    )
    controller, history = trainer.train(
        tiny, chosen, output_dir=tmp_path, resume=True
    )
    assert history == rows
    for name, array in straight.controller.weights().items():
        np.testing.assert_array_equal(controller.weights()[name], array)


# Comparison and program


def test_summaries_tell_details_and_the_worst_group():
    task = alternating.Gan(balances=[0.5, 2.0], **TINY)
    details = {"mean score": [1.0, 2.0, 3.0, 4.0], "updates to 5": [1, np.nan]}
    details = {
        name: np.array(values, float) for name, values in details.items()
    }
    details["updates to 5"] = np.array([100.0, np.nan, np.nan, 300.0])
    lower = {name: values - 0.5 for name, values in details.items()}
    lower["mean score"] = details["mean score"] - [0.4, 0.5, 0.5, 0.6]
    results = {
        "controller": ("learned", np.array([5.0, 6.0, 7.0, 8.0]), details),
        "1:1": ("1:1", np.array([4.0, 1.0, 6.0, 2.0]), lower),
    }
    first, second = comparison.summary(task, results)
    assert first["worst group"] == 6.0 and second["worst group"] == 1.5
    assert first["mean score"] == 2.5 and first["updates to 5"] == 200.0
    assert first["updates to 5: starts"] == 2
    assert "mean score: difference" not in first
    assert second["mean score: difference"] == pytest.approx(0.5)
    assert second["mean score: low"] < 0.5 < second["mean score: high"]
    assert "updates to 5: difference" not in second


def test_a_picture_follows_the_episodes(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(sample_pictures, "_EVERY_S", 0)
    ratio = schedules.Ratio([(1, 1)] * 2)
    played = compiled_episodes.episodes_of(tiny, ratio, 5)
    picture = sample_pictures.SamplePicture(tmp_path / "samples.png", [1, 2])
    seen = []

    def look(played, position):
        picture(played, position)
        seen.append(picture.path.read_bytes())

    position, shares = episodes.play(played, [1, 2], look=look)
    assert len(seen) == len(shares) == 4 and len({*seen}) > 1
    alone, _ = episodes.play(played, [1, 2])
    for split in ("valid", "test"):
        np.testing.assert_array_equal(
            *(played.result(each, split) for each in (position, alone))
        )
    monkeypatch.setattr(sample_pictures, "_EVERY_S", 1e6)
    rare = sample_pictures.SamplePicture(tmp_path / "rare.png", [1, 2])
    dates = []

    def watch(played, position):
        rare(played, position)
        dates.append(rare.path.stat().st_mtime_ns)

    episodes.play(played, [1, 2], look=watch)
    # After the first segment and after the last.
    assert dates[0] == dates[2] < dates[3]


@pytest.mark.slow
def test_the_program_trains_tests_and_compares(tmp_path):
    common = ["--task=gan", "--dataset=digits", "--compile_cache="]
    common += [f"--output_dir={tmp_path}"]
    common += [f"--set={name}={value}" for name, value in TINY.items()]
    train = ["--mode=train", "--algorithm=evolution"]
    train += ["--episodes=8", "--parallel=4"]
    assert autoloss.main(["autoloss", *common, *train]) == 0
    picture = tmp_path / "samples.png"
    while_training = picture.read_bytes()
    test = ["--mode=test", "--starts=5", "--tuning_starts=1"]
    assert autoloss.main(["autoloss", *common, *test]) == 0
    names = {path.name for path in tmp_path.iterdir()}
    assert names >= {
        *("best.npz", "classifier.keras", "scores.csv", "test.csv"),
        *("test_summary.csv", "schedule.png", "training.png"),
    }
    assert picture.read_bytes() != while_training
    with open(tmp_path / "test_summary.csv") as file:
        rows = {row["schedule"]: row for row in csv.DictReader(file)}
    assert {"controller", "best ratio", "best coin", "best feedback rule"} <= {
        *rows
    }
    assert float(rows["1:1"]["worst group"]) >= 1
    assert float(rows["1:1"]["Frechet distance"]) > 10
    (tmp_path / "classifier.keras").write_bytes(b"no")
    assert autoloss.main(["autoloss", *common, *test]) == 2


@pytest.mark.slow
def test_a_policy_learns_to_balance():
    """Evolution beats 3:1, the best single ratio, over unseen starts."""
    task = tasks.TASKS["gan"].task(max_steps=1000)
    chosen = tasks.recipe("gan", "evolution", episodes=96)
    run = trainer.Trainer(task, chosen)
    while run.round < chosen.rounds:
        run.step()
    learned, _ = comparison.run_controller(task, run.controller, 10)
    ratio = baselines.Candidate("3:1", schedules.Ratio, (3, 1))
    fixed = comparison.run_baselines(task, {"3:1": ratio}, 10)
    gain = learned["controller"].results - fixed["3:1"].results
    assert gain.mean() > 0.3


def test_a_classifier_of_another_type_or_within_another(tmp_path):
    """A network that was trained elsewhere, under a head."""
    layers = keras.layers
    inner = keras.Sequential(
        [keras.Input((8, 8, 1)), layers.Flatten(), layers.Dense(6, "relu")]
    )
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            inner,
            layers.Dense(10, "softmax", dtype="float16"),
        ]
    )
    model.layers[-1].kernel.assign(100 * np.ones([6, 10], "float16"))
    judge = judge_lib.Judge(model, outputs="probabilities")
    images = np.random.default_rng(0).uniform(-1, 1, [9, 8, 8, 1])
    chances, features = judge.told(images.astype("float32"))
    assert chances.dtype == features.dtype == np.float32
    expected = inner.predict((images + 1) / 2, verbose=0)
    np.testing.assert_allclose(features, expected, rtol=1e-3, atol=1e-6)
    assert np.isfinite(float(judge.score(images)))
    named = judge_lib.Judge(model, inner.name, outputs="probabilities")
    np.testing.assert_allclose(named.told(images)[1], features, 1e-5, 1e-6)


def test_a_class_of_one_image_is_left_out():
    images = image_data.digits()
    few = images._replace(
        train=images.train[:10],
        train_labels=np.arange(10),
        held_out_labels=None,
    )
    judge = judge_lib.digits_judge()
    rows = judge_lib.sanity_rows(judge, few)
    assert "one class" not in {row["images"] for row in rows}


def test_a_kept_classifier_of_other_images_is_not_taken(tmp_path):
    images = image_data.digits()
    path = tmp_path / "mnist_classifier.keras"
    judge_lib.digits_judge(path)
    judge_lib.mnist_judge(images, path)
    mixed = (images.held_out_labels + 1) % 10
    with pytest.raises(ValueError, match="was trained on others. Delete it"):
        judge_lib.mnist_judge(images._replace(held_out_labels=mixed), path)
    with pytest.raises(ValueError, match="have no labels"):
        judge_lib.mnist_judge(images._replace(train_labels=None), path)
