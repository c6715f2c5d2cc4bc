"""`ControllerTraining`: trains a controller while its model trains."""

import dataclasses

import keras
import numpy as np

from lopt_tf.autoloss import learning, schedules
from lopt_tf.autoloss.controller import ScheduleController
from lopt_tf.autoloss.options import ControllerOptions

# Published, but for the learning rate and the weight of the entropy.
_PPO = ControllerOptions(algorithm="ppo", entropy_bonus=0.01)


class ControllerTraining(keras.callbacks.Callback):
    """Trains the controller of an `AlternatingModel` in `fit`, by PPO.

    Every 50 steps the policy learns from the last 200. Meanwhile a share of
    the actions is drawn evenly: 0.5 at the beginning of the training, falling
    to 0.1 at its end; afterwards none (AutoLoss, section 5.2 on translation).

    ```python
    options = autoloss.ControllerOptions(algorithm="ppo", features=(...))
    controller = autoloss.ScheduleController.untrained(
        "mine", model.objectives, options
    )
    model.compile("adam", schedule=controller)
    model.fit(data, callbacks=[autoloss.ControllerTraining(options)])
    controller.save("controller.npz")
    ```

    The reward of a step is sign * sqrt(improvement / mean improvement), at
    most 20, of the model's first objective. Logs get "controller/entropy" and
    the other figures of `ppo.PPO`, means over the updates of an epoch (NaN
    without one).

    Its state is a part of the model: .keras files, weights files and
    `BackupAndRestore` have it, and a training that is resumed goes on exactly.
    It acts before the other callbacks of `fit`, wherever it stands.

    Args:
        options: `ControllerOptions` of the algorithm "ppo": its learning rate,
            `discount`, `gae_lambda`, `clip`, `entropy_bonus`, `step_scale` and
            `seed` are used; features and network are the controller's.
            Defaults to those options with an entropy bonus of 0.01.
        reward: "loss", the moving average of the training loss, at every step.
            Where objectives share their data it is measured even if others act,
            see `measure_every` of `compile`; else it moves when its objective
            acts. Or "validation": the validation loss, which `fit` finds out at
            the end of an epoch; every step since the last one gets its reward,
            and the policy waits with learning till then, so that epochs should
            be short (published: 50 steps). Defaults to `"loss"`.
        path: a file that gets the controller after each epoch. Defaults to
            `None`.

    Raises:
        ValueError: for other options; in `fit`, if the model has no controller
            (or one of even draws), or several replicas, or no validation data
            where these are needed.
    """

    # `fit_hooks` puts it before others: a backup has what it does.
    acts_first = True

    def __init__(self, options=None, reward="loss", path=None):
        super().__init__()
        options = _PPO if options is None else options
        if getattr(options, "algorithm", None) != "ppo":
            raise ValueError(
                "ControllerTraining takes ControllerOptions(algorithm='ppo'). "
                f"Received: options={options!r}. Other algorithms need whole "
                "episodes: derive a problems.alternating.ModelTask."
            )
        if reward not in learning.NEEDS:
            raise ValueError(
                f"`reward` must be one of {', '.join(learning.NEEDS)}. "
                f"Received: reward={reward!r}"
            )
        self.options = options
        self.reward = reward
        self.path = path
        self.needs = {
            f"ControllerTraining(reward={reward!r})": learning.NEEDS[reward]
        }

    def set_model(self, model):
        super().set_model(model)
        schedule = getattr(model, "schedule", None)
        if not isinstance(schedule, schedules.PolicySchedule):
            raise ValueError(
                "ControllerTraining trains the controller of an "
                "AlternatingModel. Compile the model with "
                "schedule=ScheduleController.untrained(...) or a trained one. "
                f"Received: schedule={type(schedule).__name__}"
            )
        if schedule.even_draws:
            raise ValueError(
                "ControllerTraining trains controllers whose draws are "
                "independent. Set `controller.even_draws = False` before the "
                "model is compiled with it."
            )
        if model.replica_strategy.num_replicas_in_sync > 1:
            raise ValueError(
                "ControllerTraining does not train with several replicas. "
                "Train the controller on one device, and compile the model "
                "with its file."
            )
        names = schedule.features.names
        self._learning = model.learning
        self._learning.begin(
            schedule,
            # The value network looks at what the policy looks at.
            dataclasses.replace(
                self.options, features=names, alternation=0.0, first_share=0.0
            ),
            self.reward,
            model.steps_per_execution,
            self._progress(),
        )
        actions = schedule.actions or tuple(model.objectives)
        config = schedule.policy.get_config()
        self.controller = ScheduleController(model.name, actions, names, config)
        self.controller.policy = schedule.policy

    def _progress(self):
        return float(self.model.schedule_state.metadata()["progress"][0])

    def _present(self):
        """(features, training loss) after the last step, NumPy arrays."""
        choice = self.model._actions.look()
        level = self.model.schedule_state.known_train_loss()
        return choice.features.numpy(), level.numpy()

    def on_train_batch_end(self, batch, logs=None):
        updates = self._learning.learner.updates
        self._learning.take(self._present)
        if self._learning.learner.updates > updates:
            self._learning.explore(self._progress())

    def on_epoch_end(self, epoch, logs=None):
        state = self.model.schedule_state.metadata()
        if state["validated"][0]:
            found = {n: state[n].numpy() for n in learning.NEEDS["validation"]}
            self._learning.validate(found, self._present)
            self._learning.explore(self._progress())
        if logs is not None:
            figures = self._learning.learner.figures()
            for name, value in figures.items():
                value = np.nan if value is None else value
                logs[f"controller/{name}"] = value
        if self.path is not None:
            self.controller.save(self.path)

    def on_train_end(self, logs=None):
        self._learning.pause()
