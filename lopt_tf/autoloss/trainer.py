"""Trains a controller: rounds of episodes, and what is learned from them."""

import dataclasses
import functools
import inspect

import numpy as np

from lopt_tf import checks, long_run
from lopt_tf.autoloss import (
    compiled_episodes,
    contract,
    evolution,
    ppo,
    reinforce,
    rewards,
    rounds,
)
from lopt_tf.autoloss import episodes as episodes_lib
from lopt_tf.autoloss.controller import ScheduleController
from lopt_tf.autoloss.options import ControllerOptions
from lopt_tf.autoloss.starts import VALIDATION_DRAW, starts, training_starts
from problems import alternating

_KIND = "lopt_tf.autoloss"
_LEARNERS = {
    "reinforce": reinforce.Reinforce,
    "ppo": ppo.PPO,
    "evolution": evolution.Evolution,
}
# What is compared of data in files.
_CONTENTS = "contents of files"
_COUNTS = ("round", "restarts", "steps", "lowest_reward", "best_score")


def train(
    task,
    options,
    *,
    validation_task=None,
    output_dir=None,
    resume=False,
    report=None,
    checkpoint_every_s=60.0,
    look=None,
):
    """Trains a controller, by policy gradient or evolution.

    Args:
        task: the `problems.alternating.Task` whose training is to be
            scheduled; final rewards are its results on the validation split.
        options: `ControllerOptions`.
        validation_task: where controllers are compared, on its validation
            split, every `options.validate_every` rounds; none if None.
        output_dir: gets checkpoints, TensorBoard scalars, `controller.npz`
            (the last) and `best.npz` (the best at validation); None writes
            nothing.
        resume: resume from the newest checkpoint in `output_dir`.
        report: a function of one line of text.
        checkpoint_every_s: seconds between checkpoints.
        look: a function of the validations' episodes and their position, called
            after each of their segments. Defaults to `None`.

    Returns:
        The trained `ScheduleController`: the best at validation, or the last
        without a validation task; and one dictionary for each round.

    Raises:
        CheckpointError: if there is nothing to resume, the checkpoint is
            damaged or of other settings, or (without `resume`) `output_dir`
            already holds a training.
        ValueError: if the task breaks its contract, or has not the metadata
            that the options' features and rewards need.
        FloatingPointError: if the controller's weights are not finite after a
            round; those before it are kept.
        KeyboardInterrupt: when interrupted; the rounds before are saved.
    """
    # Tasks may take long to begin, and keep files.
    long_run.check_begins(Trainer.what, _KIND, output_dir, resume)
    trainer = Trainer(task, options, validation_task, look)
    long_run.LongRun(
        trainer, _KIND, output_dir, report, checkpoint_every_s
    ).run(resume)
    if trainer.best_weights is not None:
        trainer.controller.set_weights(trainer.best_weights)
    return trainer.controller, trainer.history


