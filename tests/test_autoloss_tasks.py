"""What a task of AutoLoss must bring, and what it gets for that."""

import csv
import dataclasses
import itertools
import json
import pathlib
import shutil
import subprocess
import sys
import warnings

import numpy as np
import pytest
import slow_cases
import tensorflow as tf

import lopt_tf.autoloss
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
    schedules,
    tasks,
    trainer,
)
from lopt_tf.autoloss.controller import ScheduleController
from problems import alternating
from train_scripts import autoloss

ROOT = pathlib.Path(__file__).parent.parent
FIRST_RELEASE = pathlib.Path(__file__).parent / "data/first_release/autoloss"
QUICK = options.ControllerOptions(
    hidden=0,
    learning_rate=0.1,
    episodes=8,
    parallel=4,
    step_scale=0.0,
    collapse_after=1000,
)


class Toy(alternating.AlternatingTask):
    """Three actions, the last of which lowers the loss; no validations."""

    name, actions, result_name = "toy", ("left", "right", "down"), "loss"
    max_steps, period = 40, 7

    def __init__(self, height=1.0):
        self.height = height

    def get_config(self):
        return {"height": self.height}

    def reset(self, seeds):
        state = (tf.constant(0), tf.fill([len(seeds)], self.height))
        return state, self._metadata(*state)

    def step(self, state, action_weights):
        state = (state[0] + 1, state[1] - 0.01 * action_weights[:, 2])
        return state, self._metadata(*state)

    def _metadata(self, time, loss):
        return {"finished": tf.fill(loss.shape, time >= self.max_steps)}

    def result(self, state, split):
        return state[1]


# The tests of whole trainings with the second learner take longest.
LEARNERS = slow_cases.marked(["reinforce", "evolution"], "evolution")


@pytest.mark.parametrize("algorithm", LEARNERS)
def test_a_task_is_one_class_and_one_entry(tmp_path, monkeypatch, algorithm):
    """Trained, compared with tuned baselines, tested, transferred."""
    entry = tasks.Entry(Toy, QUICK, transfer={"height": (2.0,)})
    monkeypatch.setitem(tasks.TASKS, "toy", entry)
    common = ["--task=toy", f"--output_dir={tmp_path}", "--compile_cache="]
    few = ["--starts=3", "--tuning_starts=2"]
    flags = {
        "train": [f"--algorithm={algorithm}"],
        "baseline": [*few, "--nofine"],
        "test": [*few, "--nofine"],
        "transfer": few,
    }
    for mode, own in flags.items():
        arguments = [f"--mode={mode}", *own]
        assert autoloss.main(["autoloss", *common, *arguments]) == 0
    with open(tmp_path / "test_summary.csv") as file:
        rows = {row["schedule"]: row for row in csv.DictReader(file)}
    assert set(rows) == {
        "controller",
        *("left alone", "right alone", "down alone"),
        *("1:1:1", "even coin", "best ratio", "best coin"),
    }
    assert float(rows["down alone"]["test loss"]) == pytest.approx(0.6)
    assert rows["best coin"]["setting"] == "coin 0.20:0.20:0.60"
    with open(tmp_path / "transfer.csv") as file:
        assert {r["task"] for r in csv.DictReader(file)} == {"height=2.0"}


# The contract


def _changed(**attributes):
    return type("Changed", (Toy,), attributes)()


@pytest.mark.parametrize(
    "attributes, answer",
    [
        ({"actions": ("one",)}, "`actions` of the task 'toy' must be at least"),
        ({"actions": ("a", "a", "b")}, "two different names"),
        ({"period": 0}, "`period` of the task 'toy' must be an integer"),
        ({"max_steps": None}, "`max_steps` of the task 'toy' must be"),
        ({"name": None}, "`name` of the task None must be a text"),
        ({"loss_weights": (1.0,)}, "3 numbers, one for each action"),
        ({"_metadata": lambda *_: {}}, "must have 'finished'"),
        (
            {"_metadata": lambda s, t, loss: {"finished": loss}},
            r"'finished' in the metadata of the task 'toy' must be \[E\]",
        ),
        (
            {
                "_metadata": lambda s, t, loss: {
                    "finished": loss > 9,
                    "losses": loss,
                }
            },
            r"'losses' .* must be \[E, actions\] \(floats\)",
        ),
    ],
)
def test_a_broken_contract_is_named_when_episodes_are_made(attributes, answer):
    task = _changed(**attributes)
    with pytest.raises(ValueError, match=answer):
        compiled_episodes.episodes_of(task, schedules.Constant([[1, 0, 0]]))


