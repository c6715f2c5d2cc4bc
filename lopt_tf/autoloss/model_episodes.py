"""Episodes of a `ModelTask`: one compiled model that they take turns with."""

import math
import typing

import numpy as np
import tensorflow as tf

from lopt_tf.autoloss import actions, contract, episodes, metadata
from lopt_tf.autoloss.schedule_state import SUPPLIED


class Episode(typing.NamedTuple):
    """Where one episode is.

    Attributes:
        seed, draw: integers: of the episode, and of its actions.
        values: of all variables of the model and its optimizers, a list.
        best_values: those with the best validation.
        measured: what `measure` returned at the last validation.
        best: the best result at a validation.
        improvement: of the result, at the last validation.
        mean_improvement: the moving mean of its absolute values.
        without_better: validations since the best one.
        curve: pairs of updates and result, one for each validation.
        updates: that were made.
        taken: the updates of each action, a list.
        step: steps that were made.
        finished: whether it has ended.
    """

    seed: int
    draw: int
    values: list
    best_values: list
    measured: dict
    best: float
    improvement: float = 0.0
    mean_improvement: float = 0.0
    without_better: int = 0
    curve: tuple = ()
    updates: int = 0
    taken: list = ()
    step: int = 0
    finished: bool = False


class ModelEpisodes(episodes.Episodes):
    """Runs episodes one after the other, a segment of each at a time.

    Everything that differs between them is in the position: the model takes an
    episode's values before its segment.
    """

    def __init__(self, task, *args, **kwargs):
        super().__init__(task, *args, **kwargs)
        self.model, self._first_values = _made(task)
        self._needs = actions.needs_of(self.schedule) | {*task.looks_at}
        # Compiled once, whichever episode's schedule it is.
        self._chooser = self._looking(
            lambda found, step, seed, place: self.schedule.alone(place)(
                found, step, seed
            )
        )
        self._reward = self._looking(self.step_reward)

    @classmethod
    def supplied(cls, task):
        if task.result_name not in task.measures:
            raise ValueError(
                f"`measures` of the task {task.name!r} must have its "
                f"`result_name`, {task.result_name!r}. Received: "
                f"measures={task.measures!r}"
            )
        unknown = [x for x in task.looks_at if x not in actions.MEASURED]
        if unknown:
            raise ValueError(
                f"`looks_at` of the task {task.name!r} must be some of "
                f"{', '.join(actions.MEASURED)}. Received: "
                f"looks_at={task.looks_at!r}"
            )
        measured = {f"valid_{name}" for name in task.measures}
        every = {"finished", *SUPPLIED} - {"valid_loss"} | measured
        return every | {*task.tells}

    def begin(self, seeds, draw=0):
        started = [
            self._start(int(seed), (int(draw) + place) % 2**31)
            for place, seed in enumerate(seeds)
        ]
        return self._position(0, draw, started)

    def _start(self, seed, draw):
        task, model = self.task, self.model
        _put(model, self._first_values)
        model.restart(seed, task.max_steps * task.hold)
        task.start(model, task.setting_of(seed), seed)
        values = _values(model)
        measured = self._measure("valid")
        result = measured[task.result_name]
        return Episode(
            *(seed, draw, values, values, measured, result),
            taken=[0] * len(task.actions),
        )

    def advance(self, position):
        played = [
            self._play(place, episode)
            for place, episode in enumerate(position.state)
        ]
        after, rows, following = zip(*played)
        position = self._position(
            position.step + self.segment_length, position.draw, list(after)
        )
        # [E, T, ...] becomes [T, E, ...].
        columns = [np.stack(each, axis=1) for each in zip(*rows)]
        finished = position.metadata["finished"]
        return position, episodes.Records(
            *columns, np.stack(following), finished
        )

    def _play(self, place, episode):
        """After a segment: the episode, columns of `Records`, features."""
        _put(self.model, episode.values)
        rows = []
        while len(rows) < self.segment_length and not episode.finished:
            choice = self._choose(place, episode)
            episode = self._step(choice, episode)
            reward = 0.0
            if self.step_reward is not None:
                reward = self._reward(self._told(episode)).numpy()[0]
            rows.append((*(x[0] for x in choice), np.float32(reward), True))
        following = self._choose(place, episode)
        # Steps after the end count for nothing.
        rest = (*(x[0] for x in following), np.float32(0), False)
        rows += [rest] * (self.segment_length - len(rows))
        columns = [np.stack(column) for column in zip(*rows)]
        episode = episode._replace(values=_values(self.model))
        return episode, columns, following.features[0]

    def _step(self, choice, episode):
        task, model = self.task, self.model
        action = int(choice.weights[0].argmax())
        count = list(model.objectives.values())[action].updates
        every = model.measure_every
        for again in range(task.hold):
            batches = [self._batch(episode, action, i) for i in range(count)]
            others = None
            if every and episode.step % every == 0 and not again:
                others = {
                    place: self._batch(episode, place, 0)
                    if task.own_batches
                    else batches[-1]
                    for place in range(len(task.actions))
                }
            model.take(action, batches, self._needs, others)
            taken = list(episode.taken)
            taken[action] += count
            episode = episode._replace(
                updates=episode.updates + count, taken=taken
            )
        episode = episode._replace(step=episode.step + 1)
        if episode.step % task.period == 0:
            episode = self._validated(episode)
        out_of_patience = (
            task.patience is not None
            and episode.without_better >= task.patience
        )
        ended = episode.step >= task.max_steps or out_of_patience
        return episode._replace(finished=ended)

    def _batch(self, episode, action, ahead):
        """The batch of an action's update, so many after the present one."""
        task = self.task
        where = task.setting_of(episode.seed), episode.seed
        if task.own_batches:
            return task.batch(*where, episode.taken[action] + ahead, action)
        return task.batch(*where, episode.updates + ahead)

    def _validated(self, episode):
        task, name = self.task, self.task.result_name
        measured = self._measure("valid")
        sign = 1 if task.higher_is_better else -1
        change = sign * (measured[name] - episode.measured[name])
        if not math.isfinite(change):
            change = 0.0
        decay = 0.0 if episode.step == task.period else metadata.DECAY
        mean = decay * episode.mean_improvement + (1 - decay) * abs(change)
        episode = episode._replace(
            measured=measured,
            improvement=change,
            mean_improvement=mean,
            without_better=episode.without_better + 1,
            curve=(*episode.curve, (episode.updates, measured[name])),
        )
        is_first = not math.isfinite(episode.best)
        if math.isfinite(measured[name]) and (
            is_first or sign * (measured[name] - episode.best) > 0
        ):
            episode = episode._replace(
                best=measured[name],
                best_values=_values(self.model),
                without_better=0,
            )
        return episode

    def _measure(self, split):
        found = self.task.measure(self.model, split)
        if {*found} != {*self.task.measures}:
            raise ValueError(
                f"`measure` of the task {self.task.name!r} must return "
                f"{', '.join(self.task.measures)}. Received: "
                f"{', '.join(found)}"
            )
        return {name: float(value) for name, value in found.items()}

    def _told(self, episode):
        """Metadata that the model's own state does not have: NumPy arrays."""
        validated = episode.step > 0 and episode.step % self.task.period == 0
        found = {
            "finished": np.array([episode.finished]),
            "validated": np.array([validated]),
            "improvement": np.float32([episode.improvement]),
            "mean_improvement": np.float32([episode.mean_improvement]),
        }
        for name, value in episode.measured.items():
            found[f"valid_{name}"] = np.float32([value])
        return found

    def _looking(self, function):
        """A compiled function of (what `_told` returns, ...).

        `function` gets all metadata; the model has the episode's values.
        """

        def look(told, *rest):
            own = self.model.schedule_state.metadata()
            del own["valid_loss"]
            found = own | told
            found |= self.task.metadata(self.model, found)
            return function(found, *rest)

        return tf.function(look, autograph=False)

    def _choose(self, place, episode):
        """The `Choice` of one episode, of NumPy arrays."""
        told, step = self._told(episode), np.int32(episode.step)
        seed = np.int32([episode.draw, episode.step])
        choice = self._chooser(told, step, seed, np.int32(place))
        shape = [1, len(self.task.actions)]
        what = "The schedule's weights of the actions"
        contract.check_shape(self.task, what, choice.weights, shape)
        return type(choice)(*(x.numpy() for x in choice))

    def _position(self, step, draw, state):
        finished = np.array([each.finished for each in state])
        return episodes.Position(step, draw, state, {"finished": finished})

    def result(self, position, split):
        kept = self._with_kept(position)
        results = [self.task.result(self.model, split) for _ in kept]
        return np.array(results, "float32")

    def details(self, position, split=None):
        """The task's, and of the results at an episode's validations their
        mean, the last and the best: "mean score", "last score", "best score".

        In the mean the last result stands for validations after an early end.
        """
        told, rows = self.task.details_of, []
        is_test = split == "test"
        for each in self._with_kept(position) if is_test else position.state:
            curve = each.curve or ((0, each.measured[self.task.result_name]),)
            scores = [score for _, score in curve]
            if each.finished:
                # One that ended early stays as good as it is.
                missing = self.task.max_steps // self.task.period - len(scores)
                scores += scores[-1:] * missing
            found = {
                "mean score": float(np.mean(scores)),
                "last score": scores[-1],
                "best score": each.best,
            }
            rows.append(found | told(self.model, each.curve, split))
        return {
            name: np.float32([row[name] for row in rows]) for name in rows[0]
        }

    def samples(self, position, count):
        images = [
            self.task.samples_of(self.model, count)
            for _ in self._with_kept(position)
        ]
        return None if images[0] is None else np.stack(images)

    def curves(self, position):
        return [list(episode.curve) for episode in position.state]

    def _with_kept(self, position):
        """The episodes, while the model is each one's best by turns."""
        for place, episode in enumerate(position.state):
            self.take_best(position, place)
            yield episode

    def take_best(self, position, place):
        """Gives `model` an episode's values with the best validation."""
        _put(self.model, position.state[place].best_values)

    def save(self, position):
        arrays, facts = {}, []
        for number, episode in enumerate(position.state):
            fields = episode._asdict()
            for kind in ("values", "best_values"):
                for i, value in enumerate(fields.pop(kind)):
                    arrays[f"{number}/{kind}/{i}"] = value.numpy()
            facts.append(fields)
        where = {"step": position.step, "draw": int(position.draw)}
        return arrays, {"episodes": facts, **where}

    def load(self, arrays, metadata):
        count = len(self._first_values)
        state = []
        for number, facts in enumerate(metadata["episodes"]):
            kinds = {
                kind: [
                    tf.constant(arrays[f"{number}/{kind}/{i}"])
                    for i in range(count)
                ]
                for kind in ("values", "best_values")
            }
            # JSON has lists only.
            facts = {**facts, "curve": tuple(map(tuple, facts["curve"]))}
            state.append(Episode(**kinds, **facts))
        return self._position(metadata["step"], metadata["draw"], state)


def _made(task):
    """(model, first values of its variables); made once for a task."""
    if task.made is None:
        model = task.build()
        if tuple(model.objectives) != tuple(task.actions):
            raise ValueError(
                f"The objectives of the model of the task {task.name!r} must "
                f"be its actions, {', '.join(task.actions)}. Received: "
                f"{', '.join(model.objectives)}"
            )
        if not model.compiled or not model.built:
            raise ValueError(
                f"`build` of the task {task.name!r} must return a model that "
                "is built and compiled."
            )
        model._optimizers.renew()
        # Tasks may be frozen.
        object.__setattr__(task, "made", (model, _values(model)))
    return task.made


def _variables(model):
    """All that training changes, each once."""
    found = {id(v): v for v in model.variables}
    for optimizer in model.optimizers.values():
        found |= {id(v): v for v in optimizer.variables}
    return list(found.values())


def _values(model):
    return [tf.identity(v.value) for v in _variables(model)]


def _put(model, values):
    for variable, value in zip(_variables(model), values):
        variable.assign(value)
