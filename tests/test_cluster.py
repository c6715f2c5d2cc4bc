"""Several processes on one machine: they train, are lost, and resume."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from asynchronous_run import free_address

from lopt_tf import checkpointing
from train_scripts import metatrain

ROOT = pathlib.Path(__file__).parent.parent
SETTINGS = [
    "--problems=bowl_problems.0,quadratic_problems.0",
    "--instances=4",
    "--segment_length=5",
    "--level_sizes=3,4,5",
    "--checkpoint_every_s=0.5",
    "--compile_cache=",
]
MANY = 10**6
# Seconds. A program is compiled in 20 seconds of a free core: far longer
# where other tests share the cores.
PATIENCE = 1200

pytestmark = pytest.mark.slow


class Cluster:
    """Processes of one meta-training.

    Args:
        jobs: {task type: number of processes}.
        folder: the output folder; the processes' outputs go beside it.
        flags: more flags of the program.
    """

    def __init__(self, jobs, folder, *flags):
        addresses = {
            job: [free_address() for _ in range(count)]
            for job, count in jobs.items()
        }
        command = [sys.executable, "-m", "train_scripts.metatrain", *SETTINGS]
        command += ["--threads=1", f"--output_dir={folder}", *flags]
        self.processes, self.outputs = {}, {}
        for job, places in addresses.items():
            for i in range(len(places)):
                task = {"type": job, "index": i}
                config = {"cluster": addresses, "task": task}
                output = folder.with_name(f"{folder.name}-{job}-{i}.txt")
                self.outputs[job, i] = output
                self.processes[job, i] = subprocess.Popen(
                    command,
                    cwd=ROOT,
                    env={**os.environ, "TF_CONFIG": json.dumps(config)},
                    stdout=output.open("w"),
                    stderr=subprocess.STDOUT,
                )

    def kill(self, job, index=0):
        self.processes[job, index].kill()

    def wait(self, job, index=0):
        return self.processes[job, index].wait(timeout=PATIENCE)

    def output(self, job, index=0):
        return self.outputs[job, index].read_text()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        for process in self.processes.values():
            process.kill()
            process.wait()


def _wait(condition, cluster):
    """Waits for a condition, while the chief is at work."""
    chief = next(iter(cluster.processes))
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if condition():
            return
        assert cluster.processes[chief].poll() is None, cluster.output(*chief)
        time.sleep(0.1)
    raise AssertionError(cluster.output(*chief))


def _updates(folder):
    """The number of the newest checkpoint, 0 if there is none."""
    names = sorted((folder / "checkpoints").glob("checkpoint-*.npz"))
    return int(names[-1].stem.split("-")[1]) if names else 0


def _optimizer(folder):
    path = folder / "optimizer.npz"
    return checkpointing.load(path, "lopt_tf.optimizer")[0]


def test_workers_in_step(tmp_path):
    folder, workers = tmp_path / "run", {"worker": 2}
    flags = ["--strategy=multi_worker"]
    with Cluster(workers, folder, *flags, f"--meta_updates={MANY}") as cluster:
        _wait(lambda: _updates(folder) > 5, cluster)
        cluster.kill("worker", 1)
        assert cluster.wait("worker", 0) == 2
        assert "2 replicas in use on 2 workers" in cluster.output("worker", 0)
        error = cluster.output("worker", 0).splitlines()
        (error,) = [line for line in error if line.startswith("error:")]
        assert "Another worker does not answer" in error
    left = _updates(folder)
    shutil.copytree(folder, tmp_path / "alone")
    flags += ["--resume", f"--meta_updates={left + 50}"]
    with Cluster(workers, folder, *flags) as cluster:
        assert cluster.wait("worker", 0) == 0, cluster.output("worker", 0)
        assert cluster.wait("worker", 1) == 0
        assert f"meta-update {left + 50}/" in cluster.output("worker", 0)
    alone = [*SETTINGS, "--resume", f"--meta_updates={left + 50}"]
    alone.append(f"--output_dir={tmp_path / 'alone'}")
    assert metatrain.main(["metatrain", *alone]) == 0
    ours, expected = _optimizer(folder), _optimizer(tmp_path / "alone")
    for name, array in expected.items():
        np.testing.assert_allclose(ours[name], array, rtol=0.02, atol=0.02)


def test_workers_in_step_stop_together(tmp_path):
    folder = tmp_path / "run"
    flags = ["--strategy=multi_worker", f"--meta_updates={MANY}"]
    with Cluster({"worker": 2}, folder, *flags) as cluster:
        _wait(lambda: _updates(folder) > 0, cluster)
        cluster.processes["worker", 1].send_signal(signal.SIGTERM)
        assert cluster.wait("worker", 0) == 130
        assert cluster.wait("worker", 1) == 130
        lines = cluster.output("worker", 0).splitlines()
        last = [line for line in lines if line.startswith("meta-update")][-1]
    assert last.startswith(f"meta-update {_updates(folder)}/")


def test_asynchronous_workers(tmp_path):
    folder = tmp_path / "run"
    jobs = {"chief": 1, "worker": 2, "ps": 1}
    flags = ["--strategy=parameter_server"]
    with Cluster(jobs, folder, *flags, f"--meta_updates={MANY}") as cluster:
        _wait(lambda: _updates(folder) > 5, cluster)
        assert "2 asynchronous workers" in cluster.output("chief")
        cluster.kill("worker", 1)
        _wait(lambda: "worker 1" in cluster.output("chief"), cluster)
        assert "does not answer" in cluster.output("chief")
        # The other worker goes on with the work.
        known = _updates(folder)
        _wait(lambda: _updates(folder) > known + 5, cluster)
        for job in ("worker", "ps"):
            cluster.processes[job, 0].terminate()
            assert cluster.wait(job, 0) == -signal.SIGTERM
    left = _updates(folder)
    flags += ["--resume", f"--meta_updates={left + 50}"]
    with Cluster(jobs, folder, *flags) as cluster:
        assert cluster.wait("chief") == 0, cluster.output("chief")
        assert f"meta-update {left + 50}/" in cluster.output("chief")
    assert all(np.all(np.isfinite(w)) for w in _optimizer(folder).values())
