"""The meta-training loop: problems in, trained weights out, any time."""

import dataclasses
import pathlib
import time

import numpy as np
import tensorflow as tf

from lopt_tf import checkpointing
from lopt_tf.metatraining import curriculum as curriculum_lib
from lopt_tf.metatraining import estimators, meta_optimizers, unroll
from lopt_tf.metatraining import objective as objective_lib
from lopt_tf.optimizers import pretrained

_KIND = "lopt_tf.metatraining"
ESTIMATORS = ("bptt", "pes")


def _check_known(name, value, known):
    if value not in known:
        raise ValueError(
            f"Unknown {name} {value!r}. Known: {', '.join(sorted(known))}."
        )


@dataclasses.dataclass(frozen=True)
class TrainingOptions:
    """Settings of a meta-training; the defaults are quick, not published.

    Attributes:
        meta_updates: how many updates of the weights.
        estimator: "bptt" (truncated backpropagation) or "pes" (persistent
            evolution strategies).
        instances: problem instances side by side (pairs, with "pes").
        segment_length: inner steps in one compiled call.
        truncation: inner steps after which a gradient is cut; 0 cuts only
            between partial unrolls ("bptt") or after each segment ("pes").
        parallel_tasks: problems under way at a time, updated in turn.
        meta_optimizer: "adam" or "rmsprop".
        meta_learning_rate: its learning rate.
        meta_learning_rate_decay: the learning rate falls linearly to this
            share of itself over `meta_updates`.
        gradient_clip: each element of a meta-gradient is clipped to this.
        l2_reg: weight of half the squared norm of the weights.
        perturbation: standard deviation of the weights' perturbations (pes).
        use_second_derivatives: through the problems' gradients (bptt).
        use_log_objective: average logarithms of the objectives.
        use_numerator_epsilon: see `MetaObjective`.
        obj_train_max_multiplier: an objective beyond this multiple of its
            start ends an inner run; 0 for no limit.
        curriculum: how long to unroll.
        seed: of everything that is drawn.
    """

    meta_updates: int = 1000
    estimator: str = "pes"
    instances: int = 32
    segment_length: int = 20
    truncation: int = 0
    parallel_tasks: int = 8
    meta_optimizer: str = "adam"
    meta_learning_rate: float = 3e-3
    meta_learning_rate_decay: float = 1.0
    gradient_clip: float = 1e4
    l2_reg: float = 0.0
    perturbation: float = 0.02
    use_second_derivatives: bool = True
    use_log_objective: bool = True
    use_numerator_epsilon: bool = False
    obj_train_max_multiplier: float = 0.0
    curriculum: curriculum_lib.Curriculum = curriculum_lib.Curriculum()
    seed: int = 0

    def __post_init__(self):
        _check_known("estimator", self.estimator, ESTIMATORS)
        known = meta_optimizers.OPTIMIZERS
        _check_known("meta_optimizer", self.meta_optimizer, known)
        for name in (
            "meta_updates",
            "instances",
            "segment_length",
            "parallel_tasks",
        ):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"`{name}` must be at least 1. "
                    f"Received: {name}={getattr(self, name)}"
                )


@dataclasses.dataclass
class _Task:
    """A problem under way.

    Attributes:
        number: counts the problems drawn; seeds what belongs to this one.
        name: the problem's name.
        start: which fresh start on the problem this is.
        plan: segment counts of the meta-updates still to come.
        state: the estimator's state.
        constants: the problem's constants (drawn again on resuming).
    """

    number: int
    name: str
    start: int
    plan: list
    state: tuple
    constants: dict