def test_contracts_of_step_result_and_schedule():
    def begin(task, setting=(1, 0, 0)):
        played = compiled_episodes.episodes_of(
            task, schedules.Constant([setting])
        )
        return played, played.begin([0])

    played, position = begin(Toy(), (1, 0))
    with pytest.raises(ValueError, match=r"The schedule's weights .* \(1, 3\)"):
        played.advance(position)

    def more(self, time, loss):
        found = Toy._metadata(self, time, loss)
        return found if tf.executing_eagerly() else {**found, "extra": loss}

    played, position = begin(_changed(_metadata=more))
    with pytest.raises(ValueError, match="same metadata from `step` as from"):
        played.advance(position)
    played, position = begin(_changed(result=lambda s, state, split: state[0]))
    with pytest.raises(ValueError, match="The result of the task 'toy' must"):
        played.result(position, "valid")
    with pytest.raises(ValueError, match="str is no task"):
        compiled_episodes.episodes_of("toy", None)


def test_who_needs_which_metadata_is_said():
    policy = dataclasses.replace(QUICK, features=("progress", "gap"))
    with pytest.raises(
        ValueError,
        match="The feature 'gap' needs the metadata 'train_loss', which the "
        "task 'toy' does not have. It has finished, last_action, progress",
    ):
        trainer.Trainer(Toy(), policy)
    rewarded = dataclasses.replace(QUICK, step_scale=1.0)
    with pytest.raises(ValueError, match="`step_scale` other than 0.*'improv"):
        trainer.Trainer(Toy(), rewarded)
    with pytest.raises(ValueError, match="watches overfitting needs"):
        compiled_episodes.episodes_of(Toy(), schedules.WatchOverfitting([0.1]))
    for name in metadata.PAIRWISE:
        pair = dataclasses.replace(QUICK, features=(name,))
        given = {"losses": [1.0, 1.0, 1.0], "gradient_magnitudes": [1.0] * 3}

        def supplied(self, *state, given=given):
            count = state[1].shape[0]
            more = {n: tf.tile([x], [count, 1]) for n, x in given.items()}
            return {**Toy._metadata(self, *state), **more}

        with pytest.raises(ValueError, match="of two losses.* 3 actions"):
            trainer.Trainer(_changed(_metadata=supplied), pair)
    with pytest.raises(ValueError, match="one feature at least"):
        options.ControllerOptions(features=())


def test_every_feature_needs_what_it_says_and_no_more():
    for name, feature in metadata.FEATURES.items():
        of_actions = ("losses", "average_losses", "last_action")
        of_actions += ("gradient_magnitudes",)
        given = {
            need: tf.ones([2, 3] if need in of_actions else [2])
            for need in feature.needs
        }
        assert feature.function(given).shape == [2], name
        for need in feature.needs:
            with pytest.raises(KeyError):
                feature.function({k: given[k] for k in given if k != need})


def test_every_task_gets_progress_last_action_and_run_length():
    played = compiled_episodes.episodes_of(
        Toy(), schedules.Ratio([(2, 1, 0), (0, 3, 3)]), segment_length=1
    )
    position, lengths = played.begin([0, 1]), []
    assert not position.metadata["last_action"].numpy().any()
    for _ in range(7):
        position, records = played.advance(position)
        last = position.metadata["last_action"]
        np.testing.assert_array_equal(last, records.weights[0])
        lengths.append(position.metadata["run_length"].numpy().tolist())
    assert np.transpose(lengths).tolist() == [
        [1, 2, 1, 1, 2, 1, 1],
        [1, 2, 3, 1, 2, 3, 1],
    ]
    np.testing.assert_allclose(position.metadata["progress"], [7 / 40] * 2)


# Any period, any number of actions


