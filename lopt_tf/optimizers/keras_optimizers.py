"""The Keras optimizers: one around each update rule."""

import keras

from lopt_tf.optimizers.coordinatewise_rnn import CoordinatewiseRNNRule
from lopt_tf.optimizers.global_learning_rate import GlobalLearningRateRule
from lopt_tf.optimizers.hierarchical_rnn import HierarchicalRNNRule
from lopt_tf.optimizers.learned_adam import LearnedAdamRule
from lopt_tf.optimizers.learned_optimizer import LearnedOptimizer
from lopt_tf.optimizers.learning_rate_schedule import LearningRateScheduleRule


@keras.saving.register_keras_serializable(package="lopt_tf")
class HierarchicalRNN(LearnedOptimizer):
    """The hierarchical RNN optimizer of Wichrowska et al. (ICML 2017).

    A recurrent network updates each parameter (arXiv 1703.04813, whose
    sections are named below; "the paper's code" is what its authors published
    for TensorFlow 1). Memory beside the parameter itself, in the default
    configuration: 21 floats or 84 bytes a parameter (10 hidden, 4 momentum, 4
    mean squares, 2 decays, 1 learning rate), 92 with attention; Adam needs 8
    bytes.

    Example:

    >>> model.compile(
    ...     optimizer=lopt_tf.HierarchicalRNN.from_pretrained("my.npz"),
    ...     loss="sparse_categorical_crossentropy",
    ... )

    Args:
        level_sizes: hidden sizes of the parameter, tensor and global RNN; 1,
            2 or 3 of them (section 3.1). Defaults to `(10, 20, 20)`.
        use_attention: take gradients at a learned point near the parameters
            (section 3.2.1), which the model's variables hold during fit: use
            `lopt_tf.callbacks.TrueParameters`. Defaults to `False`.
        num_gradient_scales: time scales of the momentum (section 3.2.2).
            Defaults to `4`.
        use_grad_products: products of neighbouring scales as inputs
            (the paper's code). Defaults to `True`.
        use_log_means_squared: log mean squares as inputs (section 3.2.3).
            Defaults to `True`.
        use_relative_lr: the relative learning rate as input (section 3.2.4).
            Defaults to `True`.
        use_problem_lr_mean: relative to the whole problem, not the tensor
            (the paper's code). Defaults to `True`.
        use_extreme_indicator: tells the RNN of learning rates beyond 1 and
            below 1e-6 (the paper's code). Defaults to `False`.
        use_lr_shortcut: the learning rate itself as input (the paper's code).
            Defaults to `False`.
        use_gradient_shortcut: adds a learned combination of the scaled
            gradients to the direction (the paper's code). Defaults to `True`.
        use_multiple_scale_decays: as many time scales of the mean squares
            as of the momentum (the paper's code). Defaults to `False`.
        dynamic_output_scale: direction and length apart, with a learned
            learning rate for each parameter (section 3.2.4). Defaults to
            `True`.
        learnable_decay: read the decays out of the RNN (section 3.2.2).
            Defaults to `True`.
        learnable_inp_decay: also that of the momentum (section 3.2.2).
            Defaults to `True`.
        learnable_rnn_init: learned initial hidden states; 0 otherwise (the
            paper's code). Defaults to `True`.
        zero_init_lr_weights: before meta-training the learning rates stay
            (the paper's code). Defaults to `True`.
        init_lr_range: (min, max) of the starting learning rates (the paper's
            code). Defaults to `(1e-06, 0.01)`.
        min_log_lr: lower bound of the log learning rate. A larger one than
            the paper's -33, about -5.5, stops learning rates from decaying to
            zero in runs longer than those of meta-training (not in the
            paper). It follows the gradients: with g their root mean square
            over its first value, in the whole problem, the bound is

                min_log_lr + log(g) / 2     where g < 1,
                min_log_lr - 3 log(g)       where g > 1

            (a mean square of zero counts as 1e-12). Defaults to `-33.0`.
        max_log_lr: upper bound of the log learning rate (the paper's code).
            Defaults to `33.0`.
        use_parameter_scale: learning rates are in units of the root mean
            square of each tensor's starting values, where that is above 1
            (not in the paper): with `max_log_lr`, large parameters can move
            as far as small ones. Defaults to `False`.
        step_unit: "start" measures each tensor's unit where training starts,
            for gradients, learning rates and epsilons (not in the paper): a
            kernel's is its root mean square over 0.2, times sqrt(64 / inputs)
            beyond 64 inputs; vectors, and kernels of zeros, have that of
            their layer's kernels, or of all kernels. Networks of any width,
            and weights stored in any unit, then train alike; gradients of
            any magnitude count. It takes the place of
            `use_parameter_scale`. "role" is the same but for layers that
            Keras names: an `Embedding`'s unit is at least twice the mean of
            the other kernels, and those of `MultiHeadAttention`'s
            queries, keys, values and output are 0.4 times it (the kernels
            with neither role, geometric mean). None for none. Defaults to
            `None`.
        rest_without_gradient: an element whose gradient has been exactly zero
            so far stays where it is, and out of its tensor's step length
            (not in the paper). Defaults to `False`.
        bound_reference: what `min_log_lr` is relative to: "first", the
            gradients of the first step, as above; or "least", with which the
            bound stays as low as the smallest gradients so far made it, and
            falls further after a spike (not in the paper). Defaults to
            `"first"`.
        learning_rate: float or Keras schedule that multiplies the learned
            step; 1.0 is as learned. Defaults to `1.0`.
        seed: see `LearnedOptimizer`. Defaults to `None`.
        pretrained_name: the name of weights that ship with the package.
            Defaults to `None`.
        jit_compile: see `LearnedOptimizer`. Defaults to `"auto"`.
        name: as for any Keras optimizer. Defaults to `None`.
        **kwargs: `weight_decay`, `clipnorm`, `clipvalue`,
            `global_clipnorm`, `use_ema`, `ema_momentum`,
            `ema_overwrite_frequency`, `loss_scale_factor` and
            `gradient_accumulation_steps`, as for any Keras optimizer. Weight
            decay removes weight_decay * learning_rate of each parameter in
            each step: with 1.0 that is strong.
    """

    rule_class = HierarchicalRNNRule

    def __init__(
        self,
        level_sizes=(10, 20, 20),
        use_attention=False,
        num_gradient_scales=4,
        use_grad_products=True,
        use_log_means_squared=True,
        use_relative_lr=True,
        use_problem_lr_mean=True,
        use_extreme_indicator=False,
        use_lr_shortcut=False,
        use_gradient_shortcut=True,
        use_multiple_scale_decays=False,
        dynamic_output_scale=True,
        learnable_decay=True,
        learnable_inp_decay=True,
        learnable_rnn_init=True,
        zero_init_lr_weights=True,
        init_lr_range=(1e-6, 1e-2),
        min_log_lr=-33.0,
        max_log_lr=33.0,
        use_parameter_scale=False,
        step_unit=None,
        rest_without_gradient=False,
        bound_reference="first",
        learning_rate=1.0,
        seed=None,
        pretrained_name=None,
        jit_compile="auto",
        name=None,
        **kwargs,
    ):
        super().__init__(
            self._rule_from(locals()),
            learning_rate=learning_rate,
            seed=seed,
            pretrained_name=pretrained_name,
            jit_compile=jit_compile,
            name=name,
            **kwargs,
        )


