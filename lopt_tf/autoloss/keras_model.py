"""`AlternatingModel`: a Keras model trained on one of several losses a step."""

import functools

import keras
import tensorflow as tf

from lopt_tf.autoloss import (
    actions,
    learning,
    metadata,
    model_files,
    model_fit,
    schedule_argument,
    schedule_state,
)
from lopt_tf.autoloss import objectives as objectives_lib
from lopt_tf.autoloss.model_optimizers import Optimizers
from lopt_tf.autoloss.objective_step import ObjectiveStep


@keras.saving.register_keras_serializable("lopt_tf")
class AlternatingModel(
    model_fit.FittedModel, model_files.SavedModel, keras.Model
):
    """Keras models that are trained on one of several objectives at a time.

    At every step a schedule chooses one objective, which then makes its
    updates. An objective that rests keeps its variables and, if it has an
    optimizer of its own, that one's state, bit for bit.

    ```python
    model = autoloss.AlternatingModel(
        {
            "discriminator": autoloss.Objective(d_loss, discriminator),
            "generator": autoloss.Objective(g_loss, generator, updates=4),
        },
        discriminator=discriminator,
        generator=generator,
    )
    model.compile(keras.optimizers.Adam(2e-4, beta_1=0.5), schedule="1:1")
    model.fit(images.repeat(), epochs=10, steps_per_epoch=500)
    ```

    The models become attributes (`model.generator`). Losses are functions of
    (model, batch, training); random numbers in them should come from
    `model.seed_generator`, whose state is saved. Logs have the mean loss of
    each objective (NaN where it was never chosen, which callbacks that
    monitor it pass over) and its share of the steps, "share/NAME".

    Files: `save` and `keras.models.load_model` keep everything, the optimizers
    and where the schedule is among it; import `lopt_tf.autoloss` before
    loading. A training that continues from a file goes on exactly, if it is
    given the data that was not taken yet, see `batches_taken`.

    Args:
        objectives: {name: Objective}, at least two.
        name: of the model. Defaults to `None`.
        **models: the models and layers that the objectives train or use.

    Raises:
        ValueError: if an objective's variables belong to none of the models,
            or Keras' backend is not TensorFlow.
    """

    def __init__(self, objectives, name=None, **models):
        if keras.backend.backend() != "tensorflow":
            raise ValueError(
                "AlternatingModel needs Keras' TensorFlow backend. Set the "
                "environment variable KERAS_BACKEND=tensorflow. The backend "
                f"is {keras.backend.backend()!r}."
            )
        super().__init__(name=name)
        reserved = {*dir(type(self)), *vars(self)}
        objectives_lib.check(objectives, models, reserved)
        self.objectives = dict(objectives)
        self.model_names = list(models)
        for key, model in models.items():
            setattr(self, key, model)
        self.seed_generator = keras.random.SeedGenerator(name="alternating")
        self.schedule_state = schedule_state.ScheduleState(
            len(objectives), name="schedule_state"
        )
        self.learning = learning.Learning(name="learning")
        self.built = self._is_complete()

    # Compilation.

    def compile(
        self,
        optimizer="adam",
        schedule=None,
        *,
        measure_every=1,
        jit_compile="auto",
        steps_per_execution=1,
        run_eagerly=False,
        **unknown,
    ):
        """Says how to train.

        Args:
            optimizer: a Keras optimizer (or its name) for all objectives, or
                {objective: optimizer}; callbacks that change *the* learning
                rate need one for all. Defaults to `"adam"`.
            schedule: "1:5" (steps of each objective by turns, in their order),
                a `schedules.Schedule` of one run, a `ScheduleController`, what
                its `schedule(actions={theirs: mine})` returns, or the path of
                its file. Defaults to `None`: all by turns, once each.
            measure_every: a schedule that looks at losses or gradients wants
                those of the objectives that rest, too, if they share their
                data. They are measured at every so many steps, on the batch
                and before the update of the one that acts: 1 (as published)
                about doubles the cost of a step with two objectives, 10 adds a
                tenth; 0 never measures them. Nothing is measured that the
                schedule does not look at. Defaults to `1`.
            jit_compile, steps_per_execution, run_eagerly: as for any Keras
                model.
            **unknown: none: objectives have losses, and there are no metrics.

        Raises:
            ValueError: for a schedule or optimizers that do not fit.
        """
        if unknown:
            raise ValueError(
                "`compile` of an AlternatingModel does not take "
                f"{next(iter(unknown))!r}. Losses are those of its objectives, "
                "which are shown; there are no other metrics."
            )
        names = list(self.objectives)
        if schedule is None:
            schedule = ":".join("1" * len(names))
        schedule = schedule_argument.schedule_of(schedule, names)
        _check_needs(schedule)
        what = f"the model has {len(names)} objectives"
        metadata.check_pairwise(schedule, len(names), what)
        if not isinstance(measure_every, int) or measure_every < 0:
            raise ValueError(
                "`measure_every` must be an integer of at least 0. Received: "
                f"measure_every={measure_every!r}"
            )
        self._check_strategy(jit_compile, steps_per_execution)
        # Keras keeps what "auto" comes to on this machine.
        self._given_jit_compile = jit_compile
        super().compile(
            optimizer=None,
            jit_compile=jit_compile,
            steps_per_execution=steps_per_execution,
            run_eagerly=run_eagerly,
        )
        # Trainer would show a loss of its own.
        self._loss_tracker = None
        self.schedule = schedule
        self._replace_policy(getattr(schedule, "policy", None))
        self.measure_every = measure_every
        self._optimizers = Optimizers(optimizer, names, self.dtype_policy)
        self.optimizer = self._optimizers.only
        self.optimizer_list = self._optimizers.unique
        self._actions = None
        if self._is_complete():
            self._prepare()

    def _replace_policy(self, policy):
        """Makes a policy a part of the model, and no part of it the old one."""
        if self.policy is not None and self.policy is not policy:
            # An attribute that is set anew stays among the layers.
            self._tracker.untrack(self.policy)
        self.policy = policy

    def _check_strategy(self, jit_compile, steps_per_execution):
        if self.replica_strategy.num_replicas_in_sync == 1:
            return
        for name, given in (
            ("steps_per_execution", steps_per_execution != 1),
            ("jit_compile", jit_compile is True),
        ):
            if given:
                raise ValueError(
                    f"`{name}` cannot be used with several replicas: there the "
                    "host chooses each step's objective. Leave it out."
                )

    @property
    def replica_strategy(self):
        """The `tf.distribute` strategy in whose scope the model was made."""
        return self._distribute_strategy or tf.distribute.get_strategy()

    @property
    def distribute_strategy(self):
        """The strategy of Keras' loops: none; `actions` splits the batches."""
        return tf.distribute.get_strategy()

    @property
    def optimizers(self):
        """{objective: optimizer}."""
        return {} if self._optimizers is None else self._optimizers.of

    # Until they are set; no model can be called so.
    objectives = model_names = seed_generator = schedule_state = None
    learning = schedule = policy = measure_every = None
    optimizer_list = ()
    _optimizers = _actions = _given_jit_compile = None

    @property
    def models(self):
        """{name: model} that the constructor was given."""
        return {name: getattr(self, name) for name in self.model_names}

    @property
    def batches_taken(self):
        """{objective: batches that it took in the last `fit`}.

        To go on exactly, skip those: `dataset.skip(...)`; of data that the
        objectives share, their sum.
        """
        taken = self.schedule_state.taken.numpy()
        return dict(zip(self.objectives, taken.tolist()))

    def _is_complete(self):
        """Whether all variables are there."""
        layers = self._flatten_layers(include_self=False)
        return all(layer.built for layer in layers)

    def _prepare(self):
        """Finds variables and builds optimizers, when all models are built."""
        if self._actions is not None:
            return
        self.built = True
        found = {
            name: objectives_lib.variables_of(name, each)
            for name, each in self.objectives.items()
        }
        with self.replica_strategy.scope():
            self._optimizers.build(found)
        steps = [
            ObjectiveStep(
                self, name, each.loss, found[name], self.optimizers[name]
            )
            for name, each in self.objectives.items()
        ]
        self._actions = actions.Actions(self, steps)

    def _build_models(self, specs):
        """Builds what is not built, by tracing the losses."""
        if self._actions is not None:
            return
        if not self._is_complete():
            for name, each in self.objectives.items():
                trace = tf.function(
                    functools.partial(each.loss, self, training=False),
                    autograph=False,
                )
                with self.replica_strategy.scope():
                    trace.get_concrete_function(specs[name])
        self._prepare()

    @property
    def trainable_variables(self):
        """The variables that the objectives update, each once."""
        found = {}
        if self.trainable:
            for objective in self.objectives.values():
                for part in objective.parts():
                    is_layer = isinstance(part, keras.layers.Layer)
                    those = part.trainable_variables if is_layer else [part]
                    found |= {id(v): v for v in those}
        return list(found.values())

    @property
    def trainable_weights(self):
        return self.trainable_variables

    def choose(self):
        """The place of the objective that the schedule takes next."""
        self._assert_ready("choose")
        return self._actions.choose()

    def take(self, action, batches, needs=(), others=None):
        """Makes one step with an objective that was chosen before.

        Args:
            action: the objective's place, an integer.
            batches: a list: one for each of its updates.
            needs: names of metadata that somebody looks at; objectives that
                rest are measured if some are of `actions.MEASURED`. Defaults
                to `()`.
            others: {place: batch} to measure resting objectives on. Defaults
                to `None`: they are not measured.
        """
        self._assert_ready("take")
        self._actions.take_on_host(action, batches, needs, others)

    def _assert_ready(self, what):
        self._assert_compile_called(what)
        if self._actions is None:
            raise ValueError(
                f"`{what}` needs models that are built: give each a "
                "keras.Input, or call fit or evaluate first."
            )

    def restart(self, seed, total):
        """Begins a training of `total` steps anew, but for weights.

        The schedule's state and all random numbers, dropout's among them, are
        as new. Optimizers are not touched.
        """
        self.schedule_state.restart(seed % 2**31, total)
        for number, variable in enumerate(self.seeds()):
            state = [(seed + 7919 * number) % 2**31, 0]
            variable.assign(tf.constant(state, variable.dtype))

    def call(self, *args, **kwargs):
        """Calls the model, if there is one alone."""
        if len(self.model_names) != 1:
            raise NotImplementedError(
                "An AlternatingModel of several models cannot be called. Call "
                f"one of them: model.{self.model_names[0]}(...)."
            )
        return getattr(self, self.model_names[0])(*args, **kwargs)


def _check_needs(schedule):
    for who, names in schedule.needs.items():
        for name in names:
            if name not in schedule_state.SUPPLIED:
                raise ValueError(
                    f"{who[0].upper()}{who[1:]} needs {name!r}, which no model "
                    f"tells. It tells {', '.join(schedule_state.SUPPLIED)}."
                )
