"""What a model's controller learns from, while the model trains."""

import keras
import numpy as np
import tensorflow as tf

from lopt_tf.autoloss import episodes, named_arrays, ppo, rewards

# Of the moving average of how much the training loss changes in a step
# (chosen: it covers two of PPO's segments).
_DECAY = 0.99
# What rewards of steps look at.
NEEDS = {
    "loss": ("train_loss",),
    "validation": ("improvement", "mean_improvement", "validated"),
}


class Tape:
    """Variables that steps are written to, inside of compiled functions.

    Args:
        length: the most steps between two calls of `read`.
        features, actions: how many a policy has.
    """

    def __init__(self, length, features, actions):
        shapes = {
            "features": [length, features],
            "weights": [length, actions],
            "log_prob": [length],
            "level": [length],
        }
        self._columns = {
            name: tf.Variable(tf.zeros(shape), trainable=False)
            for name, shape in shapes.items()
        }
        self.count = tf.Variable(0, trainable=False)

    def write(self, choice, level):
        """Takes a step: its `Choice` and the training loss before it."""
        row = {**choice._asdict(), "level": level}
        for name, column in self._columns.items():
            column.scatter_update(
                tf.IndexedSlices(row[name][:1], self.count[None])
            )
        self.count.assign_add(1)

    def read(self):
        """{name: NumPy array [T, ...]} of the steps, which are taken off."""
        rows = self.rows()
        self.count.assign(0)
        return rows

    def rows(self):
        """What `read` returns."""
        count = int(self.count.numpy())
        return {k: v.numpy()[:count] for k, v in self._columns.items()}

    def restore(self, rows):
        """Takes what `rows` returned."""
        count = len(rows["level"])
        for name, column in self._columns.items():
            column[:count].assign(rows[name])
        self.count.assign(count)