@keras.saving.register_keras_serializable(package="lopt_tf")
class CoordinatewiseRNN(LearnedOptimizer):
    """A stacked LSTM or GRU that updates each parameter by itself.

    It sees the parameter's gradient in units of its running root mean square,
    and reads a direction, a learning rate's factor 2 * sigmoid(.) and the
    running mean's decay out of its top cell. It is one of the simpler
    optimizers of the hierarchical RNN's code; after Andrychowicz et al. (arXiv
    1606.04474). Memory beside the parameter itself, in the default
    configuration: 83 floats or 332 bytes a parameter (80 of the LSTMs, 1 mean
    square, 1 decay, 1 learning rate), 172 bytes with GRUs; Adam needs 8 bytes.

    Args:
        cell_sizes: units of each cell, from the bottom to the top. Defaults
            to `(20, 20)`, as in arXiv 1606.04474.
        cell: "lstm" or "gru". Defaults to `"lstm"`.
        init_lr_range: (min, max) of the starting learning rates. Defaults to
            `(1e-06, 0.01)`.
        dynamic_output_scale: learning rates change. Defaults to `True`.
        learnable_decay: read the decay out of the RNN; sigmoid(2.2) = 0.90
            otherwise. Defaults to `True`.
        zero_init_lr_weights: before meta-training the learning rates stay.
            Defaults to `True`.
        name: as for any Keras optimizer. Defaults to `None`.
        **kwargs: those of `LearnedOptimizer` but its `rule`.
    """

    rule_class = CoordinatewiseRNNRule

    def __init__(
        self,
        cell_sizes=(20, 20),
        cell="lstm",
        init_lr_range=(1e-6, 1e-2),
        dynamic_output_scale=True,
        learnable_decay=True,
        zero_init_lr_weights=True,
        name=None,
        **kwargs,
    ):
        super().__init__(self._rule_from(locals()), name=name, **kwargs)


