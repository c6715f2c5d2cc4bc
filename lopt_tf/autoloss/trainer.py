"""Trains a controller: rounds of episodes, checkpoints, progress."""

import dataclasses
import pathlib
import time

import numpy as np

from lopt_tf import checkpointing, scalars
from lopt_tf.autoloss import episodes as episodes_lib
from lopt_tf.autoloss import ppo, reinforce, rewards
from lopt_tf.autoloss.controller import ScheduleController
from lopt_tf.autoloss.starts import starts, training_starts

_KIND = "lopt_tf.autoloss"
_LEARNERS = {"reinforce": reinforce.Reinforce, "ppo": ppo.PPO}
_VALIDATION_STARTS = 16


def train(
    task,
    options,
    *,
    validation_task=None,
    output_dir=None,
    resume=False,
    report=None,
    checkpoint_every_s=60.0,
):
    """Trains a controller by policy gradient.

    Args:
        task: the `AlternatingTask` whose training is to be scheduled; final
            rewards are its results on the validation split.
        options: `ControllerOptions`.
        validation_task: where controllers are compared, on its validation
            split, every `options.validate_every` rounds; none if None.
        output_dir: gets checkpoints, TensorBoard scalars, `controller.npz`
            (the last) and `best.npz` (the best at validation); None writes
            nothing.
        resume: go on from the newest checkpoint in `output_dir`.
        report: a function of one line of text.
        checkpoint_every_s: seconds between checkpoints.

    Returns:
        The trained `ScheduleController`: the best at validation, or the last
        without a validation task; and one dictionary for each round.

    Raises:
        CheckpointError: if there is nothing to resume, the checkpoint is
            damaged or of other settings, or (without `resume`) `output_dir`
            already holds a training.
        KeyboardInterrupt: when interrupted; the rounds before are saved.
    """
    if resume and not output_dir:
        raise ValueError("`resume` needs `output_dir`.")
    trainer = Trainer(task, options, validation_task)
    files = _Files(trainer, output_dir)
    if resume:
        files.restore()
    else:
        files.check_unused()
    say = report or (lambda line: None)
    progress = _Progress(trainer, say)
    saved = time.monotonic()
    # A round that is interrupted leaves nothing behind.
    snapshot = trainer.snapshot()
    try:
        while trainer.round < options.rounds:
            row = trainer.play_round()
            progress.add(row)
            files.log(row)
            snapshot = trainer.snapshot()
            if time.monotonic() - saved > checkpoint_every_s:
                files.save(snapshot)
                saved = time.monotonic()
    finally:
        files.save(snapshot)
        progress.close()
    return trainer.best_controller(), trainer.history