class Trainer:
    """Meta-trains an update rule on problems; see `train`."""

    def __init__(self, problems, rule, options, weights=None):
        if not problems:
            raise ValueError("There are no problems to train on.")
        if options.use_log_objective:
            _check_nonnegative(problems)
        self.problems = dict(problems)
        self.rule = rule
        self.options = options
        start = rule.init_weights(options.seed) if weights is None else weights
        self.vector = estimators.WeightVector(start)
        start = {name: tf.constant(array) for name, array in start.items()}
        self.weights = self.vector.flatten(start)
        self.meta_optimizer = meta_optimizers.OPTIMIZERS[
            options.meta_optimizer
        ](options.meta_learning_rate)
        self.slots = self.meta_optimizer.init(self.weights)
        self.update = 0
        self.inner_steps = 0
        self.nonfinite = 0
        self._drawn = 0
        self._tasks = []
        self._estimators = {}
        self._nonfinite_in_a_row = 0
        self._apply = unroll.compiled(self._meta_update)

    # One meta-update.

    def step(self):
        """One meta-update: (problem name, `Estimate`, non-finite elements).

        It happens whole or not at all, also when it is interrupted.
        """
        before = self._position()
        try:
            return self._step()
        except BaseException:
            self.__dict__.update(before)
            raise

    def _position(self):
        """Everything that a step changes (tensors themselves never do)."""
        tasks = [
            dataclasses.replace(task, plan=list(task.plan))
            for task in self._tasks
        ]
        return {**self.__dict__, "_tasks": tasks}

    def _step(self):
        while len(self._tasks) < self._num_tasks:
            self._tasks.append(self._draw_task())
        turn = self.update % self._num_tasks
        task = self._tasks[turn]
        estimator = self._estimator(task.name)
        if task.state is None:
            task.state = self._fresh_state(task)
        estimate, task.state = estimator.step(
            self.vector,
            self.weights,
            task.constants,
            task.state,
            task.plan.pop(0),
        )
        self.slots, self.weights, nonfinite = self._apply(
            self.slots,
            self.weights,
            estimate.gradient,
            tf.constant(self._learning_rate_factor(), "float32"),
        )
        self.update += 1
        self.inner_steps += estimate.inner_steps
        self._count_nonfinite(int(nonfinite), task.name)
        all_lost = estimate.lost == len(task.state[0].alive)
        if not task.plan or all_lost:
            self._tasks[turn] = self._next_task(task)
        return task.name, estimate, int(nonfinite)

    @property
    def _num_tasks(self):
        return min(self.options.parallel_tasks, len(self.problems))

    def _learning_rate_factor(self):
        done = min(self.update / self.options.meta_updates, 1.0)
        return 1 - done * (1 - self.options.meta_learning_rate_decay)

    def _meta_update(self, slots, weights, gradient, factor):
        gradient, nonfinite = meta_optimizers.clean(
            gradient, self.options.gradient_clip
        )
        gradient = gradient + self.options.l2_reg * weights
        slots, moved = self.meta_optimizer.apply(slots, weights, gradient)
        return slots, weights + factor * (moved - weights), nonfinite

    def _count_nonfinite(self, count, name):
        self.nonfinite += count
        everything = count == sum(self.vector.sizes)
        in_a_row = self._nonfinite_in_a_row + 1 if everything else 0
        self._nonfinite_in_a_row = in_a_row
        if in_a_row >= 100:
            raise FloatingPointError(
                f"The last {in_a_row} meta-gradients were not finite at all "
                f"(problem now: {name}). The weights were not changed by "
                "them. Lower the meta learning rate, shorten the unrolls, or "
                "set obj_train_max_multiplier, and resume."
            )

    # Tasks.

    def _draw_task(self):
        number = self._drawn
        self._drawn += 1
        name = curriculum_lib.draw_problem(
            list(self.problems), self.options.seed, number
        )
        return self._task(number, name, 0)

    def _next_task(self, task):
        if task.start + 1 >= self.options.curriculum.starts:
            return self._draw_task()
        return self._task(task.number, task.name, task.start + 1, task)

    def _task(self, number, name, start, same_problem=None):
        options = self.options
        rng = np.random.default_rng([options.seed, 2, number, start])
        plan = options.curriculum.plan(rng, options.segment_length)
        pieces = max(1, round(options.truncation / options.segment_length))
        if options.truncation or options.estimator == "pes":
            plan = curriculum_lib.cut(plan, pieces)
        constants = same_problem and same_problem.constants
        if constants is None:
            constants = self._constants(number, name)
        return _Task(number, name, start, plan, None, constants)

    def _constants(self, number, name):
        unroller = self._estimator(name).unroller
        return unroller.constants((self.options.seed, 3, number))

    def _fresh_state(self, task):
        seed = (self.options.seed, 4, task.number, task.start)
        return self._estimator(task.name).start(
            self.vector, self.weights, task.constants, seed
        )

    def _estimator(self, name):
        """The estimator of a problem, with its compiled functions."""
        if name not in self._estimators:
            self._estimators[name] = self._new_estimator(self.problems[name])
        return self._estimators[name]

    def _new_estimator(self, problem):
        options = self.options
        objective = objective_lib.MetaObjective(
            options.use_log_objective, options.use_numerator_epsilon
        )
        persistent = options.estimator == "pes"
        unroller = unroll.Unroller(
            problem,
            self.rule,
            options.instances,
            options.segment_length,
            options.use_second_derivatives,
            copies=2 if persistent else 1,
        )
        multiplier = options.obj_train_max_multiplier
        if persistent:
            return estimators.PersistentEvolution(
                unroller, objective, options.perturbation, multiplier
            )
        return estimators.TruncatedBackpropagation(
            unroller, objective, multiplier
        )

    # Saving and resuming.

    def trained_weights(self):
        """The meta-parameters now: {name: NumPy array}."""
        weights = self.vector.unflatten(self.weights)
        return {name: array.numpy() for name, array in weights.items()}

    def settings(self):
        """What must be the same for a resumed run."""
        options = dataclasses.asdict(self.options)
        # A run may be made longer.
        del options["meta_updates"]
        return {
            "options": options,
            "rule": self.rule.get_config(),
            "problems": {n: repr(p) for n, p in self.problems.items()},
        }

    def snapshot(self):
        """(arrays, metadata) from which `restore` goes on exactly."""
        arrays = {"weights": self.weights}
        arrays.update({f"slots/{n}": s for n, s in self.slots.items()})
        tasks = []
        for i, task in enumerate(self._tasks):
            about = {
                "number": task.number,
                "name": task.name,
                "start": task.start,
                "plan": task.plan,
            }
            if task.state is not None:
                run, rest = task.state
                about.update(step=run.step, seed=run.seed, rest=list(rest))
                for name, array in {**run.arrays(), **rest}.items():
                    arrays[f"tasks/{i}/{name}"] = array
            tasks.append(about)
        metadata = {
            "settings": self.settings(),
            "update": self.update,
            "inner_steps": self.inner_steps,
            "nonfinite": self.nonfinite,
            "nonfinite_in_a_row": self._nonfinite_in_a_row,
            "drawn": self._drawn,
            "tasks": tasks,
        }
        return arrays, metadata

    def restore(self, arrays, metadata):
        """Goes on where a snapshot was taken.

        Raises:
            CheckpointError: if the settings differ; the message names them.
        """
        _check_same_settings(metadata["settings"], self.settings())
        self.weights = tf.constant(arrays["weights"])
        self.slots = {
            name: tf.constant(arrays[f"slots/{name}"]) for name in self.slots
        }
        self.update = metadata["update"]
        self.inner_steps = metadata["inner_steps"]
        self.nonfinite = metadata["nonfinite"]
        self._nonfinite_in_a_row = metadata["nonfinite_in_a_row"]
        self._drawn = metadata["drawn"]
        self._tasks = [
            self._restored_task(i, about, arrays)
            for i, about in enumerate(metadata["tasks"])
        ]

    def _restored_task(self, index, about, arrays):
        prefix = f"tasks/{index}/"
        found = {
            name.removeprefix(prefix): array
            for name, array in arrays.items()
            if name.startswith(prefix)
        }
        state = None
        if "step" in about:
            rest = {n: tf.constant(found.pop(n)) for n in about["rest"]}
            run = unroll.Run.from_arrays(found, about["step"], about["seed"])
            state = (run, rest)
        return _Task(
            number=about["number"],
            name=about["name"],
            start=about["start"],
            plan=list(about["plan"]),
            state=state,
            constants=self._constants(about["number"], about["name"]),
        )


