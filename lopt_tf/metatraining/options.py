"""The settings of a meta-training, and what follows from them alone."""

import dataclasses

from lopt_tf import checks
from lopt_tf.metatraining import curriculum as curriculum_lib
from lopt_tf.metatraining import estimators, meta_optimizers
from lopt_tf.metatraining import objective as objective_lib
from problems import wrappers

# Meta-optimizers take squares, of 32 bits.
_LARGEST = 1e18
_BOUNDS = {
    "meta_updates": (1, 10**9),
    "instances": (1, 65_536),
    "segment_length": (1, 10**5),
    "truncation": (0, 10**7),
    "parallel_tasks": (1, 10**4),
    "meta_learning_rate": (0.0, 1e3),
    "meta_learning_rate_decay": (0.0, 1.0),
    "meta_weight_decay": (0.0, 1e3),
    "gradient_clip": (checks.POSITIVE, _LARGEST),
    "instance_clip": (0.0, _LARGEST),
    "l2_reg": (0.0, 1e6),
    "perturbation": (checks.POSITIVE, 1e6),
    "objective_epsilon": (checks.POSITIVE, 1e3),
    "obj_train_max_multiplier": (0.0, _LARGEST),
    "min_parameter_scale": (checks.POSITIVE, _LARGEST),
    "max_parameter_scale": (checks.POSITIVE, _LARGEST),
    "weight_average_decay": (0.0, 1.0),
    "seed": (0, checks.LARGEST_SEED),
}


