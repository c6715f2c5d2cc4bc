"""The interface of a task that asks, step by step, what to optimise next."""

import typing

# Metadata with a meaning (see `AlternatingTask`), by what they must be.
BOOLEANS = ("finished", "validated")
PER_ACTION = ("losses", "gradient_magnitudes")
NUMBERS = (
    *("improvement", "mean_improvement", "gradient_cosine"),
    *("train_loss", "valid_loss", "train_accuracy", "valid_accuracy"),
)


class DataMissing(ValueError):
    """Data of a task are not there: the message says how to get them."""


class Feedback(typing.NamedTuple):
    """A rule that a task suggests: an action's chance from one of its metadata.

    The chance of the first of two actions is sigmoid(-slope (value - level)).

    Attributes:
        value: the name of the metadata, [E].
        slopes, levels: what to choose from.
    """

    value: str
    slopes: tuple
    levels: tuple


class Task:
    """A training run as an episode: at every step, one of several actions.

    An action is a loss and the variables that it updates. `lopt_tf.autoloss`
    checks the attributes once, when it makes episodes of a task.

    Attributes:
        name: what the task is called in commands and files.
        actions: the names of the actions: at least two, all different.
        combines_actions: whether several actions can be taken in one step, as
            a weighted sum of their losses. Defaults to False: one at a time.
        loss_weights: the weights that the losses have already, one for each
            action; labels of weighted sums count them. Defaults to ones.
        max_steps: steps after which an episode has finished, at least 1.
        period: steps between two validations, at least 1. Defaults to 1.
        result_name: what an episode's result measures.
        higher_is_better: of the result. Defaults to False.
        coin_parts: chances of coins are tried in these parts, when baselines
            are tuned. Defaults to None, which takes the grid's own.
        ratios: steps of each action, a tuple of such, to try then. Defaults to
            None, which takes the grid's own.
        curricula: each action's share of the episode, a tuple of such, to try
            in a row, from the last action to the first. Defaults to (): none.
        alone_settings: settings of a `ModelTask`, each as pairs (name, number),
            to try with the first action alone, in their order. Defaults to ():
            none.
        feedback: a `Feedback` to tune beside them, if there are two actions.
            Defaults to None.
        data_digest: a text that tells data in files apart, which `get_config`
            only names. Nothing that was begun goes on with others. Defaults to
            None: no such data.
    """

    name = None
    actions = ()
    combines_actions = False
    max_steps = None
    period = 1
    result_name = None
    higher_is_better = False
    coin_parts = None
    ratios = None
    curricula = ()
    alone_settings = ()
    feedback = None
    data_digest = None

    @property
    def loss_weights(self):
        return (1.0,) * len(self.actions)

    def get_config(self):
        """The constructor's arguments, ready for JSON."""
        raise NotImplementedError

    def keep_beside(self, folder):
        """Told once, before episodes: where to keep what takes time to make."""

    def remarks(self):
        """Lines of text on its data that a program says before it runs."""
        return []

    def sanity_rows(self):
        """Rows of a table: what the result is of things that are known."""
        return []

    def groups(self, seeds):
        """Labels of starts whose results are looked at apart, or None."""
        return None

    def details(self, state, split=None):
        """More that is known of episodes than the result, {name: [E]}.

        Args:
            state: of the episodes.
            split: "test" adds what takes time. Defaults to `None`.
        """
        return {}

    def samples(self, state, count):
        """Images to look at, [E, count, height, width] in -1..1, or None."""
        return None


class AlternatingTask(Task):
    """A task of pure TensorFlow functions, for many episodes at once.

    `step` and `result` compile under XLA, `reset` runs outside. Every tensor of
    metadata and of action weights begins with an axis of E episodes, and all
    episodes are at the same step. An episode that has finished stays as it is.
    `step` returns structures, shapes and types as it is given.

    Metadata are what a schedule may look at, {name: tensor}. Required is
    "finished" [E], booleans. The others are a task's own choice, but features
    and rewards need some of them; these have a meaning:

        validated [E]: whether the step ended with a validation (boolean).
        improvement [E]: of the validation loss, at the last validation.
        mean_improvement [E]: the moving mean of its absolute values.
        train_loss, valid_loss, train_accuracy, valid_accuracy [E].
        losses [E, actions]: the losses of the actions.
        gradient_magnitudes [E, actions]: of their gradients.
        gradient_cosine [E]: of the angle between the first two gradients.

    "progress", "last_action" and "run_length" come from the episodes and
    replace what a task may call so; see `lopt_tf.autoloss.episodes.Episodes`.
    """

    def reset(self, seeds):
        """Begins episodes: (nested structure of tensors, metadata).

        Args:
            seeds: E integers; a seed stands for an initial model.
        """
        raise NotImplementedError

    def step(self, state, action_weights):
        """One update of the model of each episode: (next state, metadata).

        Args:
            state: as returned by `reset` or `step`.
            action_weights: [E, actions]. A row of zeros and a one takes that
                action; if the task `combines_actions`, any row takes the
                weighted sum.
        """
        raise NotImplementedError

    def result(self, state, split):
        """How good the kept models are on "valid" or "test", a tensor [E]."""
        raise NotImplementedError