class Validated(Toy):
    """Seven steps from one validation to the next, and all metadata."""

    max_steps = 45

    def _metadata(self, time, loss):
        noise = tf.sin(tf.cast(time, tf.float32) * tf.range(1.0, 5.0))
        return {
            **super()._metadata(time, loss),
            "validated": tf.fill(loss.shape, time % self.period == 0),
            "improvement": noise[: loss.shape[0]],
            "mean_improvement": tf.ones_like(loss),
        }

    def reset(self, seeds):
        state = (tf.constant(0), tf.fill([len(seeds)], self.height))
        return state, self._metadata(*state)


def test_rewards_are_spread_over_whole_rounds():
    rng = np.random.default_rng(0)
    for steps, period in itertools.product((1, 6, 20, 21), (1, 6, 7)):
        given = np.where(
            (np.arange(steps) + 1)[:, None] % period == 0,
            rng.normal(size=(steps, 3)),
            0.0,
        )
        expected = np.zeros_like(given)
        for t in range(steps):
            end = t - t % period + period - 1
            expected[t] = given[end] if end < steps else 0.0
        np.testing.assert_array_equal(rewards.spread(given, period), expected)
    # A validation at the end of an episode counts, too.
    given = np.float32([[0], [0], [1], [0], [2]])
    assert rewards.spread(given, 3)[:, 0].tolist() == [1, 1, 1, 2, 2]


def test_a_period_need_not_divide_a_segment(monkeypatch):
    changed = dataclasses.replace(QUICK, step_scale=1.0)
    rows = []
    for length in (500, 45, 10, 3):
        monkeypatch.setattr(reinforce.Reinforce, "segment_length", length)
        rows.append(trainer.Trainer(Validated(), changed).step())
    for row in rows[1:]:
        assert row["gradient_norm"] == pytest.approx(rows[0]["gradient_norm"])
        assert row["entropy"] == pytest.approx(rows[0]["entropy"])


def test_baselines_of_any_number_of_actions():
    published = baselines.published(Toy())
    assert published["right alone"].setting == (0, 1, 0)
    assert published["even coin"].setting == (1 / 3,) * 3
    assert "published weighted sum" not in published
    grids = baselines.grids(Toy())
    assert set(grids) == {"best ratio", "best coin"}
    ratios = [c.setting for c in grids["best ratio"]]
    assert len(set(ratios)) == len(ratios) == 1 + 3 * 13
    assert (1, 1, 1) in ratios and (0, 11, 1) in ratios
    for candidate in grids["best coin"]:
        assert sum(candidate.setting) == pytest.approx(1)
        assert candidate.at_edge == (min(candidate.setting) < 0.11)
    assert len(grids["best coin"]) == 36
    combined = _changed(combines_actions=True, loss_weights=(2.0, 1.0, 0.5))
    sums = baselines.grids(combined)["best weighted sum"]
    assert len(sums) == 49 and sums[0].label == "weighted sum 0.125:0.0625"
    weighted = baselines.published(combined)["published weighted sum"]
    assert weighted.setting == (1, 2.0, 4.0)
    two = baselines.grids(alternating.Regression(dimensions=2))
    assert {name: len(grid) for name, grid in two.items()} == {
        "best ratio": 13,
        "best weighted sum": 31,
        "best coin": 49,
        "best overfitting rule": 31,
    }


# Episodes as an interface


class Counter(alternating.Task):
    """A task whose state is a variable, like that of a Keras model."""

    name, actions, result_name = "counter", ("rest", "work"), "left"
    max_steps, period = 12, 5
    left = None

    def start(self, seed):
        self.left = 10.0 + seed % 3

    def train(self, action):
        self.left -= 0.5 * action

    def measure(self, split):
        return {"loss": self.left + (split == "test")}

    def get_config(self):
        return {}


