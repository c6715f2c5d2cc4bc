"""Asynchronous meta-training: each worker on its own problem.

As published: the weights live on parameter servers; a worker reads them when
it begins, unrolls its own problem, and its meta-gradient is applied as it
arrives, while the others go on with what they had read.
"""

import tensorflow as tf

from lopt_tf import distribution
from lopt_tf.metatraining import trainer as trainer_lib


def new_trainer(problems, rule, options, weights, replicas):
    """The `Trainer` for a strategy."""
    asynchronous = isinstance(
        replicas.strategy, tf.distribute.ParameterServerStrategy
    )
    made = AsynchronousTrainer if asynchronous else trainer_lib.Trainer
    return made(problems, rule, options, weights, replicas)


class AsynchronousTrainer(trainer_lib.Trainer):
    """Meta-trains with a `tf.distribute.coordinator.ClusterCoordinator`.

    Every problem under way is on its way to some worker; results are taken
    in turn. A worker's meta-gradient belongs to the weights that it had
    read, up to `parallel_tasks` updates ago, so that a run does not repeat
    exactly. The work of a lost worker goes to another one.
    """

    def __init__(self, problems, rule, options, weights=None, replicas=None):
        strategy = replicas.strategy
        # Within a worker there is one replica.
        local = distribution.Replicas(tf.distribute.get_strategy())
        super().__init__(problems, rule, options, weights, local)
        self.coordinator = tf.distribute.coordinator.ClusterCoordinator(
            strategy
        )
        devices = tf.config.list_logical_devices("CPU")
        self.num_workers = sum("/job:worker/" in d.name for d in devices)
        with strategy.scope():
            self._shared = tf.Variable(self.weights)
        self._functions = {}
        self._under_way = {}

    def describe(self):
        """One line: on what the training runs."""
        return f"{self.num_workers} asynchronous workers"

    def _estimate(self, turn, task):
        for place, other in enumerate(self._tasks):
            if place not in self._under_way:
                self._under_way[place] = self._schedule(other)
        outcome = self._under_way.pop(turn).fetch()
        found, objectives, carry = tf.nest.map_structure(
            tf.convert_to_tensor, outcome
        )
        return self._estimator(task.name).estimate(
            task.run, task.plan[0], found, objectives, carry
        )

    def _schedule(self, task):
        """Sends a task's next partial unroll to whichever worker is free."""
        estimator = self._estimator(task.name)
        inputs = estimator.inputs(self.vector, task.run, task.plan[0])
        return self.coordinator.schedule(
            self._function(task.name),
            args=(task.constants, task.run.carry, inputs),
        )

    def _function(self, name):
        if name not in self._functions:
            estimator = self._estimator(name)

            def compute(constants, carry, inputs):
                return estimator.compute(
                    self.vector,
                    self._shared.read_value(),
                    constants,
                    carry,
                    inputs,
                )

            self._functions[name] = tf.function(compute, autograph=False)
        return self._functions[name]

    def _move(self, gradient):
        super()._move(gradient)
        self._shared.assign(self.weights)

    def restore(self, arrays, metadata):
        super().restore(arrays, metadata)
        self._under_way = {}
        self._shared.assign(self.weights)
