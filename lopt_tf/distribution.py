"""Strategies of tf.distribute, and the replicas that share instances."""

import contextlib

import tensorflow as tf

STRATEGIES = (
    "default",
    "mirrored",
    "multi_worker",
    "tpu",
    "parameter_server",
)


class WorkerLostError(ConnectionError):
    """Another worker of the cluster does not answer any more."""


def make(name, tpu=None):
    """A strategy by name; call it before anything else of TensorFlow.

    Args:
        name: one of `STRATEGIES`. "multi_worker" and "parameter_server" read
            the cluster from the environment variable TF_CONFIG.
        tpu: with "tpu", the TPU's name or address.

    Raises:
        ValueError: for an unknown name, a TPU that cannot be reached, or a
            TF_CONFIG that is missing or wrong.
    """
    makers = {
        "default": tf.distribute.get_strategy,
        "mirrored": _mirrored,
        "multi_worker": _multi_worker,
        "tpu": lambda: _tpu(tpu),
        "parameter_server": _parameter_server,
    }
    if name not in makers:
        raise ValueError(
            f"Unknown strategy {name!r}. Known: {', '.join(STRATEGIES)}."
        )
    return makers[name]()


def _cluster(*needed):
    """The resolver of TF_CONFIG.

    Args:
        needed: task types of which the cluster must have one.
    """
    try:
        resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
        spec = resolver.cluster_spec().as_dict()
        task = (resolver.task_type, resolver.task_id)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"TF_CONFIG cannot be read ({error}).") from error
    missing = [kind for kind in needed if not spec.get(kind)]
    if missing or None in task:
        raise ValueError(
            "TF_CONFIG must describe the cluster and this process, with at "
            f"least one {' and one '.join(needed)}: "
            '{"cluster": {"worker": ["host:port", ...]}, '
            '"task": {"type": "worker", "index": 0}}. '
            f"Received: cluster {spec or 'empty'}, task {task}"
        )
    return resolver


def _mirrored():
    """All GPUs, or all logical CPUs where there is none."""
    if tf.config.list_logical_devices("GPU"):
        return tf.distribute.MirroredStrategy()
    devices = tf.config.list_logical_devices("CPU")
    return tf.distribute.MirroredStrategy([d.name for d in devices])


def _multi_worker():
    _cluster("worker")
    return tf.distribute.MultiWorkerMirroredStrategy()


def _tpu(name):
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(name or "")
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
    except (ValueError, tf.errors.OpError, RuntimeError) as error:
        raise ValueError(
            f"There is no TPU {name or 'here'} that can be reached "
            f"({str(error).splitlines()[0]}). Name one with tpu, or choose "
            "another strategy."
        ) from error
    return tf.distribute.TPUStrategy(resolver)


def _parameter_server():
    return tf.distribute.ParameterServerStrategy(
        _cluster("worker", "ps", "chief")
    )


def serve():
    """Makes this process a worker or a parameter server, if it is one.

    Returns:
        False for the chief, who goes on with the program; a worker or a
        parameter server never returns: it works until it is terminated.
    """
    resolver = _cluster("worker", "ps", "chief")
    if resolver.task_type not in ("worker", "ps"):
        return False
    server = tf.distribute.Server(
        resolver.cluster_spec(),
        job_name=resolver.task_type,
        task_index=resolver.task_id,
        protocol=resolver.rpc_layer or "grpc",
    )
    server.join()
    return True


@contextlib.contextmanager
def lost_workers_reported():
    """Turns the errors of a cluster that fell apart into one clear one."""
    try:
        yield
    except (
        tf.errors.UnavailableError,
        tf.errors.AbortedError,
        tf.errors.CancelledError,
        tf.errors.DeadlineExceededError,
    ) as error:
        raise WorkerLostError(
            "Another worker does not answer any more "
            f"({str(error).splitlines()[0][:200]}). The last checkpoint is "
            "kept: start all workers again, with --resume."
        ) from error