@dataclasses.dataclass(frozen=True)
class TrainingOptions:
    """Settings of a meta-training; the defaults are quick, not published.

    Attributes:
        meta_updates: how many updates of the weights.
        estimator: "bptt" (truncated backpropagation), "full" (through whole
            inner runs: for short ones), "es" (evolution strategies on each
            truncation) or "pes" (persistent evolution strategies).
        instances: problem instances side by side, over all replicas (pairs,
            with "es" and "pes").
        segment_length: inner steps in one compiled call.
        truncation: inner steps after which a gradient is cut, rounded to
            whole segments. 0 means, with
            "bptt": only between partial unrolls;
            "es" and "pes": after each segment (they cut nowhere else, but
            at the end of a run);
            "full" (which takes no other value): never.
        parallel_tasks: problems under way at a time, updated in turn.
        staggered_starts: the first run on each of these places ends at a
            random one of its partial unrolls, so that later runs do not begin
            together: from then on all ages are seen at any time. (The first
            runs themselves begin together, and fresh; all instances of a
            problem are of one age.) Not with "full", where a run is one
            unroll. Not in the paper.
        meta_optimizer: "adam", "adamw" or "rmsprop".
        meta_learning_rate: its learning rate.
        meta_learning_rate_decay: the learning rate falls linearly to this
            share of itself over `meta_updates`.
        meta_weight_decay: with "adamw" alone, which needs it: each
            meta-update takes the learning rate times this share of the way
            back to the weights that training began with, given or drawn
            (`l2_reg` pulls to zero). Not in the paper.
        gradient_clip: each element of a meta-gradient is clipped to this.
        instance_clip: the meta-gradient of each instance (each pair) is
            clipped to this norm before they are averaged; 0 for no limit.
        l2_reg: weight of half the squared norm of the weights.
        perturbation: standard deviation of the weights' perturbations (es,
            pes).
        use_second_derivatives: through the problems' gradients (bptt,
            full).
        use_log_objective: average logarithms of the objectives.
        use_minibatch_objective: take the loss that each inner step sees on
            its own minibatch for the objective, where there are minibatches;
            up to twice as fast, and noisy (es, pes). Not in the paper.
        use_numerator_epsilon: see `MetaObjective`.
        objective_epsilon: epsilon in log(l / l0 + epsilon). A smaller value
            rewards converging further. The paper uses 1e-6.
        obj_train_max_multiplier: an objective beyond this multiple of its
            start ends an inner run; 0 for no limit. With "es" and "pes" it
            counts as this multiple, and 0 stands for 1e6.
        curriculum: how long to unroll.
        min_parameter_scale, max_parameter_scale: every instance trains
            parameters in a unit of its own: log-uniform between these, see
            `problems.Reparameterized`. Default to `1`: the problem's unit.
        trained_weights: names of the meta-parameters that are trained; the
            others stay as they are given. Defaults to `()`: all.
        weight_average_decay: what is validated and saved is an exponential
            moving average of the weights, of that decay at each meta-update
            (before 1 / (1 - decay) updates: their plain mean). Defaults to
            `0`: the weights themselves. Not in the paper.
        seed: of everything that is drawn.
    """

    meta_updates: int = 1000
    estimator: str = "pes"
    instances: int = 32
    segment_length: int = 20
    truncation: int = 0
    parallel_tasks: int = 8
    staggered_starts: bool = False
    meta_optimizer: str = "adam"
    meta_learning_rate: float = 3e-3
    meta_learning_rate_decay: float = 1.0
    meta_weight_decay: float = 0.0
    gradient_clip: float = 1e4
    instance_clip: float = 0.0
    l2_reg: float = 0.0
    perturbation: float = 0.02
    use_second_derivatives: bool = True
    use_log_objective: bool = True
    use_minibatch_objective: bool = False
    use_numerator_epsilon: bool = False
    objective_epsilon: float = 1e-6
    obj_train_max_multiplier: float = 0.0
    curriculum: curriculum_lib.Curriculum = curriculum_lib.Curriculum()
    min_parameter_scale: float = 1.0
    max_parameter_scale: float = 1.0
    trained_weights: tuple = ()
    weight_average_decay: float = 0.0
    seed: int = 0

    def __post_init__(self):
        _check_known("estimator", self.estimator, estimators.ESTIMATORS)
        known = meta_optimizers.OPTIMIZERS
        _check_known("meta_optimizer", self.meta_optimizer, known)
        checks.all_in_range(self, _BOUNDS)
        if (self.meta_optimizer == "adamw") != (self.meta_weight_decay > 0):
            raise ValueError(
                "A positive `meta_weight_decay` goes with the meta-optimizer "
                '"adamw", and with no other. Received: '
                f"meta_optimizer={self.meta_optimizer!r}, "
                f"meta_weight_decay={self.meta_weight_decay}"
            )
        if 0 < self.obj_train_max_multiplier < 1:
            raise ValueError(
                "`obj_train_max_multiplier` must be 0 or at least 1: every "
                "run would end at its start. Received: "
                f"obj_train_max_multiplier={self.obj_train_max_multiplier}"
            )
        if self.estimator == "full" and self.truncation:
            raise ValueError(
                'The estimator "full" cuts nothing. Received: '
                f"truncation={self.truncation}"
            )
        if self.estimator == "full" and self.staggered_starts:
            raise ValueError(
                "`staggered_starts` cuts runs between partial unrolls, and "
                'with the estimator "full" there is one. Received: '
                f"staggered_starts={self.staggered_starts}"
            )
        if self.use_minibatch_objective and (
            estimators.ESTIMATORS[self.estimator].copies == 1
        ):
            raise ValueError(
                "`use_minibatch_objective` is for the estimators es and pes. "
                f"Received: estimator={self.estimator!r}"
            )
        if self.weight_average_decay == 1:
            raise ValueError(
                "`weight_average_decay` must be at least 0 and below 1. "
                f"Received: weight_average_decay={self.weight_average_decay}"
            )
        low, high = self.min_parameter_scale, self.max_parameter_scale
        if low > high:
            raise ValueError(
                "`min_parameter_scale` must be positive and at most "
                "`max_parameter_scale`. Received: "
                f"min_parameter_scale={low}, max_parameter_scale={high}"
            )
        if 0 < self.curriculum.min_steps < self.segment_length:
            raise ValueError(
                "`min_steps` must be at least one segment. Received: "
                f"min_steps={self.curriculum.min_steps}, "
                f"segment_length={self.segment_length}"
            )

    def plan(self, rng):
        """Segment counts of the meta-updates of one fresh start."""
        plan = self.curriculum.plan(rng, self.segment_length)
        if self.estimator != "bptt":
            # Nothing but truncations cuts: a remainder of each partial unroll
            # would count as much as a whole truncation.
            plan = [sum(plan)]
        if self.truncation or estimators.ESTIMATORS[self.estimator].copies > 1:
            pieces = max(1, round(self.truncation / self.segment_length))
            plan = curriculum_lib.cut(plan, pieces)
        return plan

    def scaled(self, problem):
        """The problem with a unit of its own for every instance, if any."""
        bounds = self.min_parameter_scale, self.max_parameter_scale
        if bounds == (1, 1):
            return problem
        return wrappers.Reparameterized(problem, bounds)

    def objective(self):
        """The meta-objective."""
        return objective_lib.MetaObjective(
            self.use_log_objective,
            self.use_numerator_epsilon,
            epsilon=self.objective_epsilon,
        )

    def learning_rate_factor(self, update):
        """The share of the meta learning rate at a meta-update."""
        done = min(update / self.meta_updates, 1.0)
        return 1 - done * (1 - self.meta_learning_rate_decay)


def _check_known(name, value, known):
    if value not in known:
        raise ValueError(
            f"Unknown {name} {value!r}. Known: {', '.join(sorted(known))}."
        )
