"""Asynchronous meta-training: each worker on its own problem.

As published: the weights live on parameter servers; a worker reads them when
it begins, unrolls its own problem, and its meta-gradient is applied as it
arrives, while the others go on with what they had read.
"""

import concurrent.futures
import contextlib
import socket
import threading

import tensorflow as tf

from lopt_tf import compilation
from lopt_tf.metatraining import replicas as replicas_lib
from lopt_tf.metatraining import trainer as trainer_lib


class AsynchronousTrainer(trainer_lib.Trainer):
    """Meta-trains with a `tf.distribute.coordinator.ClusterCoordinator`.

    There are at least as many problems under way as workers; results are
    taken as they arrive. A worker's meta-gradient belongs to the weights
    that it had read, some updates ago, so that a run does not repeat
    exactly. The work of a lost worker goes to another one.
    """

    def __init__(self, problems, rule, options, weights, replicas, best=None):
        if options.estimator in ("bptt", "full"):
            compilation.check_all_fit(len(problems))
        strategy = replicas.strategy
        # Within a worker there is one replica.
        local = replicas_lib.Replicas(count=1)
        devices = tf.config.list_logical_devices("CPU")
        self.num_workers = sum("/job:worker/" in d.name for d in devices)
        super().__init__(problems, rule, options, weights, local, best)
        self.coordinator = tf.distribute.coordinator.ClusterCoordinator(
            strategy
        )
        with strategy.scope():
            self._shared = tf.Variable(self.weights)
        self._functions = {}
        # {place of a problem: its outcome, when it has been fetched}.
        self._pending = {}
        self._fetchers = concurrent.futures.ThreadPoolExecutor(
            self._num_parallel, "fetch"
        )

    def _devices(self):
        return f"{self.num_workers} asynchronous workers"

    @contextlib.contextmanager
    def watch(self):
        """Reports workers that are lost or back while the block runs."""
        resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
        addresses = resolver.cluster_spec().as_dict()["worker"]
        ended = threading.Event()
        arguments = (dict(enumerate(addresses)), self.say, ended)
        # A daemon: the coordinator may wait for workers for ever.
        threading.Thread(target=_watch, args=arguments, daemon=True).start()
        try:
            yield
        finally:
            ended.set()

    @property
    def _num_parallel(self):
        return max(self.options.parallel_tasks, self.num_workers)

    def _place(self):
        """The place of a problem whose outcome has arrived."""
        for place, it in enumerate(self._under_way):
            if place not in self._pending:
                # Any worker that is free does the next partial unroll.
                estimator = self._runs.estimator(it.name)
                inputs = estimator.inputs(self.vector, it.run, it.plan[0])
                remote = self.coordinator.schedule(
                    self._function(it.name),
                    args=(it.constants, it.run.carry, inputs),
                )
                self._pending[place] = self._fetchers.submit(remote.fetch)
        done, _ = concurrent.futures.wait(
            self._pending.values(),
            return_when=concurrent.futures.FIRST_COMPLETED,
        )
        return next(p for p, f in self._pending.items() if f in done)

    def _estimate(self, place, it):
        outcome = tf.nest.map_structure(
            tf.convert_to_tensor, self._pending.pop(place).result()
        )
        estimator = self._runs.estimator(it.name)
        return estimator.estimate(it.run, it.plan[0], outcome)

    def _function(self, name):
        if name not in self._functions:
            estimator = self._runs.estimator(name)

            def compute(*args):
                weights = self._shared.read_value()
                return estimator.compute(self.vector, weights, *args)

            self._functions[name] = tf.function(compute, autograph=False)
        return self._functions[name]

    def _move(self, gradient):
        super()._move(gradient)
        self._shared.assign(self.weights)

    def restore(self, arrays, metadata):
        super().restore(arrays, metadata)
        self._pending = {}
        self._shared.assign(self.weights)


def _watch(workers, report, ended, every_s=2.0):
    """Tries to reach the workers {number: address} again and again."""
    lost = set()
    while not ended.wait(every_s):
        for number, address in workers.items():
            answers = _answers(address)
            if answers and number in lost:
                lost.remove(number)
                report(f"worker {number} ({address}) is back")
            elif not answers and number not in lost:
                lost.add(number)
                left = len(workers) - len(lost)
                report(
                    f"worker {number} ({address}) does not answer: its "
                    f"problems wait for the {left} other workers, or for a "
                    "new one at this address"
                )


def _answers(address):
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=2).close()
    except OSError:
        return False
    return True
