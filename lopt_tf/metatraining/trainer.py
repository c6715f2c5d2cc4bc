"""The state of a meta-training, and its one step."""

import collections
import contextlib
import dataclasses
import functools

import numpy as np
import tensorflow as tf

from lopt_tf import checkpointing, checks, compilation, long_run
from lopt_tf.metatraining import (
    estimators,
    meta_optimizers,
    problem_runs,
    validation,
)
from lopt_tf.metatraining import objective as objective_lib
from lopt_tf.metatraining import replicas as replicas_lib
from lopt_tf.optimizers import pretrained

_MOST_IN_A_ROW = 100


class Trainer(long_run.Trainer):
    """Meta-trains an update rule on problems.

    Args:
        problems, rule, weights: see `train`.
        options: `TrainingOptions`.
        replicas: the `Replicas` that share the instances.
        best: `BestWeights`, which may validate; None does not.
    """

    what = "a meta-training"
    unit = "inner steps"

    def __init__(
        self, problems, rule, options, weights=None, replicas=None, best=None
    ):
        if not problems:
            raise ValueError("There are no problems to train on.")
        if options.use_log_objective:
            objective_lib.check_nonnegative(problems)
        if options.use_minibatch_objective and rule.attends:
            raise ValueError(
                "`use_minibatch_objective` is of the point where gradients are "
                "taken; with attention that is none that anybody uses."
            )
        workers = replicas.num_workers if replicas else 1
        problem_runs.check_size(problems, rule, options, workers)
        self.problems = dict(problems)
        self.rule = rule
        self.options = options
        self.replicas = replicas or replicas_lib.Replicas()
        self.best = best or validation.BestWeights()
        start = rule.init_weights(options.seed)
        if weights is not None:
            start = _checked_weights(weights, start)
        self.vector = estimators.WeightVector(start, options.trained_weights)
        start = {name: tf.constant(array) for name, array in start.items()}
        self.weights = self.vector.flatten(start)
        self.meta_optimizer = meta_optimizers.make(
            options.meta_optimizer,
            options.meta_learning_rate,
            options.meta_weight_decay,
        )
        self.slots = self.meta_optimizer.init(self.weights)
        # See `weight_average_decay`; the weights themselves without it.
        self.average = self.weights
        self.update = 0
        self.inner_steps = 0
        # {problem name: its share of them}.
        self.inner_steps_of = collections.Counter()
        # {problem name: instances without a finite meta-gradient}.
        self.skipped = {}
        self._reported_skipped = {}
        self._notes = []
        self._drawn = 0
        self._runs = problem_runs.ProblemRuns(
            self.problems, rule, options, self.replicas
        )
        self._under_way = []
        self._skipped_in_a_row = 0
        self._apply = compilation.compiled(self._meta_update)

    step_number = property(lambda self: self.update)
    num_steps = property(lambda self: self.options.meta_updates)

    def work(self):
        return self.inner_steps

    def num_compilations(self):
        return self._runs.num_compilations() + self.best.num_compilations()

    def describe(self):
        return [self._devices(), *self._notes]

    def _devices(self):
        replicas, workers = self.replicas.count, self.replicas.num_workers
        return f"{replicas} replicas in use on {workers} workers"

    def watch(self):
        """A context in which lost workers are reported, if there are any."""
        return contextlib.nullcontext()

    def status(self, rows):
        self._say_skipped()
        # Of one whose runs were all lost at once there is none.
        losses = [row["meta_loss/all"] for row in rows]
        known = [loss for loss in losses if not np.isnan(loss)]
        loss = np.mean(known) if known else np.nan
        return (
            f"meta-update {self.update}/{self.num_steps}  meta-loss {loss:.3f}"
        )

    def _say_skipped(self):
        known, self._reported_skipped = self._reported_skipped, self.skipped
        new = collections.Counter(self.skipped) - collections.Counter(known)
        if new:
            listed = ", ".join(f"{name}: {n}" for name, n in new.items())
            self.say(
                "skipped instances (blown up, or without a finite "
                f"meta-gradient): {listed}"
            )

    def measure(self):
        """A validation if one is due: its scalars."""
        if not self.best.is_due(self.update):
            return {}
        scalars = {}
        if self.replicas.is_chief:
            scalars, mean, is_best = self.best.measure(
                self.rule, self.trained_weights()
            )
            note = " (best so far)" if is_best else ""
            self.say(
                f"validation after meta-update {self.update}: {mean:.4f}{note}"
            )
        self.best.validated = self.update
        return scalars

    # One meta-update.

    def step(self):
        """One meta-update: its scalars.

        It happens whole or not at all, also when it is interrupted.
        """
        # Everything that a step changes; tensors themselves never do.
        before = dict(self.__dict__)
        before["_under_way"] = [
            dataclasses.replace(it, plan=list(it.plan))
            for it in self._under_way
        ]
        try:
            return self._step()
        except BaseException:
            self.__dict__.update(before)
            raise

    def _step(self):
        while len(self._under_way) < self._num_parallel:
            self._under_way.append(self._draw(is_first=True))
        place = self._place()
        it = self._under_way[place]
        estimate, it.run = self._estimate(place, it)
        del it.plan[0]
        if estimate.negative and self.options.use_log_objective:
            raise ValueError(objective_lib.NEGATIVE.format(it.name))
        self._count_skipped(estimate.skipped, it.name)
        # A meta-gradient that says nothing must not move the weights, as
        # Adam's momentum would.
        if estimate.skipped < self.options.instances:
            self._move(estimate.gradient)
            self._check_finite(it.name)
        self.update += 1
        self._add_to_average()
        self.inner_steps += estimate.inner_steps
        self.inner_steps_of = self.inner_steps_of + collections.Counter(
            {it.name: estimate.inner_steps}
        )
        if not it.plan or estimate.lost == estimate.size:
            self._under_way[place] = self._runs.next_start(it) or self._draw()
        return self._scalars(it.name, estimate)

    def _draw(self, is_first=False):
        number = self._drawn
        self._drawn += 1
        return self._runs.draw(number, is_first)

    def _scalars(self, name, estimate):
        """What TensorBoard shows of a meta-update on a problem."""
        set_name = name.partition(".")[0]
        return {
            "meta_loss/all": estimate.meta_loss,
            f"meta_loss/{set_name}": estimate.meta_loss,
            f"meta_loss_of_problem/{name}": estimate.meta_loss,
            "meta_gradient/norm": float(tf.norm(estimate.gradient)),
            "meta_gradient/skipped_instances": estimate.skipped,
            "inner/lost_instances": estimate.lost,
            "inner/steps": self.inner_steps,
        }

    def _place(self):
        """The place of the problem that the next meta-update is about."""
        return self.update % len(self._under_way)

    def _estimate(self, place, it):
        """(`Estimate`, the run after it) of the next partial unroll."""
        with self._runs.about_to_step(it.name) as estimator:
            return estimator.step(
                self.vector, self.weights, it.constants, it.run, it.plan[0]
            )

    def _move(self, gradient):
        factor = self.options.learning_rate_factor(self.update)
        self.slots, self.weights = self._apply(
            self.slots, self.weights, gradient, tf.constant(factor, "float32")
        )

    def _check_finite(self, name):
        """Raises FloatingPointError if the weights cannot be moved on."""
        if not checks.all_finite([self.weights, *self.slots.values()]):
            raise FloatingPointError(
                f"Meta-update {self.update + 1} (problem: {name}) made weights "
                "that are not finite; those before it are kept. Start from "
                "them in another folder, with a lower meta learning rate."
            )

    def _add_to_average(self):
        """Moves the average towards the weights after a meta-update."""
        # The first weights would stay for long in an average from them on.
        share = max(1 - self.options.weight_average_decay, 1 / self.update)
        self.average += share * (self.weights - self.average)

    @property
    def _num_parallel(self):
        return min(self.options.parallel_tasks, len(self.problems))

    def _meta_update(self, slots, weights, gradient, factor):
        gradient = meta_optimizers.clean(gradient, self.options.gradient_clip)
        gradient += self.options.l2_reg * weights * self.vector.is_trained
        slots, moved = self.meta_optimizer.apply(slots, weights, gradient)
        return slots, weights + factor * (moved - weights)

    def _count_skipped(self, count, name):
        if count:
            total = self.skipped.get(name, 0) + count
            self.skipped = {**self.skipped, name: total}
        all_skipped = count == self.options.instances
        in_a_row = self._skipped_in_a_row + 1 if all_skipped else 0
        self._skipped_in_a_row = in_a_row
        if in_a_row >= _MOST_IN_A_ROW:
            raise FloatingPointError(
                f"The last {in_a_row} meta-gradients were not finite at all "
                f"(problem now: {name}). The weights were not changed by "
                "them. Start from these weights in another folder, with a "
                "lower meta learning rate, shorter unrolls, or "
                "obj_train_max_multiplier."
            )

    # Saving and resuming.

    def trained_weights(self):
        """The meta-parameters, or their average: {name: NumPy array}."""
        averages = self.options.weight_average_decay > 0
        vector = self.average if averages else self.weights
        weights = self.vector.unflatten(vector)
        return {name: array.numpy() for name, array in weights.items()}

    def settings(self):
        return {
            "options": _compared(self.options),
            "rule": {"kind": self.rule.name, **self.rule.get_config()},
            "objectives": {n: repr(p) for n, p in self.problems.items()},
            "validation": self.best.settings(),
        }

    def default_settings(self):
        return {
            "options": _compared(type(self.options)()),
            "rule": {"kind": self.rule.name, **self.rule.default_config()},
        }

    def completed(self, saved):
        """See `long_run.Trainer`; the first release named problems shortly.

        Its texts left settings out, so that only the types are compared.
        """
        # Where the rule's kind was not saved it is taken to be this one's:
        # `restore` compares the weights.
        saved = super().completed(saved)
        if "objectives" not in saved:
            self._notes.append(
                "note: this checkpoint of an earlier version does not hold "
                "all settings of its problems; they are taken to be the same"
            )
            saved["objectives"] = dict(saved["problems"])
            for name, text in saved["problems"].items():
                problem = self.problems.get(name)
                if text.partition("(")[0] == type(problem).__name__:
                    saved["objectives"][name] = repr(problem)
        self._check_order(list(saved["objectives"]))
        validation = self.best.settings()
        if not saved.get("validation"):
            # There was none, or an earlier version did not tell.
            saved["validation"] = validation
        elif not validation:
            raise checkpointing.CheckpointError(
                "The checkpoint's training has a validation, which decides "
                "on its best weights. Resume with the same one."
            )
        return saved

    def _check_order(self, saved):
        """Raises CheckpointError for more problems, or in another order.

        The draw of a problem is a place among them.
        """
        given = list(self.problems)
        if {*given} > {*saved}:
            raise checkpointing.CheckpointError(
                "The checkpoint was made with fewer problems. Name those "
                f"alone: {','.join(saved)}"
            )
        if given != saved and {*given} == {*saved}:
            raise checkpointing.CheckpointError(
                "The checkpoint was made with the problems in another order, "
                "which decides when each is drawn. Name them in this one: "
                f"{','.join(saved)}"
            )

    def products(self):
        """{file name: function that writes it}: optimizers, and a table."""
        weights = {"optimizer.npz": self.trained_weights()}
        if self.best.weights is not None:
            weights["best.npz"] = self.best.weights
        save = functools.partial(pretrained.save, rule=self.rule)
        return {
            "problems.csv": functools.partial(
                problem_runs.write_shares,
                problems=self.problems,
                inner_steps_of=self.inner_steps_of,
                inner_steps=self.inner_steps,
            ),
            **{
                name: functools.partial(save, weights=arrays)
                for name, arrays in weights.items()
            },
        }

    def snapshot(self):
        arrays = {"weights": self.weights}
        if self.options.weight_average_decay:
            arrays["average"] = self.average
        arrays.update({f"slots/{n}": s for n, s in self.slots.items()})
        best = self.best.weights or {}
        arrays.update({f"best/{n}": array for n, array in best.items()})
        tasks = []
        for i, it in enumerate(self._under_way):
            saved, description = self._runs.save(it)
            arrays.update({f"tasks/{i}/{n}": a for n, a in saved.items()})
            tasks.append(description)
        metadata = {
            "update": self.update,
            "meta_updates": self.options.meta_updates,
            "inner_steps": self.inner_steps,
            "inner_steps_of": self.inner_steps_of,
            "skipped": self.skipped,
            "skipped_in_a_row": self._skipped_in_a_row,
            "drawn": self._drawn,
            "tasks": tasks,
            "best": self.best.state(),
        }
        return arrays, metadata

    def restore(self, arrays, metadata):
        """Resumes from a snapshot, on any number of replicas."""
        self._check_arrays(arrays)
        before, now = metadata["meta_updates"], self.num_steps
        if before != now and self.options.meta_learning_rate_decay != 1:
            self._notes.append(
                f"note: the learning rate now falls over {now} meta-updates, "
                f"before over {before}: not what one run of {now} would be"
            )
        best = checkpointing.below("best/", arrays)
        self.best.restore(metadata["best"], best)
        self.weights = tf.constant(arrays["weights"])
        self.average = tf.constant(arrays.get("average", arrays["weights"]))
        self.slots = {
            name: tf.constant(arrays[f"slots/{name}"]) for name in self.slots
        }
        self.update = metadata["update"]
        self.inner_steps = metadata["inner_steps"]
        self.inner_steps_of = collections.Counter(
            metadata.get("inner_steps_of", {})
        )
        self.skipped = self._reported_skipped = dict(metadata["skipped"])
        # Resuming after too many in a row resets the count: the last of them
        # is not in the snapshot.
        in_a_row = metadata["skipped_in_a_row"]
        is_last = in_a_row >= _MOST_IN_A_ROW - 1
        self._skipped_in_a_row = 0 if is_last else in_a_row
        self._drawn = metadata["drawn"]
        self._under_way = [
            self._runs.load(checkpointing.below(f"tasks/{i}/", arrays), about)
            for i, about in enumerate(metadata["tasks"])
        ]

    def _check_arrays(self, arrays):
        """Raises CheckpointError unless weights and slots can be these."""
        expected = {"weights": self.weights}
        if "average" in arrays:
            expected["average"] = self.weights
        expected.update({f"slots/{n}": s for n, s in self.slots.items()})
        shapes = {name: tuple(array.shape) for name, array in expected.items()}
        best = {f"best/{n}": a.shape for n, a in self.trained_weights().items()}
        if any(name in arrays for name in best):
            shapes |= best
        found = {n: a for n, a in arrays.items() if not n.startswith("tasks/")}
        checkpointing.check_arrays("The checkpoint", found, shapes)


def _compared(options):
    """The options that a resumed run must share: it may be longer."""
    values = dataclasses.asdict(options)
    del values["meta_updates"]
    return values


def _checked_weights(weights, expected):
    """Weights to start from as float32; ValueError if they do not fit."""
    weights = {
        name: np.asarray(array, "float32") for name, array in weights.items()
    }
    shapes = {name: array.shape for name, array in expected.items()}
    wrong = checks.wrong_arrays(weights, shapes)
    if wrong:
        raise ValueError(
            "The weights to start from are not of use for this rule "
            f"({checkpointing.some(wrong)})."
        )
    return weights
