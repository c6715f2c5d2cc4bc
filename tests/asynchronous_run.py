"""Trains with asynchronous workers; prints what came of it as JSON.

Two workers and a parameter server live in this process.
"""

import json
import os
import socket

import numpy as np
import tensorflow as tf

from lopt_tf import distribution, metatraining
from lopt_tf.optimizers.hierarchical_rnn import HierarchicalRNNRule
from problems import corpus

RULE = HierarchicalRNNRule(level_sizes=(3, 4))


def free_address():
    """host:port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("localhost", 0))
        return f"localhost:{found.getsockname()[1]}"


def start_cluster():
    """Starts the servers and sets the chief's TF_CONFIG."""
    addresses = {
        "worker": [free_address() for _ in range(2)],
        "ps": [free_address()],
    }
    config = tf.compat.v1.ConfigProto(inter_op_parallelism_threads=8)
    servers = [
        tf.distribute.Server(
            tf.train.ClusterSpec(addresses),
            job_name=job,
            task_index=i,
            protocol="grpc",
            config=config,
        )
        for job, places in addresses.items()
        for i in range(len(places))
    ]
    everyone = {**addresses, "chief": [free_address()]}
    task = {"type": "chief", "index": 0}
    os.environ["TF_CONFIG"] = json.dumps({"cluster": everyone, "task": task})
    return servers


def train(strategy, **options):
    """(weights, lines of progress)."""
    lines = []
    options = metatraining.TrainingOptions(
        instances=2,
        segment_length=4,
        curriculum=metatraining.Curriculum(
            starts=2, mean_partials=1, min_length=4, mean_length=4
        ),
        **options,
    )
    weights = metatraining.train(
        corpus.select(["bowl_problems.0", "quadratic_problems_noisy.0"]),
        RULE,
        options,
        strategy=strategy,
        report=lines.append,
    )
    return weights, lines


def distance(ours, other):
    """The largest difference of two sets of weights."""
    return float(max(np.max(np.abs(ours[n] - other[n])) for n in ours))


def main():
    """Runs everything."""
    servers = start_cluster()
    strategy = distribution.make("parameter_server")
    ours, _ = train(strategy, parallel_tasks=1, meta_updates=4)
    alone, _ = train(None, parallel_tasks=1, meta_updates=4)
    found = {
        "largest_difference": distance(ours, alone),
        "moved": {},
        "finite": {},
    }
    start = RULE.init_weights(0)
    for kind in ("bptt", "pes"):
        weights, lines = train(
            strategy, estimator=kind, parallel_tasks=2, meta_updates=8
        )
        found["lines"] = lines
        found["moved"][kind] = distance(weights, start)
        found["finite"][kind] = all(
            bool(np.all(np.isfinite(w))) for w in weights.values()
        )
    print(json.dumps(found), flush=True)
    assert len(servers) == 3
    # The servers' threads would keep the process alive.
    os._exit(0)


if __name__ == "__main__":
    main()
