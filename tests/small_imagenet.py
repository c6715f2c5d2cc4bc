"""The program `imagenet` with a small network in the place of all."""

import sys

from replicas_run import small_net

from lopt_tf.images import models
from train_scripts import imagenet

if __name__ == "__main__":
    models.build = small_net
    sys.exit(imagenet.main(sys.argv))
