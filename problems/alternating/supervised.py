"""Training with two losses: Adam, validation, early stopping, metadata."""

import dataclasses

import tensorflow as tf

from problems.alternating.task import AlternatingTask

_BETA_1, _BETA_2, _EPSILON = 0.9, 0.999, 1e-8
# The moving mean of improvements of the validation loss.
_DECAY = 0.9
# Places of training, validation and test among the five parts of the data.
_ROLES = {"controller": (0, 1, 4), "task": (2, 3, 4)}
# What a validation changes in the state.
_OF_VALIDATION = (
    *("best_params", "best_score", "last_score", "without_improvement"),
    *("improvement", "mean_improvement", "train", "valid"),
)


@dataclasses.dataclass(eq=False)
class SupervisedTask(AlternatingTask):
    """Small models that are trained on all of their training data.

    Every update is one step of Adam (one optimizer state that all actions
    share) with the gradient of the chosen loss. Every `period` steps the
    model is validated. An episode ends after `max_steps` steps, or after
    `patience` validations in a row none of which was better than the one
    before; its result is that of the best validation. (Counted from the best
    validation, patience ends noisy schedules long before they converge.)

    A subclass is a dataclass of its arguments, calls `take_data` in its
    `__post_init__`, and gives the functions `initial_params`, `measure` and
    `products`: the matrix products of a forward pass, as (rows, inputs,
    outputs). The second loss is the L1 norm of all parameters.

    Args:
        role: "controller" for the splits that schedules are trained on,
            "task" (the default) for those on which baselines and trained
            schedules are compared. The test split is the same.
        data_seed: of the data. Defaults to 1.
        penalty: weight of the L1 loss.
        learning_rate: of Adam.
        max_steps: of an episode.
        patience: validations without improvement that end an episode.

    Attributes:
        splits: {"train", "valid", "test": (inputs, targets)}.
    """

    role: str = "task"
    data_seed: int = 1
    penalty: float = 0.02
    learning_rate: float = 1e-3
    max_steps: int = 2000
    patience: int = 20

    period = 10
    combines_actions = True

    def __post_init__(self):
        if self.role not in _ROLES:
            raise ValueError(
                f"Unknown role {self.role!r}. Known: {', '.join(_ROLES)}."
            )
        self.check_positive(float, "penalty", "learning_rate")
        self.check_positive(int, "data_seed", "max_steps", "patience")

    def check_positive(self, kind, *names, most=10**9):
        """Raises ValueError unless attributes are positive, of a kind."""
        for name in names:
            check_positive(kind, most, **{name: getattr(self, name)})

    @property
    def loss_weights(self):
        return (1.0, self.penalty)

    def take_data(self, parts):
        """Sets `splits`, from the five that `draw_data` returns."""
        self.splits = {
            name: tuple(map(tf.constant, parts[place]))
            for name, place in zip(
                ("train", "valid", "test"), _ROLES[self.role]
            )
        }

    def get_config(self):
        return dataclasses.asdict(self)

    def initial_params(self, seeds):
        """Initial parameters: a list of NumPy arrays [E, ...]."""
        raise NotImplementedError

    def measure(self, params, split):
        """{"loss": [E], and others such as "accuracy"} on a split.

        "score" is the result, negated if more is better: the least is kept.
        """
        raise NotImplementedError

    def reset(self, seeds):
        params = [tf.constant(p) for p in self.initial_params(list(seeds))]
        zeros = [tf.zeros_like(p) for p in params]
        count = len(seeds)
        state = {
            "params": params,
            "first_moments": zeros,
            "second_moments": zeros,
            "time": tf.constant(0),
            "best_params": params,
            "best_score": tf.fill([count], float("inf")),
            "last_score": tf.fill([count], float("inf")),
            "without_improvement": tf.zeros([count], tf.int32),
            "improvement": tf.zeros([count]),
            "mean_improvement": tf.zeros([count]),
            "finished": tf.zeros([count], tf.bool),
            **self._measures(params),
        }
        state["losses"], state["gradients"] = self._gradients(params)
        return state, self._metadata(state)

    def step(self, state, action_weights):
        state = dict(state)
        self._adam(state, action_weights)
        state["losses"], state["gradients"] = self._gradients(state["params"])
        state |= tf.cond(
            state["time"] % self.period == 0,
            lambda: self._validated(state),
            lambda: {name: state[name] for name in _OF_VALIDATION},
        )
        state["finished"] |= (state["time"] >= self.max_steps) | (
            state["without_improvement"] >= self.patience
        )
        return state, self._metadata(state)

    def result(self, state, split):
        score = self.measure(state["best_params"], split)["score"]
        return -score if self.higher_is_better else score

    def _adam(self, state, action_weights):
        alive = ~state["finished"]
        # An episode that has finished moves no further.
        chosen = tf.where(alive[:, None], action_weights, 0.0)
        state["time"] = state["time"] + 1
        time = tf.cast(state["time"], tf.float32)
        rate = self.learning_rate * tf.sqrt(1 - _BETA_2**time)
        rate = rate / (1 - _BETA_1**time) * tf.cast(alive, tf.float32)
        updated = []
        for param, first, second, *grads in zip(
            state["params"],
            state["first_moments"],
            state["second_moments"],
            *state["gradients"],
        ):
            gradient = sum(
                _align(chosen[:, i], param) * g for i, g in enumerate(grads)
            )
            first = _BETA_1 * first + (1 - _BETA_1) * gradient
            second = _BETA_2 * second + (1 - _BETA_2) * tf.square(gradient)
            step = first / (tf.sqrt(second) + _EPSILON)
            updated.append((param - _align(rate, param) * step, first, second))
        names = ("params", "first_moments", "second_moments")
        for name, tensors in zip(names, zip(*updated)):
            state[name] = list(tensors)

    def _gradients(self, params):
        """(losses [E, actions], for each action gradients like `params`)."""
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(params)
            l1 = sum(tf.reduce_sum(tf.abs(p), _inner_axes(p)) for p in params)
            fit = self.measure(params, "train")["loss"]
            losses = [fit, self.penalty * l1]
        gradients = [
            tape.gradient(loss, params, unconnected_gradients="zero")
            for loss in losses
        ]
        return tf.stack(losses, 1), gradients

    def _measures(self, params):
        return {s: self.measure(params, s) for s in ("train", "valid")}

    def _validated(self, state):
        alive = ~state["finished"]
        measures = self._measures(state["params"])
        score = measures["valid"]["score"]
        best = alive & (score < state["best_score"])
        drop = state["valid"]["loss"] - measures["valid"]["loss"]
        better = score < state["last_score"]
        count = state["without_improvement"] + 1
        mean = state["mean_improvement"]
        decay = tf.where(state["time"] == self.period, 0.0, _DECAY)
        return {
            "best_params": [
                tf.where(_align(best, new), new, old)
                for new, old in zip(state["params"], state["best_params"])
            ],
            "best_score": tf.where(best, score, state["best_score"]),
            "last_score": score,
            "without_improvement": tf.where(better, 0, count),
            "improvement": drop,
            "mean_improvement": decay * mean + (1 - decay) * tf.abs(drop),
            **measures,
        }

    def _metadata(self, state):
        squares = [_dot(g, g) for g in state["gradients"]]
        size = sum(tf.size(p[0], tf.float32) for p in state["params"])
        product = _dot(*state["gradients"][:2])
        cosine = product * tf.math.rsqrt(squares[0] * squares[1] + 1e-20)
        validated = state["time"] % self.period == 0
        metadata = {
            "validated": tf.fill(state["finished"].shape, validated),
            "finished": state["finished"],
            "losses": state["losses"],
            "gradient_magnitudes": tf.sqrt(tf.stack(squares, 1) / size),
            "gradient_cosine": cosine,
            "improvement": state["improvement"],
            "mean_improvement": state["mean_improvement"],
        }
        for split in ("train", "valid"):
            for name, value in state[split].items():
                metadata[f"{split}_{name}"] = value
        return metadata