def train(
    problems,
    rule,
    options=None,
    *,
    weights=None,
    output_dir=None,
    resume=False,
    checkpoint_every_s=60.0,
    report=None,
):
    """Meta-trains an update rule (paper, section 4).

    Args:
        problems: {name: Problem}, for instance from `problems.corpus.select`.
        rule: an `UpdateRule`.
        options: `TrainingOptions`; the defaults if None.
        weights: meta-parameters to start from; drawn by the seed if None.
        output_dir: where checkpoints, TensorBoard scalars and the trained
            optimizer (`optimizer.npz`) go; None writes nothing.
        resume: go on from the newest checkpoint in `output_dir`.
        checkpoint_every_s: seconds between checkpoints.
        report: a function of one line of text, called every few seconds.

    Returns:
        The trained meta-parameters, {name: NumPy array [out, in]}.

    Raises:
        CheckpointError: if there is nothing to resume, the checkpoint is
            damaged or of other settings, or (without `resume`) `output_dir`
            already holds checkpoints.
        FloatingPointError: after 100 meta-gradients without a finite entry.
    """
    options = options or TrainingOptions()
    trainer = Trainer(problems, rule, options, weights)
    files = _Files(trainer, output_dir)
    if resume:
        trainer.restore(*files.checkpoints.load_latest())
    else:
        files.check_unused()
    progress = _Progress(trainer, report)
    saved = time.monotonic()
    try:
        while trainer.update < options.meta_updates:
            outcome = trainer.step()
            progress.add(*outcome)
            files.log(trainer, *outcome)
            if time.monotonic() - saved > checkpoint_every_s:
                files.save()
                saved = time.monotonic()
    finally:
        # Stopped, failed or finished: what was learned is kept.
        files.save()
        progress.close()
    return trainer.trained_weights()


