"""What improves a policy: the interface of all learners."""

from lopt_tf.autoloss import named_arrays


class Learner:
    """Updates a policy from the records of its episodes.

    A round is: `before_round`, `epsilon`, episodes in segments with
    `after_segment` after each, then `after_round`.

    Args:
        policy: a `Policy`.
        options: `ControllerOptions`.
        period: steps between validations. Defaults to `1`.

    Attributes:
        segment_length: the steps of a segment; None if they do not matter.
        variables: a list: what `state` keeps besides the policy.
        remembered: names of attributes, numbers, that it keeps, too.
    """

    segment_length = None
    variables = ()
    remembered = ()

    def __init__(self, policy, options, period=1):
        self.policy = policy
        self.options = options
        self.period = period

    def schedule(self, controller):
        """What plays the episodes of a round: with a variable `epsilon`."""
        return controller.schedule()

    def before_round(self, number):
        """Begins the round of a number."""

    def epsilon(self, done):
        """The share of random actions after a share of the training."""
        return self.options.exploration

    def after_segment(self, records):
        """Takes the next `Records` of the round, of NumPy arrays."""
        raise NotImplementedError

    def after_round(self, final_rewards):
        """Ends a round; returns {name: number, or None} to report.

        Args:
            final_rewards: of the episodes [E].
        """
        raise NotImplementedError

    def round_facts(self):
        """JSON-ready: what `resume_round` needs besides the records."""
        return {}

    def resume_round(self, records, facts):
        """Takes up a round after `before_round`.

        Args:
            records: those that `after_segment` was given, a list.
            facts: what `round_facts` returned after the last of them.
        """
        raise NotImplementedError

    def forget(self):
        """Drops the records of a round that was interrupted."""
        raise NotImplementedError

    def state(self):
        """({name: array}, JSON-ready dictionary) between two rounds."""
        arrays = named_arrays.read("learner", self.variables)
        return arrays, {name: getattr(self, name) for name in self.remembered}

    def restore(self, arrays, metadata):
        """Resumes from what `state` returned."""
        self.forget()
        named_arrays.assign("learner", self.variables, arrays)
        for name in self.remembered:
            setattr(self, name, metadata[name])
