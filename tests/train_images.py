"""Trainings of image classifiers at length: too long for every day.

    python tests/train_images.py imagenet resnet50_v2 32
    python tests/train_images.py imagenet inception_v3 75
    python tests/train_images.py lost_worker
    python tests/train_images.py replicas 4

imagenet: ImageNet 2012, as its builder makes it of small tar files; 20 steps,
killed after 10 and resumed, beside an undisturbed run. lost_worker: one of two
processes is killed, the other says so, both resume. replicas: that many
logical CPUs against one. Run it where lopt_tf can be imported.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import image_files
import numpy as np
from asynchronous_run import free_address

from lopt_tf.evaluation import image_callbacks

TESTS = pathlib.Path(__file__).parent


def start(program, *arguments, **environment):
    """A process of a Python program, with its output in one text."""
    return subprocess.Popen(
        [sys.executable, *map(str, program), *map(str, arguments)],
        cwd=TESTS.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONPATH": str(TESTS.parent), **environment},
    )


def finish(process, status=0):
    """The process' output, whose exit status must be that."""
    output = process.communicate()[0]
    assert process.returncode == status, output
    return output


def cluster(folder, *flags):
    """Two processes of the program with a small network, in step."""
    addresses = {"worker": [free_address(), free_address()]}
    config = {"cluster": addresses}
    return [
        start(
            [TESTS / "small_imagenet.py"],
            *(f"--output_dir={folder}", "--strategy=multi_worker", *flags),
            "--threads=1",
            TF_CONFIG=json.dumps(
                {**config, "task": {"type": "worker", "index": number}}
            ),
        )
        for number in range(2)
    ]


def metrics(folder):
    """The rows of metrics.csv without their seconds."""
    rows = image_callbacks.read_metrics(folder / "metrics.csv")
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


def weights(folder):
    """The arrays of the trained network."""
    import keras

    return keras.saving.load_model(folder / "model.keras").get_weights()


def largest_difference(ours, expected):
    """Of the weights of two folders."""
    pairs = zip(weights(ours), weights(expected))
    return max(float(np.max(np.abs(a - b))) for a, b in pairs)


def kill_after_a_backup(folder, process, *others):
    """Kills a process when there is a backup."""
    while not list((folder / "backups").glob("step-*[0-9]")):
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.05)
    process.kill()
    process.communicate()


def imagenet(root, model, size):
    image_files.ilsvrc(root, image_files.photographs())
    program = ["-m", "train_scripts.imagenet"]
    flags = [
        f"--model={model}",
        f"--image_size={size}",
        "--dataset=imagenet2012",
        f"--data_dir={root / 'tfds'}",
        f"--manual_dir={root}",
        *("--batch_size=4", "--steps=20", "--log_every=5", "--threads=1"),
        *("--test_every=20", "--checkpoint_every=10"),
    ]
    killed, whole = root / "killed", root / "whole"
    process = start(program, *flags, f"--output_dir={killed}")
    kill_after_a_backup(killed, process)
    more = [*flags, f"--output_dir={killed}", "--resume"]
    print(finish(start(program, *more)))
    print(finish(start(program, *flags, f"--output_dir={whole}")))
    print((whole / "metrics.csv").read_text())
    print((whole / "facts.json").read_text())
    losses = [r["loss"] for r in metrics(whole) if r["split"] == "train"]
    assert np.all(np.isfinite(losses)) and losses[-1] < losses[0], losses
    assert metrics(killed) == metrics(whole)
    assert largest_difference(killed, whole) == 0


def lost_worker(root):
    folder, alone = root / "shared", root / "alone"
    flags = ["--batch_size=16", "--steps=40", "--log_every=2"]
    flags += ["--checkpoint_every=2", "--test_every=20"]
    first, second = cluster(folder, *flags)
    kill_after_a_backup(folder, second)
    output = finish(first, 2)
    assert "Another worker does not answer" in output, output
    print([line for line in output.splitlines() if "error:" in line])
    for worker in cluster(folder, *flags, "--resume"):
        finish(worker)
    program = [TESTS / "small_imagenet.py"]
    finish(start(program, *flags, f"--output_dir={alone}"))
    ours, expected = metrics(folder), metrics(alone)
    assert len(ours) == len(expected) == 22
    print("losses", ours[-1]["loss"], expected[-1]["loss"])
    print("weights", largest_difference(folder, alone))


def replicas(root, count):
    names = ("hierarchical_rnn_scaled", "adam")
    program = [TESTS / "replicas_run.py", count]
    print(finish(start(program, *names)).splitlines()[-1])


def main(name, *arguments):
    parts = {f.__name__: f for f in (imagenet, lost_worker, replicas)}
    with tempfile.TemporaryDirectory() as folder:
        parts[name](pathlib.Path(folder), *arguments)
    print("as expected")


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
