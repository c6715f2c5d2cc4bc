"""`AlternatingModel`: a Keras model trained on one of several losses a step."""

import contextlib
import functools
import warnings

import keras
import numpy as np
import tensorflow as tf

from lopt_tf.autoloss import objectives as objectives_lib
from lopt_tf.autoloss import schedule_argument, schedule_state, streams
from lopt_tf.autoloss.model_optimizers import Optimizers
from lopt_tf.autoloss.objective_step import Measurement, ObjectiveStep

_TRAIN_ARGUMENTS = (
    *("epochs", "verbose", "callbacks", "validation_steps", "validation_freq"),
    "initial_epoch",
)


@keras.saving.register_keras_serializable("lopt_tf")
class AlternatingModel(keras.Model):
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
    each objective (NaN where it was never chosen) and its share of the steps,
    "share/NAME".

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
        objectives_lib.check(objectives, models)
        super().__init__(name=name)
        self.objectives = dict(objectives)
        self.model_names = list(models)
        for key, model in models.items():
            setattr(self, key, model)
        self.seed_generator = keras.random.SeedGenerator(name="alternating")
        self.schedule_state = schedule_state.ScheduleState(
            len(objectives), name="schedule_state"
        )
        self.schedule = None
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
    ):
        """Says how to train.

        Args:
            optimizer: a Keras optimizer (or its name) for all objectives, or
                {objective: optimizer}. Defaults to `"adam"`.
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

        Raises:
            ValueError: for a schedule or optimizers that do not fit.
        """
        names = list(self.objectives)
        if schedule is None:
            schedule = ":".join("1" * len(names))
        schedule = schedule_argument.schedule_of(schedule, names)
        _check_needs(schedule)
        self._check_strategy(jit_compile, steps_per_execution)
        super().compile(
            optimizer=None,
            jit_compile=jit_compile,
            steps_per_execution=steps_per_execution,
            run_eagerly=run_eagerly,
        )
        # Trainer would show a loss of its own.
        self._loss_tracker = None
        self.schedule = schedule
        self.policy = getattr(schedule, "policy", None)
        self.measure_every = measure_every
        self._order = schedule_argument.order_of(schedule, names)
        self._optimizers = Optimizers(optimizer, names, self.dtype_policy)
        self.optimizer = self._optimizers.only
        self.optimizer_list = self._optimizers.unique
        self._acts, self._steps = {}, None
        if self._is_complete():
            self._prepare()

    def _check_strategy(self, jit_compile, steps_per_execution):
        if self.distribute_strategy.num_replicas_in_sync == 1:
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
    def optimizers(self):
        """{objective: optimizer}."""
        return {} if self._optimizers is None else self._optimizers.of

    _optimizers = None
    _steps = None

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
        if self._steps is not None:
            return
        self.built = True
        found = {
            name: objectives_lib.variables_of(name, each)
            for name, each in self.objectives.items()
        }
        with self.distribute_strategy.scope():
            self._optimizers.build(found)
        self._steps = [
            ObjectiveStep(
                self, name, each.loss, found[name], self.optimizers[name]
            )
            for name, each in self.objectives.items()
        ]

    def _build_models(self, specs):
        """Builds what is not built, by tracing the losses."""
        if self._steps is not None:
            return
        if not self._is_complete():
            for name, each in self.objectives.items():
                trace = tf.function(
                    functools.partial(each.loss, self, training=False),
                    autograph=False,
                )
                with self.distribute_strategy.scope():
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

    @property
    def metrics(self):
        """None: `schedule_state` counts what is shown."""
        return []

    def reset_metrics(self):
        self.schedule_state.forget_shown()

    # Steps.

    def choose(self, metadata=None, schedule=None):
        """The objective that a schedule takes next: its place, a tensor."""
        schedule, order = schedule or self.schedule, self._order
        found = metadata or self.schedule_state.metadata()
        for key in ("losses", "average_losses", "gradient_magnitudes"):
            found[key] = tf.gather(found[key], order, axis=1)
        found["last_action"] = tf.gather(found["last_action"], order, axis=1)
        state = self.schedule_state
        choice = schedule(found, state.step.value, state.seed())
        return tf.gather(order, tf.argmax(choice.weights[0]))

    def take(self, action, batches, needs=(), others=None):
        """Makes one step: an objective's updates.

        Args:
            action: the objective's place, an integer.
            batches: a list, one for each of its updates.
            needs: names of metadata that somebody looks at: those of resting
                objectives are measured if `losses`, `average_losses`,
                `train_loss` or `gradient_magnitudes` are among them. Defaults
                to `()`.
            others: {place: batch} to measure resting objectives on. Defaults
                to `None`: nothing.
        """
        state, count = self.schedule_state, len(self._steps)
        wants_magnitudes = "gradient_magnitudes" in needs
        found = [Measurement(*[tf.zeros([])] * 2)] * count
        mask = [0.0] * count
        measured = {}
        if others and {*needs} & _MEASURED:
            measured = {k: b for k, b in others.items() if k != action}
        if measured:
            now = state.step.value % self.measure_every == 0
            for place, batch in measured.items():
                found[place] = tf.cond(
                    now,
                    lambda: self._run(place, "measure", batch, wants_magnitudes),  # noqa: B023
                    lambda: Measurement(*[tf.zeros([])] * 2),
                )
                mask[place] = tf.cast(now, tf.float32)
        losses = []
        for batch in batches:
            found[action] = self._run(action, "update", batch, wants_magnitudes)
            losses.append(found[action].loss)
        mask[action] = 1.0
        chosen = tf.one_hot(action, count)
        mean = tf.add_n(losses) / len(losses)
        state.measure(tf.stack(mask), *map(tf.stack, zip(*found)))
        state.advance(action, len(batches))
        state.show(chosen * mean, chosen * len(losses))

    def _run(self, place, what, batch, wants_magnitudes):
        """A `Measurement`, the mean of those of the replicas."""
        function = functools.partial(
            getattr(self._steps[place], what), with_magnitude=wants_magnitudes
        )
        strategy = self.distribute_strategy
        if strategy.num_replicas_in_sync > 1:
            found = strategy.run(function, (batch,))
            return Measurement(
                *(strategy.reduce("MEAN", x, axis=None) for x in found)
            )
        if self.run_eagerly or not self.jit_compile:
            return function(batch)
        key = place, what, wants_magnitudes
        if key not in self._acts:
            self._acts[key] = tf.function(
                function, jit_compile=True, autograph=False
            )
        return self._acts[key](batch)

    def take_on_host(self, action, batches, needs=(), others=None):
        """`take`, compiled by itself; the action is chosen before."""
        if self.run_eagerly:
            self.take(action, batches, needs, others)
            return
        key = action, "take", tuple(sorted({*needs}))
        if key not in self._acts:
            self._acts[key] = tf.function(
                functools.partial(self.take, action, needs=key[2]),
                autograph=False,
            )
        self._acts[key](batches, others=others)

    @property
    def _needs(self):
        return {name for each in self.schedule.needs.values() for name in each}

    def _others(self, last_batch):
        """What resting objectives are measured on."""
        if not self._streams.shared or not self.measure_every:
            return None
        return dict.fromkeys(range(len(self._steps)), last_batch)

    def _draw(self, action, iterators):
        """The batches of a step, all before its first update."""
        iterator = iterators[0 if self._streams.shared else action]
        updates = list(self.objectives.values())[action].updates
        return [next(iterator) for _ in range(updates)]

    def _step_in_graph(self, iterators):
        def branch(action):
            batches = self._draw(action, iterators)
            others = self._others(batches[-1])
            self.take(action, batches, self._needs, others)
            return tf.constant(0)

        branches = [
            functools.partial(branch, i) for i in range(len(self._steps))
        ]
        tf.switch_case(self.choose(), branches)

    def _several_in_graph(self, count, iterators):
        def body(i):
            self._step_in_graph(iterators)
            return i + 1

        tf.while_loop(lambda i: i < count, body, [0], parallel_iterations=1)
        return self._logs()

    def _step_on_host(self, iterators):
        action = int(self._choose_on_host())
        batches = self._draw(action, iterators)
        needs = tuple(sorted(self._needs))
        self.take_on_host(action, batches, needs, self._others(batches[-1]))

    def _logs(self, training=True):
        losses, shares = self.schedule_state.shown()
        names = list(self.objectives)
        logs = dict(zip(names, tf.unstack(losses)))
        if training:
            shares = tf.unstack(shares)
            logs |= {f"share/{n}": s for n, s in zip(names, shares)}
        return logs

    def make_train_function(self, force=False):
        if self.train_function is not None and not force:
            return
        on_host = self.run_eagerly or (
            self.distribute_strategy.num_replicas_in_sync > 1
        )
        if not self.run_eagerly:
            several = tf.function(
                self._several_in_graph, autograph=False, reduce_retracing=True
            )
            self._choose_on_host = tf.function(self.choose, autograph=False)
        else:
            self._choose_on_host = self.choose

        def train(ticks):
            count = _count(ticks, self.steps_per_execution)
            iterators = self._streams.iterators
            try:
                if not on_host:
                    return several(tf.constant(count), iterators)
                for _ in range(count):
                    self._step_on_host(iterators)
                return self._logs()
            except (tf.errors.OutOfRangeError, StopIteration):
                taken = self.schedule_state.taken.numpy()
                action = int(self._choose_on_host())
                raise self._streams.ended(action, taken) from None

        self.train_function = train

    def make_test_function(self, force=False):
        if self.test_function is not None and not force:
            return
        strategy = self.distribute_strategy

        def losses(batches):
            weights = [_rows(batches[step.name]) for step in self._steps]
            values = [s.value(batches[s.name], False) for s in self._steps]
            weights = tf.stack(weights)
            return tf.stack(values) * weights, weights

        def add(batches):
            sums, weights = (
                strategy.reduce("SUM", each, axis=None)
                for each in strategy.run(losses, (batches,))
            )
            self.schedule_state.show(
                tf.math.divide_no_nan(sums, weights), weights
            )

        if not self.run_eagerly:
            add = tf.function(add, autograph=False, reduce_retracing=True)

        def test(iterator):
            for _ in range(self.steps_per_execution):
                try:
                    batches = next(iterator)
                except (tf.errors.OutOfRangeError, StopIteration):
                    break
                add(batches)
            else:
                return self._logs(training=False)
            if not float(tf.reduce_sum(self.schedule_state.loss_counts.value)):
                raise ValueError("The data set of `evaluate` is empty.")
            return self._logs(training=False)

        self.test_function = test

    # Training.

    def fit(
        self,
        x=None,
        *,
        steps_per_epoch=None,
        validation_data=None,
        callbacks=None,
        **kwargs,
    ):
        """Trains; a step is one choice of the schedule.

        Args:
            x: a `tf.data.Dataset` of batches for all objectives, or
                {objective: Dataset}: then an objective that is not chosen does
                not take from its own.
            steps_per_epoch: steps of an epoch; the data go on from one to the
                next, and it is an error if they end. Defaults to `None`: an
                epoch is a pass, which one data set of known size can make,
                where no objective makes several updates.
            validation_data: as `x`, for `evaluate` after each epoch; each
                objective's loss is "val_NAME". Defaults to `None`.
            callbacks, **kwargs: as for any Keras model: `epochs`, `verbose`,
                `validation_steps`, `validation_freq`, `initial_epoch`.

        Returns:
            A `keras.callbacks.History`.

        Raises:
            ValueError: for data that do not fit, are empty or end too early.
        """
        self._assert_compile_called("fit")
        unknown = [name for name in kwargs if name not in _TRAIN_ARGUMENTS]
        if unknown:
            raise ValueError(
                f"`fit` of an AlternatingModel does not take {unknown[0]!r}: "
                f"it takes {', '.join(_TRAIN_ARGUMENTS)}. Arrays become a data "
                "set: tf.data.Dataset.from_tensor_slices(arrays).batch(32)."
            )
        names = list(self.objectives)
        looks = self._needs & {*schedule_state.OF_VALIDATION}
        if validation_data is not None:
            validation_data = streams.for_evaluation(validation_data, names)
        elif looks:
            raise ValueError(
                f"The schedule looks at {sorted(looks)[0]!r}: give `fit` "
                "validation_data."
            )
        self._streams = streams.Streams(
            x, self.objectives, steps_per_epoch, self.distribute_strategy
        )
        self._build_models(streams.specs(x, names))
        self._begin(kwargs.get("epochs", 1) - kwargs.get("initial_epoch", 0))
        with _without_hints():
            return super().fit(
                self._streams.ticks(),
                validation_data=validation_data,
                callbacks=_with_hooks(callbacks),
                shuffle=False,
                **kwargs,
            )

    def _begin(self, epochs):
        state = self.schedule_state
        state.taken.assign(tf.zeros_like(state.taken.value))
        state.total.assign(state.step.value + epochs * self._streams.steps)

    def evaluate(self, x=None, **kwargs):
        """The mean loss of each objective, a list or (`return_dict`) a dict.

        Args:
            x: a `tf.data.Dataset` of batches, or {objective: Dataset}: then
                as many batches as the shortest has.
            **kwargs: as for any Keras model: `steps`, `callbacks`, `verbose`,
                `return_dict`.
        """
        self._assert_compile_called("evaluate")
        if not kwargs.get("_use_cached_eval_dataset"):
            names = list(self.objectives)
            x = streams.for_evaluation(x, names)
            self._build_models(x.element_spec)
        return super().evaluate(x, **kwargs)

    def _flatten_metrics_in_order(self, logs):
        return [logs[name] for name in self.objectives]

    def call(self, *args, **kwargs):
        """Calls the model, if there is one alone."""
        if len(self.model_names) != 1:
            raise NotImplementedError(
                "An AlternatingModel of several models cannot be called. Call "
                f"one of them: model.{self.model_names[0]}(...)."
            )
        return getattr(self, self.model_names[0])(*args, **kwargs)

    def _symbolic_build(self, iterator=None, data_batch=None):
        """Nothing: `fit` has built everything already."""

    # Serialisation.

    def get_config(self):
        models = self.models
        return {
            "name": self.name,
            "objectives": objectives_lib.get_config(self.objectives, models),
            "models": {
                name: keras.saving.serialize_keras_object(model)
                for name, model in models.items()
            },
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        models = {
            name: keras.saving.deserialize_keras_object(each, custom_objects)
            for name, each in config["models"].items()
        }
        objectives = objectives_lib.from_config(config["objectives"], models)
        return cls(objectives, name=config["name"], **models)

    def get_build_config(self):
        """None: the models are built by themselves."""
        return None

    def get_compile_config(self):
        if not self.compiled:
            return None
        return {
            "optimizer": self._optimizers.get_config(),
            "schedule": schedule_argument.get_config(self.schedule),
            "measure_every": self.measure_every,
            "jit_compile": self.jit_compile,
            "steps_per_execution": self.steps_per_execution,
            "run_eagerly": self.run_eagerly,
        }

    def compile_from_config(self, config):
        config = dict(config)
        config["optimizer"] = Optimizers.from_config(config["optimizer"])
        config["schedule"] = schedule_argument.from_config(config["schedule"])
        self.compile(**config)


# Metadata that objectives have to be measured for.
_MEASURED = {"losses", "average_losses", "train_loss", "gradient_magnitudes"}


class _Hooks(keras.callbacks.Callback):
    """What `fit` does around epochs; it comes before all other callbacks."""

    def on_epoch_begin(self, epoch, logs=None):
        state, data = self.model.schedule_state, self.model._streams
        if data.restarts:
            state.taken.assign(tf.zeros_like(state.taken.value))
        data.begin_epoch(state.taken.numpy())

    def on_epoch_end(self, epoch, logs=None):
        loss = (logs or {}).get(f"val_{next(iter(self.model.objectives))}")
        if loss is not None and np.isfinite(loss):
            self.model.schedule_state.validate(loss)

    def on_train_end(self, logs=None):
        if self.model.optimizer is None:
            self.model._optimizers.finalize()


def _with_hooks(callbacks):
    if isinstance(callbacks, keras.callbacks.CallbackList):
        callbacks.callbacks.insert(0, _Hooks())
        callbacks.set_model(callbacks.model)
        return callbacks
    return [_Hooks(), *keras.tree.flatten(callbacks or [])]


@contextlib.contextmanager
def _without_hints():
    """Keras' hints about the data are about our ticks."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Your input ran out of data")
        yield


def _count(ticks, most):
    """Takes up to `most` ticks and counts them; StopIteration if none."""
    for count in range(most):
        try:
            next(ticks)
        except (tf.errors.OutOfRangeError, StopIteration):
            if not count:
                raise StopIteration from None
            return count
    return most


def _rows(batch):
    """How many rows a batch has, a float: its weight in a mean."""
    first = tf.convert_to_tensor(tf.nest.flatten(batch)[0])
    return tf.cast(tf.shape(first)[0], tf.float32) if first.shape.rank else 1.0


def _check_needs(schedule):
    for who, names in schedule.needs.items():
        for name in names:
            if name not in schedule_state.SUPPLIED:
                raise ValueError(
                    f"{who[0].upper()}{who[1:]} needs {name!r}, which no model "
                    f"tells. It tells {', '.join(schedule_state.SUPPLIED)}."
                )