class _Files:
    """What a training leaves in its output folder."""

    def __init__(self, trainer, output_dir):
        self.trainer = trainer
        self.folder = output_dir and pathlib.Path(output_dir)
        self.checkpoints = checkpointing.Checkpoints(
            self.folder / "checkpoints" if self.folder else "/nonexistent",
            _KIND,
        )
        self._writer = None

    def check_unused(self):
        if self.folder and self.checkpoints.paths():
            raise checkpointing.CheckpointError(
                f"{self.folder} already holds a meta-training. Resume it, or "
                "name another folder."
            )

    def save(self):
        if not self.folder:
            return
        self.checkpoints.save(self.trainer.update, *self.trainer.snapshot())
        pretrained.save(
            self.folder / "optimizer.npz",
            self.trainer.rule,
            self.trainer.trained_weights(),
        )
        if self._writer:
            self._writer.flush()

    def log(self, trainer, name, estimate, nonfinite):
        if not self.folder:
            return
        if self._writer is None:
            folder = str(self.folder / "tensorboard")
            self._writer = tf.summary.create_file_writer(folder)
        set_name = name.partition(".")[0]
        with self._writer.as_default(step=trainer.update):
            tf.summary.scalar("meta_loss/all", estimate.meta_loss)
            tf.summary.scalar(f"meta_loss/{set_name}", estimate.meta_loss)
            norm = tf.linalg.global_norm([estimate.gradient])
            tf.summary.scalar("meta_gradient/norm", norm)
            tf.summary.scalar("meta_gradient/non_finite", nonfinite)
            tf.summary.scalar("inner/lost_instances", estimate.lost)
            tf.summary.scalar("inner/steps", trainer.inner_steps)


class _Progress:
    """One line every few seconds: what is done, how fast, how long yet."""

    def __init__(self, trainer, report, every_s=10.0):
        self._trainer = trainer
        self._report = report
        self._every_s = every_s
        self._began = self._spoke = time.monotonic()
        self._first_update = trainer.update
        self._first_inner = trainer.inner_steps
        self._losses = []

    def add(self, name, estimate, nonfinite):
        del name, nonfinite
        self._losses.append(estimate.meta_loss)
        if time.monotonic() - self._spoke > self._every_s:
            self._say()

    def close(self):
        if self._losses:
            self._say()

    def _say(self):
        if self._report is None:
            return
        self._spoke = time.monotonic()
        trainer, total = self._trainer, self._trainer.options.meta_updates
        seconds = self._spoke - self._began
        updates = trainer.update - self._first_update
        left = (total - trainer.update) * seconds / max(updates, 1)
        speed = (trainer.inner_steps - self._first_inner) / seconds
        self._report(
            f"meta-update {trainer.update}/{total}  "
            f"meta-loss {np.mean(self._losses):.3f}  "
            f"{speed:,.0f} inner steps/s  "
            f"non-finite {trainer.nonfinite}  "
            f"{left / 60:.1f} min left"
        )
        self._losses = []


def _check_nonnegative(problems):
    for name, problem in problems.items():
        if not problem.nonnegative:
            raise ValueError(
                f"The objective of {name} ({problem!r}) can be negative, and "
                "the logarithmic meta-objective needs it not to be. Set "
                "use_log_objective=False, or leave the problem out."
            )


def _check_same_settings(saved, given):
    different = [
        f"{part}.{key}: saved {saved[part].get(key)!r}, "
        f"given {given[part].get(key)!r}"
        for part in given
        for key in sorted({*saved[part], *given[part]})
        if saved[part].get(key) != given[part].get(key)
    ]
    if different:
        raise checkpointing.CheckpointError(
            "The checkpoint was made with other settings: "
            f"{'; '.join(different)}. Resume with the saved ones, or start "
            "anew in another folder."
        )