class Replicas:
    """The devices that share the instances of a problem.

    Arrays have one row for each instance, or one for each copy of each
    instance (all instances' first copies, then the second ones ...). Every
    replica holds the rows of its own instances, as a per-replica value of
    `tf.distribute`; with one replica everything is a plain tensor.

    Args:
        strategy: a `tf.distribute.Strategy`; the current one if None.
    """

    def __init__(self, strategy=None):
        self.strategy = strategy or tf.distribute.get_strategy()
        self.count = self.strategy.num_replicas_in_sync
        self.index = tf.constant(0)
        if self.count > 1:
            make = self.strategy.experimental_distribute_values_from_function
            self.index = make(
                lambda context: tf.constant(context.replica_id_in_sync_group)
            )

    @property
    def num_workers(self):
        """Processes that run the same program in step."""
        if not isinstance(
            self.strategy, tf.distribute.MultiWorkerMirroredStrategy
        ):
            return 1
        spec = self.strategy.cluster_resolver.cluster_spec().as_dict()
        return sum(len(spec.get(kind, ())) for kind in ("chief", "worker")) or 1

    @property
    def is_chief(self):
        """Whether this process writes files and reports."""
        if self.num_workers == 1:
            return True
        resolver = self.strategy.cluster_resolver
        if resolver.task_type == "chief":
            return True
        has_chief = "chief" in resolver.cluster_spec().as_dict()
        return not has_chief and resolver.task_id == 0

    def agree(self, flags):
        """Whether any worker says so, for each of a list of booleans."""
        if self.num_workers == 1:
            return list(flags)
        votes = tf.constant(flags, "float32")
        votes = self.strategy.run(tf.identity, (votes,))
        total = self.strategy.reduce("SUM", votes, axis=None)
        return [bool(vote > 0) for vote in total.numpy()]

    def compiled(self, function):
        """`function` compiled, each replica running it on its own values.

        Returns:
            (what to call, the `tf.function` that counts compilations).
        """
        inner = compiled(function)
        if self.count == 1:
            return inner, inner
        outer = tf.function(
            lambda *args: self.strategy.run(inner, args), autograph=False
        )
        return outer, inner

    def each(self, function, *args):
        """Calls a function of a few operations on each replica's values."""
        if self.count == 1:
            return function(*args)
        if isinstance(self.strategy, tf.distribute.TPUStrategy):
            # It runs nothing outside of graphs.
            run = tf.function(self.strategy.run, autograph=False)
            return run(function, args)
        return self.strategy.run(function, args)

    def mean(self, value):
        """The mean over replicas of a per-replica value."""
        if self.count == 1:
            return value
        if self.num_workers > 1:
            return self.strategy.reduce("MEAN", value, axis=None)
        return tf.add_n(self._local(value)) / self.count

    def rank(self, value):
        """The number of axes of a per-replica value."""
        return self._local(value)[0].shape.rank

    def split(self, array, axis=0, copies=1):
        """Gives every replica the rows of its instances.

        Args:
            array: a tensor with copies * K rows along `axis`.
            axis: the axis of the instances.
            copies: how many copies of each instance it has.
        """
        if self.count == 1:
            return array
        rows = array.shape[axis] // (copies * self.count)

        def own(whole, replica):
            parts = [
                tf.gather(part, tf.range(rows) + replica * rows, axis=axis)
                for part in tf.split(whole, copies, axis=axis)
            ]
            return tf.concat(parts, axis=axis)

        return self.each(own, tf.convert_to_tensor(array), self.index)

    def join(self, value, axis=0, copies=1):
        """The inverse of `split`; all workers must call it."""
        if self.count == 1:
            return value
        whole = self._gathered(value, axis)
        pieces = tf.split(whole, self.count * copies, axis=axis)
        ordered = [
            pieces[replica * copies + copy]
            for copy in range(copies)
            for replica in range(self.count)
        ]
        return tf.concat(ordered, axis=axis)

    def _local(self, value):
        """What this process holds of a per-replica value."""
        return self.strategy.experimental_local_results(value)

    def _gathered(self, value, axis):
        local = self._local(value)
        if self.num_workers == 1:
            return tf.concat(local, axis=axis)
        # Booleans cannot be gathered.
        dtype = local[0].dtype
        if dtype == tf.bool:
            value = self.each(lambda v: tf.cast(v, "int32"), value)
        return tf.cast(self.strategy.gather(value, axis=axis), dtype)


def compiled(function):
    """An XLA-compiled function; its Python runs as written, once."""
    return tf.function(function, jit_compile=True, autograph=False)