def check_positive(kind, most=10**9, **values):
    """Raises ValueError unless all values are positive numbers of a kind.

    Args:
        kind: int or float.
        most: the largest value.
        **values: {name: value}.
    """
    allowed = (int,) if kind is int else (int, float)
    for name, value in values.items():
        fits = isinstance(value, allowed) and not isinstance(value, bool)
        # Which NaN is not, either.
        if not (fits and 0 < value <= most):
            what = "integer" if kind is int else "number"
            raise ValueError(
                f"`{name}` must be a positive {what}, at most {most:.12g}. "
                f"Received: {name}={value!r}"
            )


def check_seed(**values):
    """Raises ValueError unless all values are integers of at least 0."""
    for name, value in values.items():
        if type(value) is not int or value < 0:
            raise ValueError(
                f"`{name}` must be a non-negative integer. Received: "
                f"{name}={value!r}"
            )


def _align(values, like):
    """[E] with as many dimensions as `like`."""
    return tf.reshape(values, [-1] + [1] * (len(like.shape) - 1))


def _inner_axes(values):
    """All axes but the first, that of the episodes."""
    return list(range(1, len(values.shape)))


def _dot(first, second):
    """Inner products [E] of two lists of tensors [E, ...]."""
    return sum(
        tf.reduce_sum(a * b, _inner_axes(a)) for a, b in zip(first, second)
    )
