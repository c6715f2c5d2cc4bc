"""Settings of a controller and of its training."""

import dataclasses

from lopt_tf import checks
from lopt_tf.autoloss import metadata, policy

ALGORITHMS = ("reinforce", "ppo")
_SHARE = (0.0, 1.0)
_BOUNDS = {
    "hidden": policy.BOUNDS["hidden"],
    "logit_scale": policy.BOUNDS["logit_scale"],
    "learning_rate": (checks.POSITIVE, 1e3),
    "episodes": (1, 10**9),
    "parallel": (1, 65_536),
    "final_scale": (-1e12, 1e12),
    "advantage_clip": (checks.POSITIVE, 1e12),
    "baseline_decay": _SHARE,
    "step_scale": (0.0, 1e6),
    "entropy_bonus": (0.0, 1e6),
    "collapse_after": (1, 10**9),
    "discount": _SHARE,
    "gae_lambda": _SHARE,
    "clip": (checks.POSITIVE, 1.0),
    "validate_every": (1, 10**9),
    # A thousand seeds of policies follow from each.
    "seed": (0, 2_000_000),
}


@dataclasses.dataclass(frozen=True)
class ControllerOptions:
    """Settings of a controller and of its training.

    Attributes:
        algorithm: "reinforce" or "ppo".
        features: names of `metadata.FEATURES`. Defaults to the one that
            every task has.
        hidden, activation, logit_scale: see `Policy`.
        learning_rate: of Adam, for the policy (and the value network).
        episodes: how many to train on.
        parallel: episodes side by side; "reinforce" updates once after them.
        final_scale: the final reward is this over the episode's result;
            positive if that is an error, negative if more is better.
        advantage_clip: bound of the final reward minus its baseline.
        baseline_decay: of the moving average of final rewards.
        step_scale: weight of the step rewards, from which alone "ppo" learns;
            0 for tasks without validations.
        entropy_bonus: weight of the policy's entropy.
        collapse_after: so many equal actions in a row are a collapse.
        discount, gae_lambda, clip: of "ppo".
        validate_every: rounds between validations.
        seed: of everything that is drawn.
    """

    algorithm: str = "reinforce"
    features: tuple = ("progress",)
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
        metadata.Features(self.features)
        checks.all_in_range(self, _BOUNDS)

    @property
    def rounds(self):
        """How often `parallel` episodes are run."""
        return -(-self.episodes // self.parallel)
