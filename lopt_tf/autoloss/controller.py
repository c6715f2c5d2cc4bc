"""A trained schedule as a file: policy, features, actions."""

import pathlib

from lopt_tf import checkpointing, checks
from lopt_tf.autoloss import metadata, named_arrays, policy, schedules

_KIND = "lopt_tf.schedule"
# What a file describes, by examples of the types.
_CONFIG = {
    "task": "",
    "actions": ("",),
    "features": ("",),
    "policy_config": {},
    "even_draws": False,
}
_POLICY_CONFIG = {
    "num_actions": 2,
    "hidden": 16,
    "activation": "",
    "logit_scale": 1.0,
    "seed": 0,
}


class ScheduleController:
    """A policy with the features that it looks at.

    Args:
        task: the task's name.
        actions: the names of the actions.
        features: names of `metadata.FEATURES`.
        policy_config: arguments of `Policy`.
        even_draws: as of `schedules.PolicySchedule`. Defaults to False.
    """

    def __init__(
        self, task, actions, features, policy_config, even_draws=False
    ):
        self.task = task
        self.actions = tuple(actions)
        self.features = tuple(features)
        self.even_draws = even_draws
        self.policy = policy.Policy(**policy_config)
        self.policy.build([None, len(self.features)])
        # Of the training that it comes from; set by `load`.
        self.facts = {}

    @classmethod
    def untrained(cls, task, actions, options, seed=None):
        """A controller to train, with the policy that options ask for.

        Args:
            task: the task's name, or any name.
            actions: the names of the actions, or of a model's objectives.
            options: `ControllerOptions`.
            seed: of the policy's weights. Defaults to that of the options.
        """
        made = cls(
            task,
            actions,
            options.features,
            {
                "num_actions": len(actions),
                "hidden": options.hidden,
                "activation": options.activation,
                "logit_scale": options.logit_scale,
                "seed": options.seed if seed is None else seed,
            },
            options.even_draws,
        )
        if options.alternation:
            place = options.features.index("last_action")
            made.policy.alternate(place, options.alternation)
        elif options.first_share:
            made.policy.prefer_first(options.first_share)
        elif options.algorithm == "evolution" and not options.hidden:
            # Its noise tells actions apart; gradients need a habit for that.
            made.policy.even()
        return made

    def schedule(self, actions=None):
        """The `PolicySchedule` that samples from the policy.

        Args:
            actions: {name of an action: what it is called elsewhere}, for
                those with other names there. Defaults to `None`.
        """
        renamed = dict(actions or {})
        unknown = [name for name in renamed if name not in self.actions]
        if unknown:
            raise ValueError(
                f"The controller has no action {unknown[0]!r}. It decides "
                f"between {', '.join(self.actions)}."
            )
        names = tuple(renamed.get(name, name) for name in self.actions)
        if len({*names}) < len(names):
            raise ValueError(
                "Every action of a controller needs a name of its own. "
                f"Received: {', '.join(names)}"
            )
        features = metadata.Features(self.features)
        return schedules.PolicySchedule(
            self.policy, features, names, self.even_draws
        )

    def check_fits(self, task):
        """Raises ValueError if a task has other actions."""
        if tuple(task.actions) != self.actions:
            raise ValueError(
                f"This controller decides between {', '.join(self.actions)} "
                f"({self.task}); {task.name} has {', '.join(task.actions)}."
            )

    def remarks(self, task):
        """Lines of text on what it was not trained with; often none."""
        trained = self.facts.get("task", {})
        differing = ", ".join(
            f"{name} {trained[name]} instead of {value}"
            for name, value in task.get_config().items()
            if name != "role" and trained.get(name, value) != value
        )
        if not differing:
            return []
        return [f"note: the controller was trained with {differing}."]

    def identity(self):
        """A text that tells it from controllers that act differently."""
        weights = {name: x.tolist() for name, x in self.weights().items()}
        config = self.policy.get_config()
        told = [self.features, config, weights]
        if self.even_draws:
            told.append("even draws")
        return checkpointing.digest(told)

    def weights(self):
        """The policy's weights as {name: NumPy array}."""
        return named_arrays.read("policy", self.policy.variables)

    def set_weights(self, arrays):
        """Takes weights that `weights` returned."""
        named_arrays.assign("policy", self.policy.variables, arrays)

    def save(self, path, weights=None, **more):
        """Writes one file of arrays and JSON.

        Args:
            path: conventionally "*.npz".
            weights: what `weights` returned; the present ones if None.
            **more: JSON-ready facts to keep with it.

        Raises:
            ValueError: if weights are not finite, or not the policy's;
                nothing is written.
        """
        weights = weights or self.weights()
        wrong = checks.wrong_arrays(weights, self._shapes())
        if wrong:
            raise ValueError(
                f"{path} was not written: its weights would not be of use "
                f"({checkpointing.some(wrong)})."
            )
        config = {
            "task": self.task,
            "actions": list(self.actions),
            "features": list(self.features),
            "policy_config": self.policy.get_config(),
        }
        if self.even_draws:
            # Left out else, so that earlier versions can read the file.
            config["even_draws"] = True
        facts = {"config": config, **more}
        checkpointing.save(path, _KIND, weights, facts)

    def _shapes(self):
        return named_arrays.shapes("policy", self.policy.variables)

    @classmethod
    def load(cls, path):
        """Reads a file that `save` wrote.

        Raises:
            CheckpointError: if it is missing, damaged or something else.
        """
        arrays, found = checkpointing.load(path, _KIND)
        config, facts = found.get("config"), found.get("training", {})
        if isinstance(config, dict):
            config = {"even_draws": False, **config}
        _check_config(path, config, facts)
        try:
            metadata.Features(config["features"])
            controller = cls(**config)
        except (ValueError, TypeError) as error:
            raise checkpointing.CheckpointError(
                f"{path} does not describe a controller ({error}). Name "
                "another file."
            ) from error
        checkpointing.check_arrays(path, arrays, controller._shapes())
        controller.set_weights(arrays)
        controller.facts = facts
        return controller


def _check_config(path, config, facts):
    """Raises CheckpointError unless a file's metadata can be a controller's."""
    nested = isinstance(config, dict) and config.get("policy_config")
    if not (
        isinstance(nested, dict)
        and isinstance(facts, dict)
        and {*_CONFIG} <= {*config}
        and nested.get("num_actions") == len(config["actions"] or ())
    ):
        raise checkpointing.CheckpointError(
            f"{path} does not describe a controller. Name another file."
        )
    checkpointing.check_known(path, config, _CONFIG)
    # A policy without a seed was drawn at random.
    nested = {n: x for n, x in nested.items() if (n, x) != ("seed", None)}
    checkpointing.check_known(path, nested, _POLICY_CONFIG)


def best_path(folder):
    """Where a training in a folder puts its best controller.

    Raises:
        ValueError: if it has one, but has not come to a validation.
    """
    folder = pathlib.Path(folder)
    best, last = folder / "best.npz", folder / "controller.npz"
    if last.exists() and not best.exists():
        raise ValueError(
            f"There is no file {best}: the training has not come to a "
            f"validation yet. Resume it, or name the controller {last}."
        )
    return best