class Trainer:
    """A controller, its learner, and what they have been through."""

    def __init__(self, task, options, validation_task=None):
        self.task = task
        self.options = options
        self.validation_task = validation_task
        self.round = 0
        self.restarts = 0
        self.steps = 0
        self.lowest_reward = np.inf
        self.best_score = np.inf
        self.best_weights = None
        self.history = []
        self._reward = rewards.final_reward(options.final_scale)
        self._new_controller()

    def _new_controller(self):
        """A fresh policy; the restarts number its seed."""
        options = self.options
        config = {
            "num_actions": len(self.task.actions),
            "hidden": options.hidden,
            "activation": options.activation,
            "logit_scale": options.logit_scale,
            "seed": 1000 * options.seed + 10 * self.restarts,
        }
        self.controller = ScheduleController(
            self.task.name, self.task.actions, options.features, config
        )
        policy = self.controller.policy
        self.learner = _LEARNERS[options.algorithm](policy, options)
        self.schedule = self.controller.schedule()
        self._episodes = episodes_lib.Episodes(
            self.task,
            self.schedule,
            self.learner.segment_length,
            rewards.step_reward(options.step_scale),
        )
        if self.validation_task is not None:
            self._validation = episodes_lib.Episodes(
                self.validation_task, self.controller.schedule()
            )

    def play_round(self):
        """One round of episodes and what is learned from it: a dictionary."""
        options = self.options
        epsilon = self.learner.epsilon(self.round / options.rounds)
        self.schedule.epsilon.assign(epsilon)
        seeds = training_starts(options.seed, self.round, options.parallel)
        position = self._episodes.begin(seeds, self._draw(1))
        parts = []
        while not self._episodes.finished(position):
            position, records = self._episodes.advance(position)
            self.learner.after_segment(records)
            parts.append((records.actions.numpy(), records.alive.numpy()))
        actions, alive = (np.concatenate(x) for x in zip(*parts))
        results = self.task.result(position[2], "valid").numpy()
        final, collapsed = self._final_rewards(results, actions, alive)
        metrics = self.learner.after_round(final, self.task.period)
        self.round += 1
        self.steps += int(alive.sum())
        row = {
            "round": self.round,
            "episodes": self.round * options.parallel,
            "reward": float(np.mean(final)),
            "result": float(np.mean(results)),
            "steps": int(alive.sum()),
            "collapsed": int(collapsed.sum()),
            **_action_shares(self.task.actions, actions, alive),
            **metrics,
        }
        if collapsed.mean() > 0.5:
            self.restarts += 1
            self._new_controller()
        row["restarts"] = self.restarts
        row["validation"] = self._validate_if_due()
        self.history.append(row)
        return row

    def _draw(self, purpose):
        rng = np.random.default_rng([self.options.seed, self.round, purpose])
        return int(rng.integers(2**31))

    def _final_rewards(self, results, actions, alive):
        """Final rewards [E], and which episodes have collapsed [E]."""
        final = self._reward(results)
        runs = rewards.longest_runs(actions, alive)
        collapsed = (runs >= self.options.collapse_after) | ~np.isfinite(final)
        if not collapsed.all():
            lowest = float(final[~collapsed].min())
            self.lowest_reward = min(self.lowest_reward, lowest)
        worst = self.lowest_reward
        if not np.isfinite(worst):
            # Nothing but collapses so far.
            worst = float(np.nan_to_num(final).min())
        return np.where(collapsed, worst, final), collapsed

    def _validate_if_due(self):
        """The mean validation result of the present controller, or None."""
        every, last = self.options.validate_every, self.options.rounds
        due = self.round % every == 0 or self.round == last
        if self.validation_task is None or not due:
            return None
        seeds = starts("validation", _VALIDATION_STARTS)
        state, _ = episodes_lib.play(self._validation, seeds)
        values = self.validation_task.result(state, "valid").numpy()
        mean = float(np.mean(values))
        score = -mean if self.task.higher_is_better else mean
        if score < self.best_score:
            self.best_score = score
            self.best_weights = self.controller.weights()
        return mean

    def best_controller(self):
        """The controller with the best validation, else the present one."""
        best = self.controller.copy()
        if self.best_weights is not None:
            best.set_weights(self.best_weights)
        return best

    def snapshot(self):
        """(arrays, metadata): everything to go on from."""
        arrays, learner = self.learner.state()
        arrays |= self.controller.weights()
        for name, array in (self.best_weights or {}).items():
            arrays[f"best/{name}"] = array
        return arrays, {
            "settings": self.settings(),
            "learner": learner,
            "round": self.round,
            "restarts": self.restarts,
            "steps": self.steps,
            "lowest_reward": self.lowest_reward,
            "best_score": self.best_score,
            "history": list(self.history),
        }

    def restore(self, arrays, metadata):
        """Goes on from a snapshot of the same settings."""
        differing = [
            f"{part}.{name}"
            for part, values in self.settings().items()
            for name, value in values.items()
            if metadata["settings"].get(part, {}).get(name) != value
        ]
        if differing:
            raise checkpointing.CheckpointError(
                "The checkpoint was made with other settings "
                f"({', '.join(differing)}). Use the same, or another folder."
            )
        if metadata["restarts"]:
            self.restarts = metadata["restarts"]
            self._new_controller()
        self.learner.restore(arrays, metadata["learner"])
        self.controller.set_weights(arrays)
        best = {
            name.removeprefix("best/"): array
            for name, array in arrays.items()
            if name.startswith("best/")
        }
        self.best_weights = best or None
        for name in (
            "round",
            "steps",
            "lowest_reward",
            "best_score",
            "history",
        ):
            setattr(self, name, metadata[name])

    def settings(self):
        """What a checkpoint must agree with; more episodes may be run."""
        options = dataclasses.asdict(self.options)
        del options["episodes"]
        options["features"] = list(options["features"])
        judge = self.validation_task
        return {
            "task": {"name": self.task.name, **self.task.get_config()},
            "validation_task": {} if judge is None else judge.get_config(),
            "options": options,
        }