class OneByOne(episodes.Episodes):
    """Episodes of a `Counter`, one at a time, in plain Python."""

    @classmethod
    def supplied(cls, task):
        return {"finished", *metadata.COURSE}

    def begin(self, seeds, draw=0):
        left = []
        for seed in seeds:
            self.task.start(seed)
            left.append(self.task.left)
        return episodes.Position(0, draw, left, self._metadata(0, len(seeds)))

    def advance(self, position):
        count = len(position.state)
        runs = [self._run(position, e) for e in range(count)]
        states, metadatas, rows = zip(*runs)
        found = {
            name: np.concatenate([each[name] for each in metadatas])
            for name in metadatas[0]
        }
        last = self.schedule(found, 0, tf.constant([0, 0]))
        columns = [np.concatenate(x, axis=1) for x in zip(*rows)]
        step = position.step + len(columns[0])
        position = episodes.Position(step, position.draw, list(states), found)
        return position, episodes.Records(
            *columns, last.features.numpy(), found["finished"]
        )

    def _run(self, position, episode):
        """The state, metadata and record [T, 1] of one episode."""
        self.task.left = position.state[episode]
        schedule = self.schedule.alone(episode)
        found = {
            name: x[episode : episode + 1]
            for name, x in position.metadata.items()
        }
        rows, step = [], position.step
        end = min(step + self.segment_length, self.task.max_steps)
        while step < end:
            seed = tf.constant([position.draw + episode, step])
            choice = schedule(found, step, seed)
            self.task.train(int(choice.weights.numpy().argmax()))
            step += 1
            found = self._metadata(step, 1, choice.weights, found)
            row = (choice.features, choice.weights, choice.log_prob)
            row = [x.numpy() for x in row]
            rows.append((*row, np.zeros(1, "float32"), np.ones(1, bool)))
        return self.task.left, found, [np.stack(x) for x in zip(*rows)]

    def _metadata(self, step, count, *last):
        course = metadata.course(self.task, step, count, *last)
        finished = np.full(count, step >= self.task.max_steps)
        return {"finished": finished} | {
            k: v.numpy() for k, v in course.items()
        }

    def result(self, position, split):
        results = []
        for left in position.state:
            self.task.left = left
            results.append(self.task.measure(split)["loss"])
        return np.array(results)

    def save(self, position):
        arrays = {"left": np.array(position.state), **position.metadata}
        return arrays, {"step": position.step, "draw": position.draw}

    def load(self, arrays, metadata):
        found = dict(arrays)
        state = found.pop("left").tolist()
        return episodes.Position(
            metadata["step"], metadata["draw"], state, found
        )


@pytest.fixture
def one_by_one(monkeypatch):
    monkeypatch.setitem(compiled_episodes.KINDS, Counter, OneByOne)


@pytest.mark.parametrize("algorithm", LEARNERS)
def test_another_kind_of_episodes_does_for_everything(one_by_one, algorithm):
    changed = dataclasses.replace(QUICK, algorithm=algorithm, validate_every=1)
    controller, history = trainer.train(
        Counter(), changed, validation_task=Counter()
    )
    assert len(history) == 2 and history[-1]["validation"] > 3
    shares = history[-1]["share/rest"] + history[-1]["share/work"]
    assert shares == pytest.approx(1) and history[-1]["steps"] == 4 * 12
    chosen, _ = baselines.tune(Counter(), 1, fine=False)
    assert chosen["best ratio"].setting == (1, 11)
    results = comparison.run_baselines(
        Counter(), baselines.published(Counter()), 3
    )
    expected = 10 + (2_000_000 + np.arange(3)) % 3 + 1 - 6
    np.testing.assert_array_equal(results["work alone"][1], expected)
    rows = comparison.transfer({"same": Counter()}, controller, 3, 1, print)
    assert {row["schedule"] for row in rows} >= {"controller", "1:1"}


@pytest.mark.parametrize("task", [Toy(), Counter()], ids=["compiled", "model"])
def test_episodes_resume_in_the_middle(one_by_one, task, tmp_path):
    count = len(task.actions)
    schedule = schedules.Coin([[1 / count] * count] * 3)
    played = compiled_episodes.episodes_of(task, schedule, 5)
    position, _ = played.advance(played.begin([3, 4, 5], 7))
    path = tmp_path / "position.npz"
    checkpointing.save(path, "test", *played.save(position))
    other = compiled_episodes.episodes_of(task, schedule, 5)
    resumed = other.load(*checkpointing.load(path, "test"))
    while not played.finished(position):
        position, records = played.advance(position)
        resumed, again = other.advance(resumed)
        for a, b in zip(records, again):
            np.testing.assert_array_equal(a, b)
    assert other.finished(resumed)
    np.testing.assert_array_equal(
        played.result(position, "test"), other.result(resumed, "test")
    )


