"""The optimizers of an `AlternatingModel`: one for all, or one for each."""

import keras


class Optimizers:
    """Which optimizer updates which objective's variables.

    Args:
        given: a Keras optimizer or its name, {objective: one of these}, or
            `Optimizers` of the same objectives.
        names: of the objectives.
        dtype_policy: of the model: "mixed_float16" scales losses, as in any
            Keras model.

    Attributes:
        of: {objective: optimizer}.
        unique: the optimizers, each once, a list.
        only: the optimizer, if there is one alone, else None.

    Raises:
        ValueError: if there is not one for each objective.
    """

    def __init__(self, given, names, dtype_policy):
        if isinstance(given, Optimizers):
            given = given.of
        if given is None:
            raise ValueError(
                "An AlternatingModel needs an optimizer. Received: "
                "optimizer=None"
            )
        if not isinstance(given, dict) or "class_name" in given:
            given = dict.fromkeys(names, keras.optimizers.get(given))
        if sorted(given) != sorted(names):
            wrong = sorted({*given} ^ {*names})[0]
            what = "none" if wrong in names else "an optimizer"
            raise ValueError(
                f"`optimizer` has {what} for {wrong!r}. The objectives are "
                f"{', '.join(names)}; each needs one, or one is for all."
            )
        scaled = dtype_policy.name == "mixed_float16"
        made = {}
        self.of = {}
        for name in names:
            key = id(given[name])
            if isinstance(given[name], (str, dict)):
                # A name makes an optimizer for each.
                key = name
            if key not in made:
                made[key] = _optimizer(given[name], scaled)
            self.of[name] = made[key]
        self._check_shared()
        self.unique = list(made.values())
        self.only = self.unique[0] if len(made) == 1 else None

    def _check_shared(self):
        """Raises ValueError for a shared optimizer that counts steps.

        It counts those of all: one objective's could always fall between two
        updates, and its parameters would be averages although it rests.
        """
        for name, optimizer in self.of.items():
            inner = _inner(optimizer)
            is_shared = sum(o is optimizer for o in self.of.values()) > 1
            for what in (
                "gradient_accumulation_steps",
                "ema_overwrite_frequency",
            ):
                if is_shared and getattr(inner, what):
                    raise ValueError(
                        f"An optimizer with {what} must be of one objective "
                        f"alone. Received one for {name!r} and others: give "
                        "each its own, {objective: optimizer}."
                    )

    def _check_averages(self, variables):
        """Raises ValueError for averages of what others move, too."""
        for name, optimizer in self.of.items():
            inner = _inner(optimizer)
            own = {id(v) for v in variables[name]} if inner.use_ema else ()
            for other, each in variables.items():
                is_another = self.of[other] is not optimizer
                if is_another and any(id(v) in own for v in each):
                    raise ValueError(
                        f"The optimizer of {name!r} averages variables "
                        f"(use_ema) that {other!r} updates, too: the end of a "
                        "training would undo its steps. Leave use_ema out."
                    )

    def build(self, variables):
        """Builds them for {objective: list of variables}."""
        self._check_averages(variables)
        self._variables = []
        for optimizer in self.unique:
            found = {
                id(v): v
                for name, each in self.of.items()
                if each is optimizer
                for v in variables[name]
            }
            self._variables.append(tuple(found.values()))
            if not optimizer.built:
                optimizer.build(list(found.values()))

    def begin(self):
        """Begins averages: Keras begins all of an optimizer's at one step."""
        for optimizer in self.unique:
            inner = _inner(optimizer)
            if not inner.use_ema or int(optimizer.iterations):
                continue
            averages = inner._model_variables_moving_average
            for variable, average in zip(inner._trainable_variables, averages):
                if average is not None:
                    average.assign(variable)

    def finalize(self):
        """Ends a training, as Keras does for a model's only optimizer."""
        for optimizer, variables in zip(self.unique, self._variables):
            # Averages of one that has made no step are zeros.
            if int(optimizer.iterations):
                optimizer.finalize_variable_values(list(variables))

    def renew(self):
        """Makes all as new, but for their learning rates."""
        for optimizer in self.unique:
            inner = _inner(optimizer)
            if inner is not optimizer:
                optimizer.step_counter.assign(0)
                optimizer.dynamic_scale.assign(optimizer.initial_scale)
            if not int(inner.iterations):
                continue
            if hasattr(inner, "reset"):
                inner.reset()
                continue
            fresh = type(inner).from_config(inner.get_config())
            fresh.build(list(inner._trainable_variables))
            for old, new in zip(inner.variables, fresh.variables):
                if old is not inner._learning_rate:
                    old.assign(new)

    def get_config(self):
        """JSON-ready settings."""
        serialize = keras.saving.serialize_keras_object
        return {
            "optimizers": [serialize(each) for each in self.unique],
            "of": {
                name: [each is o for o in self.unique].index(True)
                for name, each in self.of.items()
            },
        }

    @classmethod
    def from_config(cls, config):
        """{objective: optimizer} of what `get_config` returned."""
        made = [
            keras.saving.deserialize_keras_object(each)
            for each in config["optimizers"]
        ]
        return {name: made[place] for name, place in config["of"].items()}


def _inner(optimizer):
    """What an optimizer that scales losses is around; others themselves."""
    return getattr(optimizer, "inner_optimizer", optimizer)


def _optimizer(given, scaled):
    optimizer = keras.optimizers.get(given)
    is_scaled = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
    if scaled and not is_scaled:
        return keras.optimizers.LossScaleOptimizer(optimizer)
    return optimizer