@keras.saving.register_keras_serializable(package="lopt_tf")
class LearnedAdam(LearnedOptimizer):
    """Adam with meta-trained learning rate, betas and epsilon.

    Before meta-training it is Adam (arXiv 1412.6980) with the given
    constants, by default that paper's. The learning rate and epsilon are
    learned as logarithms, the betas as logits. Memory beside the parameter
    itself: 2 floats or 8 bytes a parameter (first and second moment), as Adam.

    Args:
        initial_learning_rate: the learning rate before meta-training.
            Defaults to `0.001`.
        beta_1: first moment's decay before meta-training. Defaults to `0.9`.
        beta_2: second moment's decay before meta-training. Defaults to `0.999`.
        epsilon: what is added to the root of the second moment, before
            meta-training. Defaults to `1e-08`.
        name: as for any Keras optimizer. Defaults to `None`.
        **kwargs: those of `LearnedOptimizer` but its `rule`.
    """

    rule_class = LearnedAdamRule

    def __init__(
        self,
        initial_learning_rate=1e-3,
        beta_1=0.9,
        beta_2=0.999,
        epsilon=1e-8,
        name=None,
        **kwargs,
    ):
        super().__init__(self._rule_from(locals()), name=name, **kwargs)


@keras.saving.register_keras_serializable(package="lopt_tf")
class GlobalLearningRate(LearnedOptimizer):
    """Gradient descent with one meta-trained learning rate.

    Memory beside the parameter itself: none.

    Args:
        initial_learning_rate: the learning rate before meta-training.
            Defaults to `0.001`.
        name: as for any Keras optimizer. Defaults to `None`.
        **kwargs: those of `LearnedOptimizer` but its `rule`.
    """

    rule_class = GlobalLearningRateRule

    def __init__(self, initial_learning_rate=1e-3, name=None, **kwargs):
        super().__init__(self._rule_from(locals()), name=name, **kwargs)


@keras.saving.register_keras_serializable(package="lopt_tf")
class LearningRateSchedule(LearnedOptimizer):
    """Gradient descent with a meta-trained learning rate for every step.

    After `num_steps` steps the last learning rate holds. Memory beside the
    parameter itself: none, and `num_steps` floats altogether.

    Args:
        initial_learning_rate: all learning rates before meta-training.
            Defaults to `0.001`.
        num_steps: the number of learning rates. Defaults to `1000`.
        name: as for any Keras optimizer. Defaults to `None`.
        **kwargs: those of `LearnedOptimizer` but its `rule`.
    """

    rule_class = LearningRateScheduleRule

    def __init__(
        self,
        initial_learning_rate=1e-3,
        num_steps=1000,
        name=None,
        **kwargs,
    ):
        super().__init__(self._rule_from(locals()), name=name, **kwargs)
