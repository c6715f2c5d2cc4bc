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

    A recurrent network updates each parameter (arXiv 1703.04813). Memory
    beside the parameter itself, in the default configuration: 21 floats or
    84 bytes a parameter (10 hidden, 4 momentum, 4 mean squares, 2 decays, 1
    learning rate), 88 with attention; Adam needs 8 bytes.

    Example:

    >>> model.compile(
    ...     optimizer=lopt_tf.HierarchicalRNN.from_pretrained("my.npz"),
    ...     loss="sparse_categorical_crossentropy",
    ... )

    Args:
        level_sizes: hidden sizes of the parameter RNN, the tensor RNN and
            the global RNN; 1, 2 or 3 of them (section 3.1).
        use_attention: take gradients at a learned point near the parameters
            (section 3.3.2). During fit the model's variables hold that
            point; use `lopt_tf.callbacks.TrueParameters`.
        num_gradient_scales: time scales of the momentum (section 3.2.1).
        use_grad_products: products of neighbouring scales as inputs.
        use_log_means_squared: log mean squares as inputs (section 3.2.2).
        use_relative_lr: the relative learning rate as input (section 3.2.3).
        use_problem_lr_mean: relative to the whole problem, not the tensor.
        use_extreme_indicator: tells the RNN of learning rates beyond 1 and
            below 1e-6.
        use_lr_shortcut: the learning rate itself as input.
        use_gradient_shortcut: adds a learned combination of the scaled
            gradients to the direction.
        use_multiple_scale_decays: a time scale of the mean squares for each
            time scale of the momentum.
        dynamic_output_scale: direction and length apart, with a learned
            learning rate for each parameter (section 3.2.4).
        learnable_decay: read the decays out of the RNN.
        learnable_inp_decay: also that of the momentum.
        learnable_rnn_init: learned initial hidden states; 0 otherwise.
        zero_init_lr_weights: before meta-training the learning rates stay.
        init_lr_range: (min, max) of the starting learning rates.
        min_log_lr: lower bound of the log learning rate. The paper's -33 is
            never reached. A larger one, about -5.5, keeps long runs going
            where meta-training on shorter ones has taught the RNN to come to
            rest (not in the paper). With g the root mean square of the whole
            problem's gradients over its first value, it is min_log_lr +
            log(g) / 2 where g < 1, and min_log_lr - 3 log(g) where g > 1
            (a mean square of zero counts as 1e-12).
        max_log_lr: upper bound of the log learning rate.
        use_parameter_scale: learning rates are in units of the root mean
            square of each tensor's starting values, where that is above 1
            (not in the paper): with `max_log_lr`, large parameters can move
            as far as small ones.
        learning_rate: float or Keras schedule that multiplies the learned
            step; 1.0 is as learned.
        seed: see `LearnedOptimizer`.
        pretrained_name: the name of weights that ship with the package.
        **kwargs: `weight_decay`, `clipnorm`, `clipvalue`,
            `global_clipnorm`, `use_ema`, `ema_momentum`,
            `ema_overwrite_frequency`, `loss_scale_factor`,
            `gradient_accumulation_steps` and `name`, as for any Keras
            optimizer. Weight decay removes weight_decay * learning_rate of
            each parameter in each step: with 1.0 that is strong.
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
        learning_rate=1.0,
        seed=None,
        pretrained_name=None,
        name="hierarchical_rnn",
        **kwargs,
    ):
        rule = self.rule_class(
            level_sizes=level_sizes,
            use_attention=use_attention,
            num_gradient_scales=num_gradient_scales,
            use_grad_products=use_grad_products,
            use_log_means_squared=use_log_means_squared,
            use_relative_lr=use_relative_lr,
            use_problem_lr_mean=use_problem_lr_mean,
            use_extreme_indicator=use_extreme_indicator,
            use_lr_shortcut=use_lr_shortcut,
            use_gradient_shortcut=use_gradient_shortcut,
            use_multiple_scale_decays=use_multiple_scale_decays,
            dynamic_output_scale=dynamic_output_scale,
            learnable_decay=learnable_decay,
            learnable_inp_decay=learnable_inp_decay,
            learnable_rnn_init=learnable_rnn_init,
            zero_init_lr_weights=zero_init_lr_weights,
            init_lr_range=init_lr_range,
            min_log_lr=min_log_lr,
            max_log_lr=max_log_lr,
            use_parameter_scale=use_parameter_scale,
        )
        super().__init__(
            rule,
            learning_rate=learning_rate,
            seed=seed,
            pretrained_name=pretrained_name,
            name=name,
            **kwargs,
        )