# Learners


def test_ppo_diagnostics_against_numpy():
    rng = np.random.default_rng(0)
    new, old = rng.normal(-1, 0.3, size=(2, 500)).astype("float32")
    found = ppo.policy_change(tf.constant(new), tf.constant(old), 0.2)
    ratio = np.exp(np.float64(new) - old)
    kl = np.mean(ratio - 1 - np.log(ratio))
    np.testing.assert_allclose(found[0], kl, rtol=1e-5)
    np.testing.assert_allclose(found[1], np.mean(np.abs(ratio - 1) > 0.2))
    values, returns = rng.normal(size=(2, 50))
    expected = 1 - np.var(returns - values) / np.var(returns)
    assert ppo.explained_variance(values, returns) == pytest.approx(expected)
    assert ppo.explained_variance(returns, returns) == 1
    assert np.isnan(ppo.explained_variance(values, np.ones(50)))


def test_ppo_reports_its_diagnostics():
    changed = dataclasses.replace(QUICK, algorithm="ppo", step_scale=1.0)
    row = trainer.Trainer(Validated(), changed).step()
    assert 0 <= row["approximate_kl"] < 0.1
    assert 0 <= row["clip_fraction"] <= 1
    assert row["explained_variance"] < 1


def test_an_interrupted_round_leaves_nothing_behind(monkeypatch):
    run = trainer.Trainer(Toy(), QUICK)
    run.step()
    arrays, facts = run.snapshot()
    original = reinforce.Reinforce.after_round

    def interrupted(self, *args):
        original(self, *args)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(reinforce.Reinforce, "after_round", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run.step()
    again, others = run.snapshot()
    assert others == facts
    for name, array in arrays.items():
        np.testing.assert_array_equal(again[name], array)


# Files


def test_a_checkpoint_older_than_an_option_resumes(tmp_path):
    trainer.train(Toy(), QUICK, output_dir=tmp_path)
    (path,) = (tmp_path / "checkpoints").glob("*.npz")
    arrays, facts = checkpointing.load(path, "lopt_tf.autoloss")
    del facts["settings"]["options"]["clip"]
    checkpointing.save(path, "lopt_tf.autoloss", arrays, facts)
    more = dataclasses.replace(QUICK, episodes=12)
    _, history = trainer.train(Toy(), more, output_dir=tmp_path, resume=True)
    assert [row["round"] for row in history] == [1, 2, 3]
    other = dataclasses.replace(more, clip=0.3)
    answer = "options.clip: saved 0.2, given 0.3"
    checkpointing.save(path, "lopt_tf.autoloss", arrays, facts)
    for newer in sorted((tmp_path / "checkpoints").glob("*.npz"))[1:]:
        newer.unlink()
    with pytest.raises(checkpointing.CheckpointError, match=answer):
        trainer.train(Toy(), other, output_dir=tmp_path, resume=True)


class Wide(Toy):
    """A task with a newer argument."""

    def __init__(self, height=1.0, width=1.0):
        super().__init__(height)
        self.width = width

    def get_config(self):
        return {"height": self.height, "width": self.width}


@pytest.mark.parametrize("judge", [None, Wide()], ids=["alone", "judged"])
def test_a_checkpoint_older_than_an_argument_of_a_task_resumes(tmp_path, judge):
    more = dataclasses.replace(QUICK, episodes=12)
    trainer.train(Wide(), QUICK, validation_task=judge, output_dir=tmp_path)
    (path,) = (tmp_path / "checkpoints").glob("*.npz")
    arrays, facts = checkpointing.load(path, "lopt_tf.autoloss")
    for part in ("task", "validation_task"):
        facts["settings"][part].pop("width", None)
    checkpointing.save(path, "lopt_tf.autoloss", arrays, facts)

    def resumed(task, judge):
        return trainer.train(
            task, more, validation_task=judge, output_dir=tmp_path, resume=True
        )

    answer = "task.width: saved 1.0, given 2.0"
    with pytest.raises(checkpointing.CheckpointError, match=answer):
        resumed(Wide(width=2.0), judge)
    if judge is None:
        answer = "validation_task.width: saved None, given 1.0"
        with pytest.raises(checkpointing.CheckpointError, match=answer):
            resumed(Wide(), Wide())
    _, history = resumed(Wide(), judge)
    assert [row["round"] for row in history] == [1, 2, 3]


@pytest.mark.parametrize("name", ["regression_reinforce", "classification_ppo"])
def test_controllers_of_the_first_release_load(name):
    controller = ScheduleController.load(FIRST_RELEASE / f"{name}.npz")
    known = np.load(FIRST_RELEASE / "probabilities.npz")
    task = name.partition("_")[0]
    found = controller.policy.distribution(known[f"{task}_features"])
    np.testing.assert_allclose(
        found.probs_parameter(), known[f"{task}_probabilities"], rtol=1e-6
    )
    assert controller.facts["task"]["role"] == "controller"


def test_a_training_of_the_first_release_resumes(tmp_path):
    shutil.copytree(FIRST_RELEASE / "unfinished", tmp_path / "run")
    given = {"dimensions": 3, "max_steps": 40}
    entry = tasks.entry("regression")
    controller, history = trainer.train(
        entry.task(for_controller=True, **given),
        tasks.recipe("regression", episodes=8, parallel=2, validate_every=2),
        validation_task=entry.task(**given),
        output_dir=tmp_path / "run",
        resume=True,
    )
    known = json.loads((FIRST_RELEASE / "history.json").read_text())
    assert len(history) == len(known)
    # Other processors round differently.
    for row, old in zip(history, known):
        assert row.keys() == old.keys()
        for name, value in old.items():
            if value is None:
                assert row[name] is None
            else:
                # Validations draw other actions now.
                close = 1e-2 if name == "validation" else 1e-4
                assert row[name] == pytest.approx(value, rel=close), name
    finished = np.load(FIRST_RELEASE / "finished.npz")
    for name, array in controller.weights().items():
        old = finished[name.replace("/", ".")]
        np.testing.assert_allclose(array, old, rtol=1e-4, atol=1e-6)


# The program and the package


def test_arguments_of_a_task_are_checked(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(tasks.TASKS, "toy", tasks.Entry(Toy, QUICK))
    mistakes = {
        ("toy", "size=3"): "Unknown: size. The task's arguments, with "
        "defaults: {'height': 1.0}",
        ("toy", "role=task"): "Unknown: role",
        ("regression", "role=task"): "--mode decides the role",
        ("classification", "hidden=5"): "`hidden` must be a list of widths",
        ("classification", "activation=[1]"): "cannot be made with "
        "{'activation': [1]}: unhashable type",
    }
    for (task, given), answer in mistakes.items():
        arguments = [f"--task={task}", f"--set={given}", "--compile_cache="]
        arguments.append(f"--output_dir={tmp_path}")
        assert autoloss.main(["autoloss", *arguments]) == 2
        assert answer in capsys.readouterr().err


def test_help_names_every_task(capsys):
    assert autoloss.main(["autoloss", "--help"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in tasks.TASKS)


def test_public_names_are_listed():
    assert {"train", "recipe", "episodes_of", "TASKS"} <= {
        *dir(lopt_tf.autoloss)
    }
    code = (
        "import sys, lopt_tf\n"
        "assert 'tensorflow_probability' not in sys.modules\n"
        "assert 'lopt_tf.autoloss' not in sys.modules\n"
        "import lopt_tf.autoloss\n"
        "assert not any('evaluation' in name for name in sys.modules\n"
        "               if name.startswith('lopt_tf'))\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_paired_intervals_without_spread_warn_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one = comparison.paired([1.0], [0.5])
        assert one["difference"] == 0.5 and np.isnan(one["low"])
        same = comparison.paired([1.0, 2.0], [0.5, 1.5])
        assert same == {"difference": 0.5, "low": 0.5, "high": 0.5}
