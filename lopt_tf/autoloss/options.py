"""Settings of a controller and its training, by task.

Features, networks, rewards and clipping are the published ones. What differs,
because many episodes run side by side and share one update: the learning rate
(published: 0.001, an update after each episode), the weight of the step rewards
in regression (published: 1; they pull the policy beyond the best final reward),
and the number of episodes in classification (published: up to 40,000).
"""

import dataclasses

from lopt_tf.autoloss import metadata

ALGORITHMS = ("reinforce", "ppo")


@dataclasses.dataclass(frozen=True)
class ControllerOptions:
    """Settings of a controller and of its training.

    Attributes:
        algorithm: "reinforce" or "ppo".
        features: names of `metadata.FEATURES`.
        hidden: width of the policy's hidden layer; 0 for a linear policy.
        activation: of the hidden layer.
        logit_scale: logits are divided by this.
        learning_rate: of Adam, for the policy (and the value network).
        episodes: how many to train on.
        parallel: episodes side by side; "reinforce" updates once after them.
        final_scale: the final reward is this over the episode's result.
        advantage_clip: bound of the final reward minus its baseline.
        baseline_decay: of the moving average of final rewards.
        step_scale: weight of the step rewards.
        entropy_bonus: weight of the policy's entropy.
        collapse_after: so many equal actions in a row are a collapse.
        discount, gae_lambda, clip: of "ppo".
        validate_every: rounds between validations.
        seed: of everything that is drawn.
    """

    algorithm: str = "reinforce"
    features: tuple = ()
    hidden: int = 16
    activation: str = "leaky_relu"
    logit_scale: float = 1.0
    learning_rate: float = 1e-3
    episodes: int = 400
    parallel: int = 16
    final_scale: float = 1.0
    advantage_clip: float = 20.0
    baseline_decay: float = 0.8
    step_scale: float = 1.0
    entropy_bonus: float = 0.0
    collapse_after: int = 500
    discount: float = 0.9
    gae_lambda: float = 0.95
    clip: float = 0.2
    validate_every: int = 2
    seed: int = 0

    def __post_init__(self):
        # JSON has lists only.
        object.__setattr__(self, "features", tuple(self.features))
        if self.algorithm not in ALGORITHMS:
            raise ValueError(
                f"Unknown algorithm {self.algorithm!r}. Known: "
                f"{', '.join(ALGORITHMS)}."
            )
        metadata.compose(self.features)
        for name in ("episodes", "parallel", "collapse_after"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"`{name}` must be at least 1. "
                    f"Received: {name}={getattr(self, name)}"
                )

    @property
    def rounds(self):
        """How often `parallel` episodes are run."""
        return -(-self.episodes // self.parallel)


_REGRESSION = ControllerOptions(
    features=("gap", "improvement", "level_20", "penalty", "magnitudes"),
    logit_scale=2.0,
    learning_rate=0.01,
    final_scale=20_000.0,
    step_scale=0.3,
    collapse_after=2000,
)
_CLASSIFICATION = ControllerOptions(
    features=(
        "gap",
        "improvement",
        "level_1",
        "penalty",
        "accuracy_gap",
        "relative_magnitudes",
    ),
    learning_rate=0.02,
    episodes=3200,
    parallel=64,
    final_scale=-1000.0,
    advantage_clip=5.0,
    baseline_decay=0.9,
    step_scale=0.1,
    collapse_after=500,
)
RECIPES = {"regression": _REGRESSION, "classification": _CLASSIFICATION}
_PPO = {"hidden": 32, "activation": "tanh", "entropy_bonus": 0.01}


def recipe(task, algorithm="reinforce", **changes):
    """The settings for a task by name, with changes.

    Raises:
        ValueError: for an unknown task or algorithm.
    """
    if task not in RECIPES:
        raise ValueError(f"Unknown task {task!r}. Known: {', '.join(RECIPES)}.")
    basis = _PPO if algorithm == "ppo" else {}
    return dataclasses.replace(
        RECIPES[task], **{**basis, "algorithm": algorithm, **changes}
    )
