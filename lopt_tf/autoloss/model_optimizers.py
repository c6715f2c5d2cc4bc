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
        """Raises ValueError for a shared optimizer that collects gradients.

        It counts all steps: one objective's could always fall between two
        updates.
        """
        for name, optimizer in self.of.items():
            inner = getattr(optimizer, "inner_optimizer", optimizer)
            is_shared = sum(o is optimizer for o in self.of.values()) > 1
            if is_shared and inner.gradient_accumulation_steps:
                raise ValueError(
                    "An optimizer with gradient_accumulation_steps must be of "
                    f"one objective alone. Received one for {name!r} and "
                    "others: give each its own, {objective: optimizer}."
                )

    def build(self, variables):
        """Builds them for {objective: list of variables}."""
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

    def finalize(self):
        """Ends a training, as Keras does for a model's only optimizer."""
        for optimizer, variables in zip(self.unique, self._variables):
            optimizer.finalize_variable_values(list(variables))

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


def _optimizer(given, scaled):
    optimizer = keras.optimizers.get(given)
    is_scaled = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
    if scaled and not is_scaled:
        return keras.optimizers.LossScaleOptimizer(optimizer)
    return optimizer