class ModelTask(Task):
    """A task that trains Keras models, one episode after the other.

    There is one model, an `lopt_tf.autoloss.AlternatingModel` whose objectives
    are the actions: `build` makes it once, whatever the number of episodes.
    Everything that an episode depends on is its seed and the task's setting.

    Every `period` steps the model is validated. An episode ends after
    `max_steps` steps, or after `patience` validations in a row none of which
    was better than the best before; its result is that of the model with the
    best validation.

    Besides those that every model tells (`lopt_tf.autoloss.schedule_state`),
    the metadata are "valid_NAME" for each of `measures`, the improvements of
    the result, positive if it got better, and what `metadata` returns.

    A controller's reward may be the "mean score", "last score" or "best score"
    of an episode: of the result at its validations.

    Attributes:
        measures: names of what `measure` returns; `result_name` is one.
        tells: names of what `metadata` returns. Defaults to none.
        setting: what distinguishes tasks with the same model, such as the
            split of the data to train on; see `setting_of` for settings that
            differ from episode to episode. Defaults to `None`.
        patience: validations without improvement that end an episode; None
            for no such end. Defaults to `None`.
        hold: how often the chosen objective makes its updates in one step.
            Defaults to 1.
        own_batches: whether each objective has data of its own; see `batch`.
            Defaults to False.
        looks_at: names of what `metadata` reads of the model's own metadata,
            where these cost something: losses, average_losses,
            gradient_magnitudes, train_loss. Defaults to none.
        made: what the model's episodes keep here; copies of a task have none.
    """

    measures = ()
    hold = 1
    own_batches = False
    tells = ()
    looks_at = ()
    made = None
    setting = None
    patience = None

    def __getstate__(self):
        found = dict(self.__dict__)
        found.pop("made", None)
        return found

    def build(self):
        """The model, built and compiled with its optimizers."""
        raise NotImplementedError

    def setting_of(self, seed):
        """The setting of an episode, a function of its seed alone.

        To train on a distribution of settings, draw from it:
        `np.random.default_rng([seed, 1])`. Episodes of a group have the same
        seed, so that they share it. Defaults to `setting`.
        """
        return self.setting

    def start(self, model, setting, seed):
        """Gives the model its initial weights, and what else a setting sets.

        Optimizers, random numbers and the schedule have begun anew before. A
        learning rate may differ: `model.optimizers[name].learning_rate = x`.

        Args:
            model: what `build` returned.
            setting: the episode's, see `setting_of`.
            seed: of the episode.
        """
        raise NotImplementedError

    def batch(self, setting, seed, number):
        """The batch of an update: a function of its arguments alone.

        Args:
            setting: the episode's, see `setting_of`.
            seed: of the episode.
            number: updates that the episode made before, of all objectives.

        With `own_batches` it is `batch(setting, seed, number, action)`: the
        action's place, and the updates that this one made before.
        """
        raise NotImplementedError

    def measure(self, model, split):
        """{name: float} of "valid" or "test" data, for each of `measures`."""
        raise NotImplementedError

    def result(self, model, split):
        """How good a kept model is, a float: `measure` unless it says more.

        Of noisy measures the best is too high; a task may measure afresh.
        """
        return self.measure(model, split)[self.result_name]

    def metadata(self, model, found):
        """Metadata of its own, {name: tensor [1, ...]} for each of `tells`.

        It is compiled with the schedule.

        Args:
            model: the model, in the middle of an episode.
            found: the metadata that every `ModelTask` has; see `looks_at`.
        """
        return {}

    def details_of(self, model, curve, split=None):
        """`details` of one episode, {name: float}.

        Args:
            model: the kept model if `split` is "test"; any model otherwise.
            curve: the validations, pairs of updates before and result.
            split: as for `details`.
        """
        return {}

    def samples_of(self, model, count):
        """`samples` of a kept model, [count, height, width, ...], or None."""
        return None
