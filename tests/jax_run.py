"""Runs the program `imagenet` on a small network: alone, resumed, shared.

Run as a program: KERAS_BACKEND=jax python jax_run.py FOLDER FLAGS.
"""

import sys

from replicas_run import small_net

from lopt_tf.images import models
from train_scripts import command_line, imagenet


def main(folder, *flags):
    models.build = small_net

    def run(name, *more):
        given = ["imagenet", *flags, f"--output_dir={folder}/{name}", *more]
        return imagenet.main(given)

    assert run("alone") == 0
    asked = []
    deferred_stop = command_line.deferred_stop
    command_line.deferred_stop = lambda: (
        lambda: asked.append(1) or (len(asked) == 3)
    )
    assert run("resumed") == 130
    command_line.deferred_stop = deferred_stop
    assert run("resumed", "--resume") == 0
    assert run("shared", "--strategy=mirrored") == 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
