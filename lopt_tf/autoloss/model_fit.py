"""How an `AlternatingModel` is trained and evaluated: `fit`, `evaluate`."""

import tensorflow as tf

from lopt_tf.autoloss import actions, fit_hooks, schedule_state, streams

_TRAIN_ARGUMENTS = (
    *("epochs", "verbose", "callbacks", "validation_steps", "validation_freq"),
    "initial_epoch",
)
_TEST_ARGUMENTS = ("steps", "callbacks", "verbose", "return_dict")


class FittedModel:
    """The part of `AlternatingModel` that Keras' loops call."""

    @property
    def metrics(self):
        """None: `schedule_state` counts what is shown."""
        return []

    def reset_metrics(self):
        self.schedule_state.forget_shown()

    def make_train_function(self, force=False):
        # What is compiled is kept; the data are those of this `fit`.
        self.train_function = self._actions.train_function(self._streams)

    def make_test_function(self, force=False):
        if self.test_function is None or force:
            self.test_function = self._actions.test_function()

    def fit(
        self,
        x=None,
        *arrays,
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
            *arrays: none: labels are part of the data set.
            callbacks, **kwargs: as for any Keras model: `epochs`, `verbose`,
                `validation_steps`, `validation_freq`, `initial_epoch`.
                Callbacks that monitor a loss need `mode="min"`; those that
                set a learning rate, one optimizer for all objectives.

        Returns:
            A `keras.callbacks.History`.

        Raises:
            ValueError: for data that do not fit, are empty or end too early,
                or a callback that needs one optimizer.
        """
        self._assert_compile_called("fit")
        _check_outside_of_scopes("fit")
        _check_arguments("fit", arrays, kwargs, _TRAIN_ARGUMENTS)
        names = list(self.objectives)
        callbacks = fit_hooks.added_to(callbacks, self.optimizer)
        if validation_data is not None:
            validation_data = streams.for_evaluation(validation_data, names)
        else:
            _check_needs({"The schedule": actions.needs_of(self.schedule)})
            _check_needs(fit_hooks.needs_of(callbacks))
        self._streams = streams.Streams(x, self.objectives, steps_per_epoch)
        self._build_models(streams.specs(x, names))
        self._begin(kwargs.get("epochs", 1) - kwargs.get("initial_epoch", 0))
        with fit_hooks.without_hints():
            return super().fit(
                self._streams.ticks(),
                validation_data=validation_data,
                callbacks=callbacks,
                shuffle=False,
                **kwargs,
            )

    def _begin(self, epochs):
        # Until a `ControllerTraining` begins.
        self.learning.pause()
        self._optimizers.begin()
        state = self.schedule_state
        state.taken.assign(tf.zeros_like(state.taken.value))
        state.total.assign(state.step.value + epochs * self._streams.steps)

    def evaluate(self, x=None, *arrays, **kwargs):
        """The mean loss of each objective, a list or (`return_dict`) a dict.

        Args:
            x: a `tf.data.Dataset` of batches, or {objective: Dataset}: then
                as many batches as the shortest has.
            *arrays: none: labels are part of the data set.
            **kwargs: as for any Keras model: `steps`, `callbacks`, `verbose`,
                `return_dict`.
        """
        self._assert_compile_called("evaluate")
        _check_outside_of_scopes("evaluate")
        # Keras' own call, within `fit`, has further arguments.
        if not kwargs.get("_use_cached_eval_dataset"):
            _check_arguments("evaluate", arrays, kwargs, _TEST_ARGUMENTS)
            names = list(self.objectives)
            x = streams.for_evaluation(x, names)
            self._build_models(x.element_spec)
        with fit_hooks.without_hints():
            return super().evaluate(x, **kwargs)

    def train_on_batch(self, *args, **kwargs):
        """Not there: see `take`."""
        raise NotImplementedError(
            "An AlternatingModel does not train on single batches of a user's. "
            "Call fit, or model.take(model.choose(), [batch])."
        )

    def test_on_batch(self, *args, **kwargs):
        """Not there: see `evaluate`."""
        raise NotImplementedError(
            "An AlternatingModel evaluates data sets. Call evaluate("
            "tf.data.Dataset.from_tensors(batch))."
        )

    def _flatten_metrics_in_order(self, logs):
        return [logs[name] for name in self.objectives]

    def _symbolic_build(self, iterator=None, data_batch=None):
        """Nothing: `fit` has built everything already."""


def _check_arguments(what, arrays, given, known):
    """Raises ValueError for arrays, and for arguments that are not known."""
    unknown = [name for name in given if name not in known]
    if arrays or unknown:
        which = repr(unknown[0]) if unknown else "arrays"
        raise ValueError(
            f"`{what}` of an AlternatingModel does not take {which}: it takes "
            f"data sets, and {', '.join(known)}. Arrays become a data set: "
            "tf.data.Dataset.from_tensor_slices(arrays).batch(32)."
        )


def _check_outside_of_scopes(what):
    """Raises ValueError inside of a scope, where batches would be split twice.

    A scope that was entered cannot be left for a while.
    """
    inside = tf.distribute.in_cross_replica_context()
    if inside and tf.distribute.has_strategy():
        raise ValueError(
            f"Call `{what}` outside of strategy.scope(): the model was made in "
            "it, and keeps to its replicas."
        )


def _check_needs(needs):
    """Raises ValueError if {who: names} can only be told with validations."""
    for who, names in needs.items():
        looks = {*names} & {*schedule_state.OF_VALIDATION}
        if looks:
            raise ValueError(
                f"{who} looks at {sorted(looks)[0]!r}: give `fit` "
                "validation_data."
            )