class Trainer(long_run.Trainer):
    """A controller, its learner and their past; arguments as for `train`.

    Attributes:
        round: rounds of `options.parallel` episodes that were run.
        restarts: controllers that were dropped because they collapsed.
        steps: task steps that were run, in all episodes.
        lowest_reward: the lowest final reward without a collapse.
        best_score, best_weights: of the best validation; less is better.
        history: one dictionary for each round.
        within: the `Round` that has begun, between its segments; None between
            rounds.
    """

    unit = "task steps"

    def __init__(self, task, options, validation_task=None, look=None):
        self.task = task
        self.options = options
        self.validation_task = validation_task
        self.look = look
        self.round = self.restarts = self.steps = 0
        self.lowest_reward = self.best_score = np.inf
        self.best_weights = None
        self.history = []
        self.within = None
        self._new_controller()

    def _new_controller(self):
        """A fresh policy; the restarts number its seed."""
        options = self.options
        self.controller = ScheduleController.untrained(
            self.task.name,
            self.task.actions,
            options,
            seed=1000 * options.seed + 10 * self.restarts,
        )
        factor = options.restart_factor**self.restarts
        slower = dataclasses.replace(
            options, learning_rate=options.learning_rate * factor
        )
        self.learner = _LEARNERS[options.algorithm](
            self.controller.policy, slower, self.task.period
        )
        self.schedule = self.learner.schedule(self.controller)
        self.episodes = compiled_episodes.episodes_of(
            self.task,
            self.schedule,
            self._segment_length(),
            _step_reward(self.task, options),
        )
        contract.check_reward(self.task, self.episodes, options.reward)
        contract.check_direction(self.task, options)
        if self.validation_task is not None:
            self._validation = compiled_episodes.episodes_of(
                self.validation_task, self.controller.schedule()
            )

    def _segment_length(self):
        """Steps between two moments where a round can be kept."""
        # Episodes of a model take minutes.
        is_model = isinstance(self.task, alternating.ModelTask)
        usual = episodes_lib.SEGMENT
        if is_model:
            usual = max(self.task.period, -(-self.task.max_steps // 400))
        return self.learner.segment_length or usual

    @property
    def step_number(self):
        return self.round

    @property
    def num_steps(self):
        return self.options.rounds

    def step(self):
        """One round of episodes and what is learned from it: a dictionary."""
        self._before = self.snapshot()
        try:
            row = self._play_round()
            self._check_finite()
            return row
        except BaseException:
            self.restore(*self._before)
            raise
        finally:
            self._before = None

    def _check_finite(self):
        """Raises FloatingPointError if the controller cannot go on."""
        arrays, _ = self.learner.state()
        arrays = [*arrays.values(), *self.controller.weights().values()]
        if not checks.all_finite(arrays):
            raise FloatingPointError(
                f"The controller's weights are not finite after round "
                f"{self.round}; those before it are kept. Start anew in "
                "another folder with a lower learning rate."
            )

    def _play_round(self):
        options = self.options
        if self.within is None:
            self._begin_round()
        while not self.episodes.finished(self.within.position):
            self._play_segment()
        position = self.within.position
        actions, alive, log_prob, explored = self.within.played()
        self.within = None
        results = self.episodes.result(position, "valid")
        own = rewards.without_exploration(
            actions, log_prob, explored, len(self.task.actions)
        )
        details = self.episodes.details(position)
        final, collapsed = self._final_rewards(results, own, alive, details)
        metrics = self.learner.after_round(final)
        self.round += 1
        self.steps += int(alive.sum())
        row = {
            "round": self.round,
            "episodes": self.round * options.parallel,
            "reward": float(np.mean(final)),
            "result": float(np.mean(results)),
            "steps": int(alive.sum()),
            "collapsed": int(collapsed.sum()),
            **{
                f"share/{name}": float(np.mean(actions[alive] == i))
                for i, name in enumerate(self.task.actions)
            },
            **metrics,
        }
        if collapsed.mean() > 0.5:
            self.restarts += 1
            self._new_controller()
        row |= {"restarts": self.restarts, "validation": None}
        self.history.append(row)
        return row

    def _begin_round(self):
        options = self.options
        self.learner.before_round(self.round)
        seeds = training_starts(
            *(options.seed, self.round, options.parallel),
            options.episodes_together,
        )
        rng = np.random.default_rng([options.seed, self.round, 1])
        draw = int(rng.integers(2**31))
        self.within = rounds.Round(self.episodes.begin(seeds, draw))

    def _play_segment(self):
        within, most = self.within, self.task.max_steps
        done = self.round + within.steps / most
        epsilon = self.learner.epsilon(done / self.options.rounds)
        self.schedule.epsilon.assign(epsilon)
        position, records = self.episodes.advance(within.position)
        self.learner.after_segment(records)
        within.add(position, records, epsilon)
        line = (
            f"in round {self.round + 1} of {self.options.rounds}: step "
            f"{min(within.steps, most)} of {most}"
        )
        if not self.episodes.finished(position) and self.pause(line):
            self._before = self.snapshot()

    def _final_rewards(self, results, actions, alive, details=None):
        """Final rewards [E], and which episodes have collapsed [E].

        Args:
            results: of the episodes [E].
            actions, alive: of all steps [T, E].
            details: of the episodes {name: [E]}, if one is the reward.
        """
        scale, name = self.options.final_scale, self.options.reward
        if self.options.algorithm == "ppo":
            # It learns from step rewards alone.
            scale = 0.0
        if name:
            final = scale * details[name]
        elif scale and np.any(results[np.isfinite(results)] < 0):
            raise ValueError(
                f"The {self.task.result_name} of an episode is "
                f"{np.nanmin(results):g}: `final_scale` over the result needs "
                "positive ones. Name a detail of the task as the `reward`."
            )
        else:
            final = scale / np.maximum(results, 1e-6)
        runs = rewards.longest_runs(actions, alive)
        collapsed = (runs >= self.options.collapse_after) | ~np.isfinite(final)
        lowest = final[~collapsed].min(initial=self.lowest_reward)
        worst = self.lowest_reward = float(lowest)
        if not np.isfinite(worst):
            # Nothing but collapses so far.
            worst = float(np.nan_to_num(final).min())
        return np.where(collapsed, worst, final), collapsed

    def measure(self):
        """The mean validation result of the present controller, if due."""
        every, last = self.options.validate_every, self.options.rounds
        due = self.round % every == 0 or self.round == last
        done = not self.history or self.history[-1]["validation"] is not None
        if self.validation_task is None or done or not due:
            return {}
        seeds = starts("validation", self.options.validation_starts)
        position, _ = episodes_lib.play(
            self._validation, seeds, VALIDATION_DRAW, self.look
        )
        mean = float(np.mean(self._validation.result(position, "valid")))
        if not np.isfinite(mean):
            self.say(f"note: the validation after round {self.round} is {mean}")
        score = -mean if self.task.higher_is_better else mean
        if score < self.best_score:
            self.best_score = score
            self.best_weights = self.controller.weights()
        self.history[-1]["validation"] = mean
        return {"validation": mean}

    def snapshot(self):
        arrays, learner = self.learner.state()
        arrays |= self.controller.weights()
        for name, array in (self.best_weights or {}).items():
            arrays[f"best/{name}"] = array
        facts = {name: getattr(self, name) for name in _COUNTS}
        history = [dict(row) for row in self.history]
        facts |= {"learner": learner, "history": history, "within": None}
        if self.within is not None:
            played, within = self.within.save(self.episodes)
            within["learner"] = self.learner.round_facts()
            arrays, facts["within"] = arrays | played, within
        return arrays, facts

    def restore(self, arrays, metadata):
        if metadata["restarts"] != self.restarts:
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
        for name in (*_COUNTS, "history"):
            setattr(self, name, metadata[name])
        self._restore_round(arrays, metadata.get("within"))

    def _restore_round(self, arrays, facts):
        """Takes up the round that a snapshot was made in, if it was in one."""
        self.within = None
        if facts is None:
            return
        self.learner.before_round(self.round)
        self.within = rounds.Round.load(self.episodes, arrays, facts)
        steps = {len(each.actions) for each in self.within.records}
        if steps - {self.episodes.segment_length}:
            # Older versions had other segments: the round begins anew.
            self.within = None
            return
        self.learner.resume_round(self.within.records, facts["learner"])

    def settings(self):
        """What a checkpoint must agree with; more episodes may be run."""
        judge = self.validation_task
        return {
            "task": {"name": self.task.name, **self.task.get_config()},
            "validation_task": {} if judge is None else judge.get_config(),
            "options": _compared(self.options),
            _CONTENTS: {
                "task": self.task.data_digest,
                "validation_task": judge and judge.data_digest,
            },
        }

    def completed(self, saved):
        defaults = {"options": _compared(ControllerOptions())}
        # Older checkpoints do not tell.
        defaults[_CONTENTS] = self.settings()[_CONTENTS]
        # What was trained without a validation task has no arguments of one.
        for part in ("task", "validation_task"):
            task = getattr(self, part)
            defaults[part] = _defaults(task) if saved[part] and task else {}
        return {
            part: {**default, **saved.get(part, {})}
            for part, default in defaults.items()
        }

    def products(self):
        save = functools.partial(self.controller.save, training=self.settings())
        found, best = {"controller.npz": save}, self.best_weights
        if best is not None:
            found["best.npz"] = functools.partial(save, weights=best)
        return found

    def describe(self):
        options = self.options
        rounds = f"{options.rounds} rounds of {options.parallel} episodes"
        return [f"{self.task.name}: {options.algorithm}, {rounds}"]

    def status(self, rows):
        row = rows[-1]
        parts = [
            f"episode {row['episodes']}"
            f"/{self.options.rounds * self.options.parallel}",
            f"{self.task.result_name} {row['result']:.4f}",
        ]
        shares = {name: row[f"share/{name}"] for name in self.task.actions}
        parts += [f"{name} {share:.2f}" for name, share in shares.items()]
        if np.isfinite(self.best_score):
            sign = -1 if self.task.higher_is_better else 1
            parts.append(f"best validation {sign * self.best_score:.4f}")
        collapsed = sum(row["collapsed"] for row in rows)
        if collapsed:
            parts.append(f"{collapsed} episodes collapsed onto one action")
        if self.restarts:
            parts.append(f"{self.restarts} restarts of the controller so far")
        return "  ".join(parts)

    def work(self):
        return self.steps

    def scalar_step(self):
        return self.round * self.options.parallel

    def num_compilations(self):
        """Each controller compiles programs of its own."""
        return self.restarts


def _step_reward(task, options):
    """The step reward that options name, or None."""
    if options.step_floor is None or not options.step_scale:
        return rewards.step_reward(options.step_scale)
    return rewards.drop_reward(
        *(f"valid_{task.result_name}", options.step_floor, options.step_scale)
    )


def _compared(options):
    """Options as a dictionary, without those that a resumed run may change."""
    found = dataclasses.asdict(options)
    del found["episodes"]
    return found


def _defaults(task):
    """The default arguments of a task, of those that its settings hold."""
    config = task.get_config()
    found = inspect.signature(type(task)).parameters.values()
    known = [p for p in found if p.name in config and p.default is not p.empty]
    return {p.name: p.default for p in known}
