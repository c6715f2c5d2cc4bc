"""Objectives of an `AlternatingModel`: a loss and the variables it updates."""

import dataclasses
from collections.abc import Callable
from typing import Any

import keras

_OF_LOGS = ("val_", "share/", "controller/")


@dataclasses.dataclass(frozen=True, eq=False)
class Objective:
    """A loss, the variables that it updates, and how often.

    Attributes:
        loss: a function of (model, batch, training) that returns a scalar:
            `model` is the `AlternatingModel`, `batch` an element of the data
            set. It is the whole loss: layers' regularizers count if it adds
            `sum(model.NAME.losses)`. If the model is to be saved, register it
            with `keras.saving.register_keras_serializable()`.
        variables: a layer, a model, a variable, or a list of these. Of layers
            and models it updates what is trainable when the model is compiled.
        updates: how many updates a step makes, each on the next batch.
            Defaults to `1`.
    """

    loss: Callable
    variables: Any
    updates: int = 1

    def __post_init__(self):
        if not callable(self.loss):
            raise ValueError(
                "The loss of an objective must be a function of (model, batch, "
                f"training). Received: loss={self.loss!r}"
            )
        counts = isinstance(self.updates, int) and self.updates is not True
        if not counts or self.updates < 1:
            raise ValueError(
                "`updates` of an objective must be an integer of at least 1. "
                f"Received: updates={self.updates!r}"
            )

    def parts(self):
        """The layers and variables as a list."""
        if isinstance(self.variables, (list, tuple)):
            return list(self.variables)
        return [self.variables]


def check(objectives, models, reserved=()):
    """Checks what an `AlternatingModel` is given; raises ValueError.

    Args:
        objectives: {name: Objective}.
        models: {name: Keras model or layer}.
        reserved: names that the model has other uses for. Defaults to none.
    """
    fits = isinstance(objectives, dict) and len(objectives) >= 2
    if not fits or not all(
        isinstance(name, str) and name and isinstance(each, Objective)
        for name, each in objectives.items()
    ):
        raise ValueError(
            "An AlternatingModel needs at least two objectives, as a "
            "dictionary {name: Objective(loss, variables)}. Received: "
            f"{objectives!r}"
        )
    for name in objectives:
        if name.startswith(_OF_LOGS):
            raise ValueError(
                f"An objective cannot be called {name!r}: what fit shows has "
                f"other names that begin with {', '.join(_OF_LOGS)}."
            )
    for name, model in models.items():
        if not isinstance(model, keras.layers.Layer):
            raise ValueError(
                f"`{name}` must be a Keras model or layer. Received: "
                f"{name}={model!r}"
            )
        if name in reserved or name.startswith("_"):
            raise ValueError(
                f"A model cannot be called {name!r}: that is an attribute of "
                "every AlternatingModel. Give it another name."
            )
    for name, each in objectives.items():
        if not each.parts():
            raise ValueError(f"The objective {name!r} updates no variables.")
        for part in each.parts():
            reference(name, part, models)


def variables_of(name, objective):
    """The variables that an objective updates, each once.

    Raises:
        ValueError: if there is none.
    """
    found = {}
    for part in objective.parts():
        is_layer = isinstance(part, keras.layers.Layer)
        for v in part.trainable_variables if is_layer else [part]:
            found[id(v)] = v
    if not found:
        raise ValueError(
            f"The variables of the objective {name!r} are all frozen, or it "
            "has none. Set `trainable` of its layers before `compile`."
        )
    return list(found.values())


def reference(name, part, models):
    """Where a layer or variable is among the models, ready for JSON.

    Args:
        name: of the objective, for messages.
        part: a layer or variable.
        models: {name: model}.

    Returns:
        [model's name], [model's name, layer's name] or [model's name, layer's
        name or None, place among its weights].
    """
    for model_name, model in models.items():
        if part is model:
            return [model_name]
        for layer in _layers(model):
            if layer is part:
                return [model_name, layer.name]
        # The innermost layer comes last.
        for layer in reversed([model, *_layers(model)]):
            for place, v in enumerate(layer.weights):
                if v is part:
                    layer_name = None if layer is model else layer.name
                    return [model_name, layer_name, place]
    raise ValueError(
        f"The objective {name!r} updates {part!r}, which belongs to none of "
        "the models. Name its model as an argument: AlternatingModel("
        "objectives, generator=generator). A layer that has not been built yet "
        "cannot be told by its variables: name the layer itself."
    )


def get_config(objectives, models):
    """{name: JSON-ready settings}; ValueError if one cannot be saved."""
    config = {}
    for name, each in objectives.items():
        _check_registered(name, each.loss)
        references = [reference(name, p, models) for p in each.parts()]
        for place in references:
            if len(place) > 1 and place[1] is not None:
                _check_unique(models[place[0]], *place[:2])
        config[name] = {
            "loss": keras.saving.serialize_keras_object(each.loss),
            "variables": references,
            "updates": each.updates,
        }
    _check_not_shared(models)
    return config


def from_config(config, models):
    """{name: Objective} of what `get_config` returned."""
    return {
        name: Objective(
            keras.saving.deserialize_keras_object(each["loss"]),
            [_find(models, *place) for place in each["variables"]],
            each["updates"],
        )
        for name, each in config.items()
    }


def _layers(model):
    return list(model._flatten_layers(include_self=False))


def _find(models, model_name, layer_name=None, place=None):
    layer = models[model_name]
    if layer_name is not None:
        layer = next(x for x in _layers(layer) if x.name == layer_name)
    return layer if place is None else layer.weights[place]


def _check_unique(model, model_name, layer_name):
    if sum(layer.name == layer_name for layer in _layers(model)) > 1:
        raise ValueError(
            f"Several layers of {model_name!r} are called {layer_name!r}: a "
            "file could not tell them apart. Give them different names."
        )


def _check_not_shared(models):
    """Raises ValueError for a layer with weights in two of the models."""
    owners = {}
    for name, model in models.items():
        for layer in [model, *_layers(model)]:
            owner = owners.setdefault(id(layer), name)
            if owner != name and layer.weights:
                raise ValueError(
                    f"The layer {layer.name!r} is a part of both {owner!r} and "
                    f"{name!r}: Keras would load two layers. Make one model "
                    "with several outputs of them, or save the weights alone, "
                    "with `save_weights`."
                )


def _home(function):
    names = ("__module__", "__qualname__")
    return [getattr(function, name, None) for name in names]


def _check_registered(name, loss):
    is_function = not hasattr(loss, "get_config")
    named = loss if is_function else type(loss)
    known = hasattr(named, "__name__") and keras.saving.get_registered_object(
        keras.saving.get_registered_name(named)
    )
    # A notebook's cell that is run again registers another of that name.
    if not known or _home(known) != _home(named):
        raise ValueError(
            f"The loss of the objective {name!r} cannot be saved. Make it a "
            "function with the decorator "
            "@keras.saving.register_keras_serializable(), or save the weights "
            "alone, with `save_weights`."
        )
