"""How an `AlternatingModel` is written to files and read from them."""

import keras

from lopt_tf.autoloss import objectives as objectives_lib
from lopt_tf.autoloss import schedule_argument
from lopt_tf.autoloss.model_optimizers import Optimizers


class SavedModel:
    """The part of `AlternatingModel` that Keras' files call."""

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

    def seeds(self):
        """The states of random numbers, dropout's among them: variables."""
        name = "seed_generator_state"
        return [v for v in self.variables if v.name == name]

    def save_own_variables(self, store):
        # Keras saves no states of random numbers.
        for number, variable in enumerate(self.seeds()):
            store[f"seed_{number}"] = variable.numpy()

    def load_own_variables(self, store):
        for number, variable in enumerate(self.seeds()):
            if f"seed_{number}" in store.keys():
                variable.assign(store[f"seed_{number}"])

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
            "jit_compile": self._given_jit_compile,
            "steps_per_execution": self.steps_per_execution,
            "run_eagerly": self.run_eagerly,
        }

    def compile_from_config(self, config):
        config = dict(config)
        config["optimizer"] = Optimizers.from_config(config["optimizer"])
        config["schedule"] = schedule_argument.from_config(config["schedule"])
        if self.replica_strategy.num_replicas_in_sync > 1:
            # How it was trained on one device is no matter here.
            config |= {"jit_compile": "auto", "steps_per_execution": 1}
        self.compile(**config)
