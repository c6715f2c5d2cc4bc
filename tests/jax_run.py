"""Runs the program `imagenet` on a small network: alone and shared.

Run as a program: KERAS_BACKEND=jax python jax_run.py FOLDER FLAGS.
"""

import sys

from replicas_run import small_net

from lopt_tf.images import models
from train_scripts import imagenet


def main(folder, *flags):
    models.build = small_net

    def run(name, *more):
        given = ["imagenet", *flags, f"--output_dir={folder}/{name}", *more]
        return imagenet.main(given)

    assert run("alone") == 0
    assert run("shared", "--strategy=mirrored") == 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
