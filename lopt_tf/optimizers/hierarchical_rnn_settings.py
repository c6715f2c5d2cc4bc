"""The hierarchical RNN's settings, and the meta-parameters they call for."""

import dataclasses

import numpy as np

from lopt_tf import checks
from lopt_tf.optimizers import cells, lower_bound, update_rule


@dataclasses.dataclass(frozen=True)
class HierarchicalRNNSettings(update_rule.UpdateRule):
    """The settings of `HierarchicalRNNRule`, checked.

    They are the arguments of `lopt_tf.HierarchicalRNN`, which documents them.
    """

    level_sizes: tuple[int, ...] = (10, 20, 20)
    use_attention: bool = False
    num_gradient_scales: int = 4
    use_grad_products: bool = True
    use_log_means_squared: bool = True
    use_relative_lr: bool = True
    use_problem_lr_mean: bool = True
    use_extreme_indicator: bool = False
    use_lr_shortcut: bool = False
    use_gradient_shortcut: bool = True
    use_multiple_scale_decays: bool = False
    dynamic_output_scale: bool = True
    learnable_decay: bool = True
    learnable_inp_decay: bool = True
    learnable_rnn_init: bool = True
    zero_init_lr_weights: bool = True
    init_lr_range: tuple[float, float] = (1e-6, 1e-2)
    min_log_lr: float = lower_bound.SMALLEST_LOG_LR
    max_log_lr: float = 33.0
    use_parameter_scale: bool = False
    step_unit: str | None = None
    rest_without_gradient: bool = False
    bound_reference: str = "first"

    def __post_init__(self):
        super().__post_init__()
        # As a command line says that there is none.
        object.__setattr__(self, "step_unit", self.step_unit or None)
        update_rule.check_init_lr_range(self.init_lr_range)
        sizes = self.level_sizes
        if not 1 <= len(sizes) <= 3 or min(sizes, default=0) < 1:
            raise ValueError(
                "Argument `level_sizes` must hold 1, 2 or 3 positive sizes "
                "(parameter, tensor and global RNN). "
                f"Received: level_sizes={sizes}"
            )
        # A file, too, may ask for networks that fit into no memory.
        checks.in_range("level_sizes", max(sizes), 1, checks.LARGEST_LAYER)
        checks.in_range("num_gradient_scales", self.num_gradient_scales, 1, 64)
        checks.in_range("max_log_lr", self.max_log_lr, -1e3, 1e3)
        if not lower_bound.SMALLEST_LOG_LR <= self.min_log_lr < self.max_log_lr:
            raise ValueError(
                "Argument `min_log_lr` must be at least -33, and below "
                "`max_log_lr`. Received: "
                f"min_log_lr={self.min_log_lr}, max_log_lr={self.max_log_lr}"
            )
        if self.step_unit not in (None, "start", "role"):
            raise ValueError(
                "Argument `step_unit` must be None, 'start' or 'role'. "
                f"Received: step_unit={self.step_unit!r}"
            )
        if self.bound_reference not in ("first", "least"):
            raise ValueError(
                "Argument `bound_reference` must be 'first' or 'least'. "
                f"Received: bound_reference={self.bound_reference!r}"
            )
        if not self.dynamic_output_scale:
            self._check_needs_no_learning_rates()

    def _check_needs_no_learning_rates(self):
        needs_rates = {
            "use_relative_lr=True": self.use_relative_lr,
            "use_extreme_indicator=True": self.use_extreme_indicator,
            "use_lr_shortcut=True": self.use_lr_shortcut,
            "use_parameter_scale=True": self.use_parameter_scale,
            f"step_unit={self.step_unit!r}": self.step_unit,
            f"min_log_lr={self.min_log_lr}": self.has_lower_bound,
        }
        for setting, is_set in needs_rates.items():
            if is_set:
                raise ValueError(
                    f"`{setting}` needs the learning rate of each element, "
                    "which exists only with `dynamic_output_scale=True`."
                )

    @property
    def learns_input_decay(self):
        """Whether the time scale of the momentum is read out of the RNN."""
        return (
            self.learnable_decay
            and self.learnable_inp_decay
            and self.num_gradient_scales > 1
        )

    @property
    def has_lower_bound(self):
        """Whether `min_log_lr` is more than the paper's clipping."""
        return self.min_log_lr > lower_bound.SMALLEST_LOG_LR

    @property
    def num_extra_inputs(self):
        """Inputs of the parameter RNN beyond the scaled gradients."""
        scales = self.num_gradient_scales
        return (
            (scales - 1) * self.use_grad_products
            + scales * self.use_log_means_squared
            + self.use_relative_lr
            + self.use_extreme_indicator
            + self.use_lr_shortcut
        )

    @property
    def num_inputs(self):
        """Input features of the parameter RNN."""
        return self.num_gradient_scales + self.num_extra_inputs

    def init_weights(self, seed):
        rng = np.random.default_rng(seed)
        weights = {}

        def normal(name, out_size, in_size, mean=0.0, stdev=None):
            stdev = 0.5 / np.sqrt(in_size) if stdev is None else stdev
            weights[name] = rng.normal(mean, stdev, (out_size, in_size))

        def constant(name, size, value):
            weights[name] = np.full((size, 1), value)

        def cell(name, size, inputs):
            for part, array in cells.gru_weights(rng, size, inputs).items():
                weights[f"{name}/{part}"] = array
            if self.learnable_rnn_init:
                start = rng.uniform(-1, 1, (size, 1))
                weights[f"{name}/initial_state"] = start

        def affine(name, out_size, in_size):
            normal(name, out_size, in_size)
            constant(f"{name}_bias", out_size, 0.0)

        size, *upper = self.level_sizes
        cell("parameter_rnn", size, self.num_inputs)
        if upper:
            averaged = size + self.num_inputs if self.num_extra_inputs else size
            cell("tensor_rnn", upper[0], averaged)
            affine("tensor_to_parameter", 3 * size, upper[0])
        if len(upper) == 2:
            cell("global_rnn", upper[1], upper[0])
            affine("global_to_parameter", 3 * size, upper[1])
            affine("global_to_tensor", 3 * upper[0], upper[1])
        normal("update", 1, size)
        scales = self.num_gradient_scales
        shortcut = {"mean": 1 / scales, "stdev": 0.1 / np.sqrt(scales)}
        if self.use_gradient_shortcut:
            normal("gradient_shortcut", 1, scales, **shortcut)
        if self.use_attention:
            weights["attention"] = weights["update"].copy()
            if self.use_gradient_shortcut:
                normal("attention_shortcut", 1, scales, **shortcut)
        if self.learnable_decay:
            normal("scale_decay", 1, size)
            constant("scale_decay_bias", 1, 3.2)
        if self.learns_input_decay:
            normal("input_decay", 1, size)
            constant("input_decay_bias", 1, 2.2)
        if self.dynamic_output_scale:
            stdev = 0.0 if self.zero_init_lr_weights else None
            normal("learning_rate", 1, size, stdev=stdev)
            constant("learning_rate_bias", 1, 0.0)
            constant("learning_rate_momentum", 1, 3.2)
            constant("step_offset", 1, -1.0)
        return {name: a.astype("float32") for name, a in weights.items()}
