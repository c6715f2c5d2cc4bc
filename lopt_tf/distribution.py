"""Strategies of tf.distribute, and what their processes need."""

import contextlib
import signal

import tensorflow as tf

STRATEGIES = ("default", "mirrored", "multi_worker", "tpu", "parameter_server")


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
    except (ValueError, OSError, tf.errors.OpError, RuntimeError) as error:
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
    # Python's own handlers would not be called while the server waits.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
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
            f"({type(error).__name__}). The last checkpoint is kept: start "
            "all workers again, and resume."
        ) from error
