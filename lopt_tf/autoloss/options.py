"""Settings of a controller and of its training."""

import dataclasses

from lopt_tf import checks
from lopt_tf.autoloss import metadata, policy

ALGORITHMS = ("reinforce", "ppo", "evolution")
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
    "restart_factor": (checks.POSITIVE, 1.0),
    "group": (1, 65_536),
    "exploration": _SHARE,
    "alternation": (0.0, 100.0),
    "first_share": (0.0, 0.999),
    "sigma": (checks.POSITIVE, 1e3),
    "discount": _SHARE,
    "gae_lambda": _SHARE,
    "clip": (checks.POSITIVE, 1.0),
    "validate_every": (1, 10**9),
    "validation_starts": (1, 65_536),
    # A thousand seeds of policies follow from each.
    "seed": (0, 2_000_000),
}


@dataclasses.dataclass(frozen=True)
class ControllerOptions:
    """Settings of a controller and of its training.

    Attributes:
        algorithm: "reinforce", "ppo" or "evolution".
        features: names of `metadata.FEATURES`. Defaults to the one that
            every task has.
        hidden, activation, logit_scale: see `Policy`.
        learning_rate: of Adam, for the policy (and the value network).
        episodes: how many to train on; the last round is a whole one.
        parallel: episodes side by side; "reinforce" updates once after them.
        final_scale: the final reward is this over the episode's result;
            positive if that is an error, negative if more is better.
        reward: the name of one of the task's `details`, such as "mean score":
            the final reward is this detail times `final_scale` instead.
            Defaults to "", the result.
        advantage_clip: bound of the final reward minus its baseline.
        baseline_decay: of the moving average of final rewards.
        step_scale: weight of the step rewards, from which alone "ppo" learns;
            0 for tasks without validations.
        step_floor: step rewards are instead the drop of the result's logarithm
            over its distance to this number, see `rewards.drop_reward`, for
            results above 0, of which less is better. Defaults to None: they
            are not.
        entropy_bonus: weight of the policy's entropy.
        collapse_after: so many equal actions in a row are a collapse.
            Actions that `exploration` alone has brought about do not count.
        restart_factor: a controller that replaces a collapsed one learns with
            this times the learning rate. Defaults to 1.
        group: episodes of a round that share a start. With several,
            "reinforce" compares an episode with the others of its group, in
            units of their deviation (see `reinforce.of_groups`), instead of
            with the moving average. Defaults to 1.
        exploration: share of actions that are drawn with equal chances while
            a policy is trained; "ppo" has its own. Defaults to 0.
        alternation: a linear policy begins without any weights but this, on
            the feature "last_action": it tends to take two actions by turns.
            Defaults to 0: it begins at random, with "evolution" with equal
            chances.
        first_share: a linear policy begins without any weights but biases: it
            takes the first action with this chance, the others alike. Defaults
            to 0: as if it were not there.
        even_draws: of "evolution": the draws of an episode's actions are spread
            evenly (see `schedules.spread_draws`), not independent. The
            controller keeps to it later. Defaults to False.
        sigma: of "evolution": the deviation of what is added to weights.
        discount, gae_lambda, clip: of "ppo".
        validate_every: rounds between validations.
        validation_starts: of each. Defaults to 16.
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
    reward: str = ""
    advantage_clip: float = 20.0
    baseline_decay: float = 0.8
    step_scale: float = 1.0
    step_floor: float | None = None
    entropy_bonus: float = 0.0
    collapse_after: int = 500
    restart_factor: float = 1.0
    group: int = 1
    exploration: float = 0.0
    alternation: float = 0.0
    first_share: float = 0.0
    even_draws: bool = False
    sigma: float = 0.5
    discount: float = 0.9
    gae_lambda: float = 0.95
    clip: float = 0.2
    validate_every: int = 2
    validation_starts: int = 16
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
        self._check_parts()

    def _check_parts(self):
        """Raises ValueError for settings that do not go together."""
        if self.parallel % self.episodes_together:
            raise ValueError(
                f"`parallel` must be a multiple of {self.episodes_together}, "
                "the episodes that share a start. Received: "
                f"parallel={self.parallel}"
            )
        linear = self.hidden == 0 and "last_action" in self.features
        if self.alternation and not linear:
            raise ValueError(
                "`alternation` is for linear policies (`hidden=0`) with the "
                "feature 'last_action'."
            )
        if self.first_share and (self.hidden or self.alternation):
            raise ValueError(
                "`first_share` is for linear policies (`hidden=0`) without "
                f"`alternation`. Received: hidden={self.hidden}, alternation="
                f"{self.alternation:g}"
            )
        if not isinstance(self.even_draws, bool):
            raise ValueError(
                "`even_draws` must be True or False. Received: even_draws="
                f"{self.even_draws!r}"
            )
        if self.even_draws and self.algorithm != "evolution":
            raise ValueError(
                "`even_draws` is for algorithm='evolution': others learn from "
                "the chances of single actions, which must be independent. "
                f"Received: algorithm={self.algorithm!r}"
            )
        if self.algorithm == "ppo" and (self.reward or not self.step_scale):
            raise ValueError(
                "'ppo' learns from step rewards alone: `step_scale` must be "
                "above 0, and `reward` has no effect. Received: step_scale="
                f"{self.step_scale:g}, reward={self.reward!r}"
            )

    @property
    def episodes_together(self):
        """How many episodes of a round share a start."""
        return 2 if self.algorithm == "evolution" else self.group

    @property
    def rounds(self):
        """How often `parallel` episodes are run."""
        return -(-self.episodes // self.parallel)
