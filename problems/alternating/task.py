"""The interface of a task that asks, step by step, what to optimise next."""


class AlternatingTask:
    """A training run as an episode: at every step, one of several actions.

    All methods are pure TensorFlow functions that compile under XLA, for E
    episodes at once: every tensor of a state, of metadata and of a choice
    begins with an axis of E, and all episodes are at the same step. An episode
    that has finished stays as it is.

    An action is a loss and the variables that it updates. A choice is given as
    weights [E, number of actions]: a row of zeros and a one takes that action;
    where actions can be taken together, any row takes the weighted sum of the
    losses.

    Attributes:
        name: what the task is called in commands and files.
        actions: the names of the actions.
        max_steps: steps after which an episode has finished.
        period: steps between two validations.
        result_name: what `result` measures.
        higher_is_better: of `result`.
    """

    name = None
    actions = ()
    max_steps = None
    period = 1
    result_name = None
    higher_is_better = False

    def reset(self, seeds):
        """Begins episodes; runs outside of compiled functions.

        Args:
            seeds: E integers; a seed stands for an initial model.

        Returns:
            state: a nested structure of tensors.
            metadata: {name: tensor [E] or [E, number of actions]}, what a
                schedule may look at. "finished" [E], booleans, is always
                there; see `lopt_tf.autoloss.metadata` for the others.
        """
        raise NotImplementedError

    def step(self, state, choice):
        """One update of the model of each episode.

        Args:
            state: as returned by `reset` or `step`.
            choice: weights of the actions [E, number of actions].

        Returns:
            The next state, and metadata as `reset` returns them.
        """
        raise NotImplementedError

    def result(self, state, split):
        """How good the models are that early stopping has kept.

        Args:
            state: as returned by `step`.
            split: "valid" or "test".

        Returns:
            A tensor [E].
        """
        raise NotImplementedError

    def get_config(self):
        """The constructor's arguments, ready for JSON."""
        raise NotImplementedError