class Learning(keras.layers.Layer):
    """A controller's training, as a part of its model: files have its state.

    Nothing happens until `begin`. What a file had is kept until then.

    Attributes:
        tape: what steps are written to now, or None.
        needs: names of the metadata that rewards look at.
        learner: the `ppo.PPO`, or None.
    """

    def __init__(self, **kwargs):
        super().__init__(trainable=False, **kwargs)
        self.tape = self.learner = None
        self.needs = ()
        self._made_for = self._found = None
        self.built = True

    def begin(self, schedule, options, reward, most, progress):
        """Learns from now on; goes on where the same training has stopped.

        Args:
            schedule: a `schedules.PolicySchedule`.
            options: `ControllerOptions`.
            reward: a key of `NEEDS`.
            most: the most steps between two calls of `take`.
            progress: the share of the model's training that was made.
        """
        made_for = schedule, options, reward, most
        if self._made_for != made_for:
            self._made_for = made_for
            self._reward = reward
            self._step_reward = rewards.step_reward(options.step_scale)
            # Updates of one episode are small: XLA does not pay.
            self.learner = ppo.PPO(schedule.policy, options, jit_compile=False)
            self._schedule = schedule
            self._tape = Tape(
                self.learner.segment_length + most,
                len(schedule.features.names),
                schedule.policy.num_actions,
            )
            self._waiting, self._mean_change = [], None
            self._explored = progress
        if self._found:
            self._restore(self._found)
        # Of a call that was interrupted.
        if int(self._tape.count.numpy()) >= self.learner.segment_length:
            self._waiting.append(self._tape.read())
        self.explore(self._explored)
        self.tape, self.needs = self._tape, NEEDS[reward]

    def pause(self):
        """Nothing is written or drawn evenly from now on."""
        if self.tape is not None:
            self._schedule.epsilon.assign(0.0)
        self.tape, self.needs = None, ()

    def explore(self, progress):
        """Sets the share of random actions after a share of the training."""
        self._explored = progress
        self._schedule.epsilon.assign(self.learner.epsilon(progress))

    def take(self, present):
        """Takes steps off the tape; learns from them, if it has enough.

        Args:
            present: a function that returns (features [1, features], training
                loss) after the last step.
        """
        if int(self.tape.count.numpy()) < self.learner.segment_length:
            return
        self._waiting.append(self.tape.read())
        if self._reward == "loss":
            following, level = present()
            known = [rows["level"] for rows in self._waiting]
            found = self._of_changes(-np.diff(np.concatenate([*known, level])))
            ends = np.cumsum([len(each) for each in known])[:-1]
            self._learn(np.split(found, ends), following)

    def validate(self, metadata, present):
        """Takes a validation, which is the reward of the steps before it.

        Args:
            metadata: after it; what is called "improvement" and so on.
            present: as for `take`.
        """
        if self._reward != "validation":
            return
        if int(self.tape.count.numpy()):
            self._waiting.append(self.tape.read())
        if self._waiting:
            reward = self._step_reward(metadata).numpy()[0]
            found = [np.full(len(r["level"]), reward) for r in self._waiting]
            self._learn(found, present()[0])

    def _of_changes(self, changes):
        """Rewards [T] of drops of the training loss; 0 while it is unknown."""
        known = changes[np.isfinite(changes)]
        if not known.size:
            return np.zeros_like(changes)
        mean = float(np.mean(np.abs(known)))
        if self._mean_change is not None:
            kept = _DECAY ** len(known)
            mean = kept * self._mean_change + (1 - kept) * mean
        self._mean_change = mean
        found = {
            "improvement": np.float32(changes),
            "mean_improvement": np.float32(mean),
            "validated": np.ones(len(changes), bool),
        }
        return self._step_reward(found).numpy()

    def _learn(self, found, following):
        """Updates the policy from all that waits and its rewards."""
        ends = [rows["features"][:1] for rows in self._waiting[1:]]
        for rows, reward, end in zip(self._waiting, found, [*ends, following]):
            alive = np.ones([len(reward), 1], bool)
            self.learner.after_segment(
                episodes.Records(
                    *(rows["features"][:, None], rows["weights"][:, None]),
                    *(rows["log_prob"][:, None], np.float32(reward)[:, None]),
                    *(alive, end, np.zeros([1], bool)),
                )
            )
        self._waiting = []

    # Files.

    def save_own_variables(self, store):
        for name, array in self._arrays().items():
            store[name] = array

    def load_own_variables(self, store):
        found = {name: np.array(store[name]) for name in store.keys()}
        if self.learner is None or not found:
            self._found = found
        else:
            self._restore(found)

    def _arrays(self):
        if self.learner is None:
            return self._found or {}
        arrays, facts = self.learner.state()
        found = {_flat(name): array for name, array in arrays.items()}
        numbers = facts | {"explored": self._explored}
        if self._mean_change is not None:
            numbers["mean_change"] = self._mean_change
        found |= {name: np.array(x) for name, x in numbers.items()}
        parts = {"tape": [self._tape.rows()], "waiting": self._waiting}
        parts["replay"] = [r._asdict() for r in self.learner.replay]
        for part, rows in parts.items():
            for i, row in enumerate(rows):
                found |= {f"{part}_{i}_{k}": v for k, v in row.items()}
        return found

    def _restore(self, found):
        self._check(found)
        self._found = None
        numbers = {name: x.item() for name, x in found.items() if x.ndim == 0}
        names = named_arrays.shapes("learner", self.learner.variables)
        self.learner.restore({n: found[_flat(n)] for n in names}, numbers)
        self._mean_change = numbers.get("mean_change")
        self.explore(numbers["explored"])
        (tape,), self._waiting = _rows(found, "tape"), _rows(found, "waiting")
        if len(tape["level"]) < self.learner.segment_length:
            self._tape.restore(tape)
        else:
            self._waiting.append(tape)
        self.learner.replay = [
            episodes.Records(**row) for row in _rows(found, "replay")
        ]

    def _check(self, found):
        """Raises ValueError for the state of another controller's training."""
        shapes = named_arrays.shapes("learner", self.learner.variables)
        fits = all(
            _flat(name) in found and found[_flat(name)].shape == shape
            for name, shape in shapes.items()
        )
        fits = fits and all(
            found[f"tape_0_{name}"].shape[1:] == rows.shape[1:]
            for name, rows in self._tape.rows().items()
        )
        if not fits:
            raise ValueError(
                "The file has the state of a ControllerTraining of another "
                "controller. Train that one on, or begin with a new model."
            )


def _flat(name):
    """A name that Keras' files take for one."""
    return name.replace("/", "_")


def _rows(found, part):
    """Dictionaries of the arrays "part_NUMBER_NAME", by number."""
    rows = {}
    for name, array in found.items():
        if name.startswith(f"{part}_"):
            number, key = name.removeprefix(f"{part}_").split("_", 1)
            rows.setdefault(int(number), {})[key] = array
    return [rows[number] for number in sorted(rows)]
