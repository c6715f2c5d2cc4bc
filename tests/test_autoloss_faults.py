"""Mistakes around schedules: what diverges, and what would have no effect."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from lopt_tf import autoloss
from lopt_tf.autoloss import (
    baselines,
    comparison,
    compiled_episodes,
    episodes,
    metadata,
    plots,
    ppo,
    reinforce,
    rewards,
    schedules,
    starts,
    tasks,
    trainer,
)
from lopt_tf.autoloss import policy as policies
from problems import alternating
from problems.alternating.translation import batches, corpora
from problems.alternating.translation.translator import Translator

NAN = float("nan")


def test_ppo_needs_step_rewards():
    """Their advantages would be noise, in units of its own deviation."""
    for changes in ({"step_scale": 0.0}, {"reward": "mean score"}):
        with pytest.raises(ValueError, match="step rewards alone"):
            autoloss.ControllerOptions("ppo", **changes)
    for name in tasks.TASKS:
        recipe = autoloss.recipe(name, "ppo")
        assert recipe.step_scale > 0 and not recipe.reward
        if "reinforce" in tasks.entry(name).algorithms:
            assert autoloss.recipe(name, hidden=16).hidden == 16
    assert autoloss.recipe("regression", "ppo").step_scale == 0.3
    # What it learns from is there.
    trainer.Trainer(
        alternating.Gan(max_steps=4, period=2), autoloss.recipe("gan", "ppo")
    )


def test_an_episode_that_diverged_spoils_no_other():
    features = metadata.Features(["gap", "progress"])
    told = {
        "train_loss": tf.constant([1.0, NAN]),
        "valid_loss": tf.constant([3.0, 1.0]),
        "progress": tf.constant([0.75, 0.75]),
    }
    np.testing.assert_allclose(features(told), [[2.0, 0.25], [0.0, 0.25]])
    told = {
        "improvement": tf.constant([4.0, NAN, 1.0, np.inf]),
        "mean_improvement": tf.constant([1.0, 1.0, NAN, NAN]),
        "validated": tf.ones(4, bool),
        "valid_x": tf.constant([3.0, 3.0, NAN, 3.0]),
    }
    np.testing.assert_allclose(rewards.step_reward()(told), [2, 0, 0, 0])
    reward = rewards.drop_reward("valid_x", 1.0)(told)
    first = np.log(7 / 3) / (np.log(3) - 1)
    np.testing.assert_allclose(reward, [first, 0, 0, 20], rtol=1e-5)


def test_what_diverged_leaves_the_others_in_the_picture(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        plots.figures, "save", lambda figure, path: drawn.append(figure)
    )
    results = {
        name: comparison.Outcome(name, np.array(values))
        for name, values in {
            "controller": [2.0, 2.1],
            "1:1": [2.2, 2.0],
            "lost": [NAN, 1.0],
        }.items()
    }
    plots.plot_results(tmp_path / "test.png", results, "error")
    (axis,) = drawn[0].axes
    shown = [label.get_text() for label in axis.get_yticklabels()]
    assert shown == ["1:1 (1:1)", "controller (controller)"]
    assert "far off: lost" in axis.get_xlabel()


def test_what_diverged_is_not_chosen(monkeypatch):
    task = alternating.Regression(dimensions=3)
    monkeypatch.setattr(
        baselines,
        "grids",
        lambda *_: {"best coin": baselines._coins(2, False, 4)},
    )

    results = iter(
        [
            [[2.0, 2.0], [NAN, 0.0], [1.0, 1.0]],
            [[2.0, 2.0], [-np.inf, 0.0], [np.inf, 1.0]],
            [[NAN]] * 3,
        ]
    )
    lines = []
    monkeypatch.setattr(
        baselines, "outcomes", lambda *_: (np.array(next(results)), {}, None)
    )
    for best in (2, 0):
        chosen, rows = baselines.tune(task, 2)
        assert chosen["best coin"].label == rows[best]["setting"]
        assert [row["chosen"] for row in rows].index(True) == best
    # A kind of which nothing is left does not stop the others.
    assert baselines.tune(task, 2, report=lines.append)[0] == {}
    assert lines == ["best coin: left out, no candidate has a finite result"]


def test_the_edge_of_ratios_is_told():
    task = alternating.Regression(dimensions=3)
    found = baselines.grids(task)["best ratio"]
    at_edge = {each.label for each in found if each.at_edge}
    assert at_edge == {"ratio 1:11", "ratio 11:1"}


def test_validations_and_tests_draw_other_actions(monkeypatch):
    draws = []
    play = episodes.play

    def spy(played, seeds, draw=0, look=None):
        draws.append((seeds[0] // 1_000_000, draw))
        return play(played, seeds, draw, look)

    monkeypatch.setattr(episodes, "play", spy)
    task = alternating.Regression(dimensions=3, max_steps=20)
    options = dataclasses.replace(
        autoloss.recipe("regression"), parallel=2, episodes=2
    )
    training = trainer.Trainer(task, options, task)
    training.step()
    training.measure()
    baselines.tune(task, 2, False, names=["best ratio"])
    comparison.run_controller(task, training.controller, 2)
    comparison.run_baselines(task, {"1:1": baselines.even(task)}, 2)
    other = starts.VALIDATION_DRAW
    assert draws == [(1, other), (1, other), (2, 0), (2, 0)]
    # Those of models that are alone count on from there.
    assert other > 65_536 and other + 65_536 < 2**31


@pytest.mark.parametrize("scale", [1.0, -1.0])
def test_worse_episodes_are_never_rewarded(scale):
    """The sign of the reward depends on what the result is."""
    options = dataclasses.replace(
        autoloss.recipe("regression"), final_scale=scale
    )
    more_is_better = alternating.Classification(max_steps=20)
    less_is_better = alternating.Regression(dimensions=3, max_steps=20)
    right, wrong = less_is_better, more_is_better
    if scale < 0:
        right, wrong = wrong, right
    options = dataclasses.replace(
        options, features=("progress",), step_scale=0.0
    )
    trainer.Trainer(right, options)
    with pytest.raises(ValueError, match="worse episodes would be rewarded"):
        trainer.Trainer(wrong, options)
    gan = alternating.Gan(max_steps=4, period=2)
    options = dataclasses.replace(options, reward="mean score")
    if scale > 0:
        trainer.Trainer(gan, options)
    else:
        with pytest.raises(ValueError, match="mean score"):
            trainer.Trainer(gan, options)


def test_ppo_gives_steps_the_reward_of_a_late_validation():
    """Of 150 steps before it, a discount of 0.9 would reach 22."""
    options = autoloss.ControllerOptions("ppo")
    policy = policies.Policy(2, 4, seed=0)
    policy.build([None, 1])
    for period in (10, 30, 150):
        learner = ppo.PPO(policy, options, period, jit_compile=False)
        steps = learner.segment_length
        assert steps == {10: 50, 30: 60, 150: 150}[period]
        reward = np.zeros([steps, 2], "float32")
        reward[period - 1 :: period] = [1.0, -1.0]
        ones = np.ones([steps, 2], bool)
        learner.after_segment(
            episodes.Records(
                np.ones([steps, 2, 1], "float32"),
                np.ones([steps, 2, 2], "float32") / 2,
                np.full([steps, 2], np.log(0.5), "float32"),
                *(reward, ones, np.ones([2, 1], "float32"), ~ones[0]),
            )
        )
        (kept,) = learner.replay
        expected = np.tile([1.0, -1.0], (steps, 1))
        if period == 10:
            expected = reward
        np.testing.assert_array_equal(kept.reward, expected)
        assert learner.updates == 1


def test_tasks_without_a_validation_are_refused():
    for task in (
        alternating.Regression(max_steps=9),
        alternating.Gan(max_steps=4, period=5),
    ):
        with pytest.raises(ValueError, match="nothing is validated"):
            baselines.outcomes(task, [baselines.even(task)], [1], "test")


def test_recipes_that_one_algorithm_suits_refuse_others():
    for algorithm in ("reinforce", "evolution"):
        with pytest.raises(ValueError, match="by ppo alone"):
            autoloss.recipe("published_translation", algorithm)


def test_exploration_of_ppo_falls_within_a_round(monkeypatch):
    """And does not hide a collapse there, either."""
    task = alternating.Regression(dimensions=3, max_steps=200)
    options = dataclasses.replace(
        autoloss.recipe("regression", "ppo"), parallel=2, episodes=4
    )
    training = trainer.Trainer(task, options)
    seen, told = [], []
    monkeypatch.setattr(
        training.learner,
        "after_segment",
        lambda records: seen.append(training.learner._epsilon),
    )
    plain = rewards.without_exploration
    monkeypatch.setattr(
        rewards,
        "without_exploration",
        lambda *rest: told.append(rest[2]) or plain(*rest),
    )
    for _ in range(2):
        training.step()
    np.testing.assert_allclose(seen, 0.5 - 0.4 * np.arange(8) / 8)
    np.testing.assert_allclose(
        np.concatenate(told)[:, 0],
        np.repeat(seen, training.learner.segment_length),
    )


def test_exploration_by_step_does_not_hide_a_collapse():
    rng = np.random.default_rng(0)
    epsilon = np.linspace(0.5, 0.1, 1000)[:, None]
    drawn = (rng.random([1000, 1]) < epsilon / 2).astype(int)
    chance = np.where(drawn == 0, 1 - epsilon / 2, epsilon / 2)
    own = rewards.without_exploration(drawn, np.log(chance), epsilon, 2)
    alive = np.ones([1000, 1], bool)
    assert rewards.longest_runs(drawn, alive)[0] < 300
    assert rewards.longest_runs(own, alive)[0] == 1000


class Judged(alternating.ModelTask):
    """A model whose measure is not a number until it has learned."""

    name, result_name, measures = "judged", "score", ("score",)
    actions, max_steps, period = ("a", "b"), 3, 1
    higher_is_better = True

    def build(self):
        import keras

        dense = keras.layers.Dense(1)
        dense.build([1, 1])
        objectives = {
            name: autoloss.Objective(
                lambda model, batch, training: tf.reduce_sum(
                    model.dense(batch)
                ),
                [dense],
            )
            for name in self.actions
        }
        model = autoloss.AlternatingModel(objectives, dense=dense)
        model.compile("sgd", jit_compile=False)
        return model

    def start(self, model, setting, seed):
        self.scores = iter([NAN, NAN, 0.25, 0.5, 0.5])

    def batch(self, setting, seed, number, action=None):
        return np.ones([1, 1], "float32")

    def measure(self, model, split):
        return {"score": next(self.scores)}


def test_a_first_result_that_is_no_number_is_not_the_best():
    task = Judged()
    alternate = schedules.Ratio([[1, 1]])
    played = compiled_episodes.episodes_of(task, alternate)
    position, _ = episodes.play(played, [1])
    (episode,) = position.state
    assert episode.best == 0.5 and episode.without_better == 0
    # From no number to a number is no improvement that can be told.
    assert episode.improvement == 0.25 and np.isfinite(episode.mean_improvement)


def test_an_episode_that_never_has_a_result_runs_out_of_patience():
    task = Judged()
    task.patience = 2
    alternate = schedules.Ratio([[1, 1]])
    played = compiled_episodes.episodes_of(task, alternate)
    position = played.begin([1])
    task.scores = iter([NAN] * 9)
    while not played.finished(position):
        position, _ = played.advance(position)
    (episode,) = position.state
    assert episode.without_better == 2 and episode.step == 2
    assert np.isnan(episode.best)


def test_policy_gradients_outlive_features_that_are_no_numbers():
    controller = autoloss.ScheduleController.untrained(
        "toy",
        ("a", "b"),
        autoloss.ControllerOptions(features=("gap", "progress")),
    )
    told = {
        "train_loss": tf.constant([NAN, 1.0]),
        "valid_loss": tf.constant([NAN, 1.0]),
        "progress": tf.zeros(2),
    }
    features = metadata.Features(["gap", "progress"])(told)[None]
    gradients, _ = reinforce.policy_gradient(
        controller.policy,
        *(features, np.int32([[0, 1]]), np.float32([[0.0, 1.0]])),
        np.ones([1, 2], "float32"),
    )
    assert all(np.isfinite(g).all() for g in gradients)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"updates": 10}, "a multiple of `hold` times `validations`"),
        ({"validations": 7}, "a multiple of `hold` times `validations`"),
        ({"tags": "/nonexistent"}, "belong to a `corpus`"),
        ({"entities": "/nonexistent"}, "belong to a `corpus`"),
        (
            {"corpus": "x", "tags": "y", "language": {"nouns": 9}},
            "`language` is of the generated corpus",
        ),
    ],
)
def test_arguments_of_translation_without_effect(arguments, message):
    with pytest.raises(ValueError, match=message):
        alternating.Translation(**arguments)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"classifier_layer": "x"}, "is of a classifier that is named"),
        ({"classifier_range": [0, 255]}, "is of a classifier that is named"),
        (
            {"classifier_outputs": "probabilities"},
            "is of a classifier that is named",
        ),
    ],
)
@pytest.mark.parametrize("kind", [alternating.Gan, alternating.KerasGan])
def test_arguments_of_gans_without_effect(kind, arguments, message):
    with pytest.raises(ValueError, match=message):
        kind(**arguments)


def test_words_of_several_rows_are_read_once(tmp_path):
    """As in German CoNLL-U files; TIGER numbers its rows 1_1."""
    path = tmp_path / "de.conllu"
    rows = [
        *(("1", "Er", "PPER"), ("2", "geht", "VVFIN")),
        *(("3-4", "zum", "_"), ("3", "zu", "APPR"), ("4", "dem", "ART")),
        *(("4.1", "leer", "_"), ("5", "Haus", "NN")),
    ]
    path.write_text(
        "".join(f"{n}\t{form}\tx\tx\t{tag}\n" for n, form, tag in rows)
    )
    (found,) = corpora.conll_tags(path).items
    assert found.tokens == ("Er", "geht", "zu", "dem", "Haus")
    assert "_" not in found.tags
    path.write_text(path.read_text().replace("1\tEr", "1_1\tEr"))
    assert corpora.conll_tags(path).items == [found]


def test_training_measures_see_short_and_long_sentences():
    """The first batches in order are the shortest sentences alone."""
    short, long = [[5] * 3] * 90, [[6] * 7] * 10
    stream = batches.Stream(short + long, short + long, 1, (4, 8), 10)
    for count, expected in ((4, [4, 4, 4, 8]), (1, [4]), (99, [4] * 9 + [8])):
        found = list(stream.spaced(count))
        assert [batch.source.shape[1] for batch in found] == expected
    whole = [batch for _, batch in stream.whole()]
    for ours, own in zip(stream.spaced(99), whole, strict=True):
        np.testing.assert_array_equal(ours.targets, own.targets)


def test_texts_that_are_cut_are_told():
    class Vocabulary:
        def encode(self, texts):
            return [text.split() for text in texts]

    translator = Translator(None, Vocabulary(), (2, 4), 8)
    assert translator.count_cut(["a b c", "a b c d", ""]) == 1