class _Files:
    """What a training leaves in its output folder."""

    def __init__(self, trainer, output_dir):
        self.trainer = trainer
        self.folder = pathlib.Path(output_dir) if output_dir else None
        self.checkpoints = checkpointing.Checkpoints(
            self.folder and self.folder / "checkpoints", _KIND
        )
        self._scalars = scalars.Scalars(
            self.folder and self.folder / "tensorboard"
        )

    def check_unused(self):
        self.checkpoints.check_unused(self.folder, "a training")

    def restore(self):
        self.trainer.restore(*self.checkpoints.load_latest())

    def save(self, snapshot):
        if not self.folder:
            return
        arrays, metadata = snapshot
        self.checkpoints.save(metadata["round"], arrays, metadata)
        controller, best = self.trainer.controller, self.trainer.best_weights
        facts = {"training": self.trainer.settings()}
        controller.save(self.folder / "controller.npz", arrays, **facts)
        if best is not None:
            controller.save(self.folder / "best.npz", best, **facts)
        self._scalars.flush()

    def log(self, row):
        known = {name: x for name, x in row.items() if x is not None}
        self._scalars.write(row["episodes"], known)


class _Progress:
    """A line for each round: what is done, how fast, how long yet."""

    def __init__(self, trainer, say, every_s=5.0):
        self._trainer = trainer
        self._say = say
        self._every_s = every_s
        self._began = self._spoke = time.monotonic()
        self._first_round = trainer.round
        self._first_steps = trainer.steps
        self._last = None
        say(
            f"{trainer.task.name}: {trainer.options.algorithm}, "
            f"{trainer.options.rounds} rounds of "
            f"{trainer.options.parallel} episodes"
        )

    def add(self, row):
        self._last = row
        if time.monotonic() - self._spoke > self._every_s:
            self._line()

    def close(self):
        if self._last:
            self._line()

    def _line(self):
        trainer, row = self._trainer, self._last
        self._last = None
        self._spoke = time.monotonic()
        seconds = self._spoke - self._began
        rounds = trainer.round - self._first_round
        left = (trainer.options.rounds - trainer.round) * seconds / rounds
        speed = (trainer.steps - self._first_steps) / seconds
        shares = "  ".join(
            f"{name} {row[f'share/{name}']:.2f}"
            for name in trainer.task.actions
        )
        self._say(
            f"episode {row['episodes']}/{trainer.options.episodes}  "
            f"{trainer.task.result_name} {row['result']:.4f}  {shares}  "
            f"{self._best()}{speed:,.0f} task steps/s  "
            f"{left / 60:.1f} min left"
        )
        if row["collapsed"]:
            self._say(
                f"{row['collapsed']} episodes collapsed onto one action; "
                f"{row['restarts']} restarts of the controller so far"
            )

    def _best(self):
        score = self._trainer.best_score
        if not np.isfinite(score):
            return ""
        sign = -1 if self._trainer.task.higher_is_better else 1
        return f"best validation {sign * score:.4f}  "


def _action_shares(names, actions, alive):
    total = max(int(alive.sum()), 1)
    return {
        f"share/{name}": float(((actions == i) & alive).sum() / total)
        for i, name in enumerate(names)
    }
