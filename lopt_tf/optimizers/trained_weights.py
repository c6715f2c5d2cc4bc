"""The part of the Keras optimizer that keeps trained weights."""

import warnings

import keras
import numpy as np
from keras import ops

from lopt_tf import checks
from lopt_tf.optimizers import backends, pretrained, registry

_NO_FILE = (
    "it was made from the configuration of an optimizer whose trained weights "
    "are in no file, and a configuration holds no weights. Save them with "
    "save_pretrained(), or use copy.deepcopy() or pickle"
)


class TrainedWeights:
    """The part of `LearnedOptimizer` that keeps trained weights.

    Configurations hold the name of weights that ship with the package, or the
    path of one's own file. Copies (`copy.copy`, `copy.deepcopy`, pickle) hold
    the weights themselves, and the state.
    """

    # The absolute path of the file that weights of one's own are in, the digest
    # of trained weights that do not ship, and why they are not there.
    pretrained_path = None
    _digest = None
    _why_missing = None
    # A copy's variables, until it is built.
    _copied_variables = None

    @classmethod
    def from_pretrained(cls, path_or_name=None, **kwargs):
        """Makes an optimizer with trained weights.

        Args:
            path_or_name: a file that `save_pretrained` or the meta-training
                wrote, or the name of weights that ship with the package;
                None for the default ones that do.
                `LearnedOptimizer.from_pretrained` makes whatever optimizer
                the file holds; a subclass takes its own kind only.
            **kwargs: Keras arguments such as `learning_rate`. Arguments of
                the rule come from the file, but those in the rule's
                `adjustable` can be given, too.

        Raises:
            ValueError: if the file is missing, damaged or of another kind,
                the name is unknown, or an argument contradicts the file.
        """
        wanted = getattr(cls.rule_class, "name", None)
        trained = pretrained.load_rule(path_or_name, wanted)
        if wanted is None:
            cls = registry.optimizer_class(trained.rule.name)
        return cls.from_rule(trained, **kwargs)

    @classmethod
    def from_rule(cls, trained, **kwargs):
        """As `from_pretrained`, of a `pretrained.TrainedRule` that was loaded.

        Args:
            trained: of this class' kind.
            **kwargs: as for `from_pretrained`.
        """
        config = trained.rule.get_config()
        for key in sorted(set(config) & set(kwargs)):
            given = kwargs.pop(key)
            given = list(given) if isinstance(given, tuple) else given
            if key in trained.rule.adjustable:
                config[key] = given
            elif given != config[key]:
                raise ValueError(
                    f"{trained.path} was trained with {key}={config[key]!r}, "
                    f"which cannot be changed. Received: {key}={given!r}"
                )
        optimizer = cls(**config, **kwargs)
        optimizer._take_weights(trained.weights)
        optimizer.pretrained_name = trained.name
        if trained.name is None:
            optimizer.pretrained_path = pretrained.absolute(trained.path)
        return optimizer

    def save_pretrained(self, path):
        """Saves the rule's configuration and weights to one file."""
        self._notice_variables()
        pretrained.save(path, self._rule, self.rule_weights())
        if self._weights_are_known and self.pretrained_name is None:
            self.pretrained_path = pretrained.absolute(path)

    def rule_weights(self):
        """The rule's meta-parameters now: {name: NumPy array}."""
        if not self.built:
            return self._initial_weights()
        return {
            name: ops.convert_to_numpy(variable)
            for name, variable in self._weight_variables.items()
        }

    def _initial_weights(self):
        if self._trained_weights is not None:
            # Without the wrapper of Keras' tracking.
            return dict(self._trained_weights)
        return self._rule.init_weights(self.seed)

    def _take_weights(self, weights):
        weights = {name: np.asarray(array) for name, array in weights.items()}
        expected = self._rule.init_weights(0)
        wrong = checks.wrong_arrays(
            weights, {name: array.shape for name, array in expected.items()}
        )
        if wrong:
            raise ValueError(
                "The weights do not fit this optimizer's configuration "
                f"({'; '.join(wrong)}). Meta-train it again, or take another "
                "file."
            )
        self._trained_weights = weights
        self._digest = pretrained.digest(self._trained_weights)
        self._weights_are_known = True

    def _check_weights(self):
        """Before a step: says if the weights are not trained ones.

        Raises:
            ValueError: if their file is missing, and they never came from
                elsewhere.
        """
        if not self._weights_are_known:
            self._notice_variables()
        if self._weights_are_known:
            return
        if self.pretrained_path is not None:
            raise ValueError(
                f"The weights of {self.name} did not come: "
                f"{self._why_missing} Bring the file back, or make the "
                "optimizer with from_pretrained()."
            )
        self._weights_are_known = True
        why = self._why_missing or (
            f"{self._rule.before_training}. Use from_pretrained(), or "
            "meta-train one"
        )
        warnings.warn(
            f"{type(self).__name__} has no trained weights: {why}.",
            stacklevel=3,
        )

    # Configurations and copies.

    def get_config(self):
        self._notice_variables()
        config = super().get_config()
        config.update(self._rule.get_config())
        ships = self.pretrained_name is not None
        config.update(
            seed=self.seed,
            pretrained_name=self.pretrained_name,
            pretrained_path=self.pretrained_path,
            pretrained_digest=None if ships else self._digest,
            jit_compile=self.jit_compile,
        )
        return config

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """Makes an optimizer from its configuration.

        Weights of one's own are read from the file that they came from. If it
        is missing, they may still come with a model's variables; the first
        step raises a ValueError if they did not.
        """
        config = dict(config)
        path = config.pop("pretrained_path", None)
        digest = config.pop("pretrained_digest", None)
        optimizer = super().from_config(config, custom_objects)
        if digest is not None:
            optimizer._find_weights(path, digest)
        return optimizer

    def _find_weights(self, path, digest):
        self.pretrained_path, self._digest = path, digest
        self._why_missing = _NO_FILE
        if path is None:
            return
        try:
            weights = pretrained.load_rule(path, self._rule.name).weights
            if pretrained.digest(weights) == digest:
                self._take_weights(weights)
                return
            self._why_missing = (
                f"{path} holds other weights than it did when the "
                "configuration was made."
            )
        except ValueError as error:
            self._why_missing = str(error)

    def __reduce__(self):
        config = self.get_config()
        if callable(self._learning_rate) and not isinstance(
            self._learning_rate,
            keras.optimizers.schedules.LearningRateSchedule,
        ):
            config["learning_rate"] = self._learning_rate
        weights = self.rule_weights() if self._weights_are_known else None
        variables = None
        if self.built:
            variables = [ops.convert_to_numpy(v) for v in self.variables]
        elif self._copied_variables is not None:
            variables = list(self._copied_variables().values())
        return _copied, (type(self), config, weights, variables)

    # Variables from files.

    def set_weights(self, weights):
        """Sets all variables, of equal shapes, from a list of arrays."""
        if self.built:
            for variable, value in zip(self.variables, weights):
                if tuple(variable.shape) != tuple(np.shape(value)):
                    raise ValueError(
                        f"Optimizer variable {variable.path} has the shape "
                        f"{variable.shape}. Received an array of the shape "
                        f"{np.shape(value)}; nothing was changed."
                    )
        super().set_weights(weights)
        self._follow_variables()

    def load_own_variables(self, store):
        """Sets all variables from a file, if it is of equal variables."""
        store = {key: store[key] for key in store.keys()}
        if self.built:
            self._add_newer(store)
        why = self._why_not(store)
        if why is not None:
            warnings.warn(
                f"Skipping variable loading for optimizer '{self.name}', "
                f"because {why}. The optimizer stays as it is.",
                stacklevel=2,
            )
            return
        super().load_own_variables(store)
        self._follow_variables()

    def _add_newer(self, store):
        """Adds the last variables, which files of older versions lack."""
        count = len(self.variables)
        newer = (np.int32(0), ops.convert_to_numpy(self._shapes_digest))
        for i in range(max(len(store), count - len(newer)), count):
            store.setdefault(str(i), newer[i - count])

    def _why_not(self, store):
        """What of a file does not fit; None if all does."""
        variables = self.variables
        if len(store) != len(variables):
            unbuilt = "" if self.built else " (it is not built yet)"
            return (
                f"it has {len(variables)} variables{unbuilt} whereas the "
                f"saved optimizer has {len(store)} variables"
            )
        for i, variable in enumerate(variables):
            found = store.get(str(i))
            if found is None or tuple(variable.shape) != tuple(np.shape(found)):
                return (
                    f"its variable {variable.path} has the shape "
                    f"{tuple(variable.shape)} whereas the saved one has "
                    f"{None if found is None else tuple(np.shape(found))}"
                )
        if self.built:
            own = int(ops.convert_to_numpy(self._shapes_digest))
            saved = int(np.asarray(store[str(len(variables) - 1)]))
            if own and saved not in (0, own):
                return "the saved one is of variables of other shapes"
        return None

    def _notice_variables(self):
        """Follows variables that were assigned by TensorFlow's checkpoints.

        These tell nobody, and come when they like.
        """
        if not (self.built and backends.can_be_read()):
            return
        with backends.outside_of_graphs():
            before, now = self._initial_weights(), self.rule_weights()
            if pretrained.digest(before) != pretrained.digest(now):
                self._follow_variables()

    def _follow_variables(self):
        """Takes what the weights' variables hold for the trained weights."""
        found = self.rule_weights()
        if not self.built or not any(np.any(a) for a in found.values()):
            # All zero: see `reset`.
            return
        digest = pretrained.digest(found)
        if digest != self._digest:
            self._digest = digest
            self.pretrained_name = self.pretrained_path = None
        self._trained_weights = found
        self._weights_are_known = True


def _copied(cls, config, weights, variables):
    optimizer = cls.from_config(config)
    if weights is not None:
        optimizer._take_weights(weights)
    if variables is not None:
        store = {str(i): value for i, value in enumerate(variables)}
        # A function, which Keras does not track.
        optimizer._copied_variables = lambda: store
    return optimizer
