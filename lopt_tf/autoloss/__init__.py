"""AutoLoss: schedules of losses, fixed ones and learned ones."""

from lopt_tf.autoloss.compiled_episodes import episodes_of
from lopt_tf.autoloss.controller import ScheduleController
from lopt_tf.autoloss.controller_training import ControllerTraining
from lopt_tf.autoloss.episodes import Episodes, play
from lopt_tf.autoloss.keras_model import AlternatingModel
from lopt_tf.autoloss.objectives import Objective
from lopt_tf.autoloss.options import ControllerOptions
from lopt_tf.autoloss.policy import Policy
from lopt_tf.autoloss.tasks import TASKS, recipe
from lopt_tf.autoloss.trainer import train

__all__ = [
    "TASKS",
    "AlternatingModel",
    "ControllerOptions",
    "ControllerTraining",
    "Episodes",
    "Objective",
    "Policy",
    "ScheduleController",
    "episodes_of",
    "play",
    "recipe",
    "train",
]