@keras.saving.register_keras_serializable(package="lopt_tf")
class CoordinatewiseRNN(LearnedOptimizer):
    """A stacked LSTM or GRU that updates each parameter by itself.

    It sees the parameter's gradient in units of its running root mean square,
    and reads a direction, a learning rate's factor 2 * sigmoid(.) and the
    running mean's decay out of its top cell. It is one of the simpler
    optimizers of the hierarchical RNN's release. Memory beside the parameter
    itself, in the default configuration: 83 floats or 332 bytes a parameter
    (80 of the LSTMs, 1 mean square, 1 decay, 1 learning rate), 172 bytes with
    GRUs; Adam needs 8 bytes.

    Args:
        cell_sizes: units of each cell, from the bottom to the top.
        cell: "lstm" or "gru".
        init_lr_range: (min, max) of the starting learning rates.
        dynamic_output_scale: learning rates change; fixed otherwise.
        learnable_decay: read the decay out of the RNN; sigmoid(2.2) = 0.90
            otherwise.
        zero_init_lr_weights: before meta-training the learning rates stay.
        name: as for any Keras optimizer.
        **kwargs: `learning_rate` (multiplies the learned step), `seed`,
            `pretrained_name` and any Keras optimizer's arguments; see
            `HierarchicalRNN`.
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
        name="coordinatewise_rnn",
        **kwargs,
    ):
        rule = self.rule_class(
            cell_sizes=cell_sizes,
            cell=cell,
            init_lr_range=init_lr_range,
            dynamic_output_scale=dynamic_output_scale,
            learnable_decay=learnable_decay,
            zero_init_lr_weights=zero_init_lr_weights,
        )
        super().__init__(rule, name=name, **kwargs)


@keras.saving.register_keras_serializable(package="lopt_tf")
class LearnedAdam(LearnedOptimizer):
    """Adam with meta-trained learning rate, betas and epsilon.

    Before meta-training it is Adam (arXiv 1412.6980) with the given
    constants. The learning rate and epsilon are learned as logarithms, the
    betas as logits. Memory beside the parameter itself: 2 floats or 8 bytes a
    parameter (first and second moment), as Adam.

    Args:
        initial_learning_rate: the learning rate before meta-training.
        beta_1: the first moment's decay before meta-training.
        beta_2: the second moment's decay before meta-training.
        epsilon: what is added to the root of the second moment, before
            meta-training.
        name: as for any Keras optimizer.
        **kwargs: `learning_rate` (multiplies the learned step), `seed`,
            `pretrained_name` and any Keras optimizer's arguments; see
            `HierarchicalRNN`.
    """

    rule_class = LearnedAdamRule

    def __init__(
        self,
        initial_learning_rate=1e-3,
        beta_1=0.9,
        beta_2=0.999,
        epsilon=1e-8,
        name="learned_adam",
        **kwargs,
    ):
        rule = self.rule_class(
            initial_learning_rate=initial_learning_rate,
            beta_1=beta_1,
            beta_2=beta_2,
            epsilon=epsilon,
        )
        super().__init__(rule, name=name, **kwargs)


@keras.saving.register_keras_serializable(package="lopt_tf")
class GlobalLearningRate(LearnedOptimizer):
    """Gradient descent with one meta-trained learning rate.

    Memory beside the parameter itself: none.

    Args:
        initial_learning_rate: the learning rate before meta-training.
        name: as for any Keras optimizer.
        **kwargs: `learning_rate` (multiplies the learned step), `seed`,
            `pretrained_name` and any Keras optimizer's arguments; see
            `HierarchicalRNN`.
    """

    rule_class = GlobalLearningRateRule

    def __init__(
        self,
        initial_learning_rate=1e-3,
        name="global_learning_rate",
        **kwargs,
    ):
        rule = self.rule_class(initial_learning_rate=initial_learning_rate)
        super().__init__(rule, name=name, **kwargs)


@keras.saving.register_keras_serializable(package="lopt_tf")
class LearningRateSchedule(LearnedOptimizer):
    """Gradient descent with a meta-trained learning rate for every step.

    After `num_steps` steps the last learning rate holds. Memory beside the
    parameter itself: none, and `num_steps` floats altogether.

    Args:
        initial_learning_rate: all learning rates before meta-training.
        num_steps: the number of learning rates.
        name: as for any Keras optimizer.
        **kwargs: `learning_rate` (multiplies the learned step), `seed`,
            `pretrained_name` and any Keras optimizer's arguments; see
            `HierarchicalRNN`.
    """

    rule_class = LearningRateScheduleRule

    def __init__(
        self,
        initial_learning_rate=1e-3,
        num_steps=1000,
        name="learning_rate_schedule",
        **kwargs,
    ):
        rule = self.rule_class(
            initial_learning_rate=initial_learning_rate, num_steps=num_steps
        )
        super().__init__(rule, name=name, **kwargs)
