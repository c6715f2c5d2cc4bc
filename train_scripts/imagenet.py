"""Trains an image classifier with a learned or a usual optimizer.

    python -m train_scripts.imagenet --output_dir=DIR
    python -m train_scripts.imagenet --model=resnet50_v2 --batch_size=256 \
        --dataset=imagenet2012 --data_dir=TFDS --manual_dir=TAR_FILES \
        --steps=500000 --dtype_policy=mixed_bfloat16 --output_dir=DIR

The first trains a small ResNet on scikit-learn's digits, which are always
there. DIR gets metrics.csv (step, seconds, split, loss, top1, top5), backups,
TensorBoard's files and, at the end, model.keras. Stop it at any moment, and
resume with --resume: it sees the batches that it would have seen.

Compare runs: python -m train_scripts.evaluate --experiment=imagenet
--runs=DIR,DIR,... Commands for GPUs, TPUs and several machines, and what they
take: docs/imagenet.md.
"""

import functools
import sys

from absl import flags

from train_scripts import command_line

FLAGS = command_line.Flags()
FLAGS.str("output_dir", None, "Folder for everything.")
FLAGS.enum(
    "model",
    "resnet20_v2",
    [
        "resnet20_v2",
        "inception_v3",
        "resnet50_v2",
        "resnet101_v2",
        "resnet152_v2",
        "inception_resnet_v2",
        "xception",
        "mobilenet_v2",
    ],
    "Which network, untrained; resnet20_v2 is for small images.",
)
FLAGS.str(
    "start_from",
    None,
    "model.keras of an earlier training of the same --model, to go on from "
    "its weights; the last layer starts anew if the number of classes is "
    "another one.",
)
FLAGS.str(
    "dataset",
    "digits",
    "digits; synthetic (noise, for speed); a name of TensorFlow Datasets "
    "(imagenet2012, imagenet_resized/64x64, imagenette, cifar10); a folder "
    "that they prepared; a folder with train/CLASS/FILE and "
    "validation/CLASS/FILE (as ./NAME); or an .npz file with x_train, y_train, "
    "x_test and y_test.",
)
FLAGS.str("data_dir", None, "Folder of TFDS data sets.")
FLAGS.str(
    "manual_dir",
    None,
    "Folder of ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar, which "
    "imagenet2012 is prepared from.",
)
FLAGS.str(
    "optimizer",
    None,
    "adam, momentum or rmsprop; one of these with _cosine; or a trained "
    "optimizer: a file, the folder of a meta-training, or the name of shipped "
    "weights. The default weights if not given.",
)
_SETTINGS = {
    "batch_size": (int, "Images in a step, on all replicas together."),
    "image_size": (int, "Pixels of a side; the network's or the data set's."),
    "steps": (int, "Of the whole training."),
    "log_every": (int, "Steps between two rows of metrics.csv."),
    "test_every": (int, "Steps between two tests; about ten in all."),
    "checkpoint_every": (int, "Steps between two backups; as --test_every."),
    "seed": (int, "Of weights, order, augmentation and optimizer."),
    "learning_rate": (
        float,
        "The optimizer's own; 1.0, which multiplies the step, if learned.",
    ),
    "decay_share": (
        float,
        "Share of the steps, the last ones, in which the learning rate falls "
        "to 0; 0.25 suits learned optimizers in long runs.",
    ),
    "label_smoothing": (float, "Share of the label given to all classes."),
}
FLAGS.options(_SETTINGS, "{} May be left out.")
FLAGS.enum(
    "augmentation",
    None,
    ["inception", "shift", "none"],
    "inception: random parts, flips and colours; shift: small shifts and "
    "flips. What suits the data set if not given.",
)
FLAGS.enum(
    "dtype_policy",
    "float32",
    ["float32", "mixed_float16", "mixed_bfloat16"],
    "What the network computes in; its variables are float32. mixed_float16 "
    "scales the loss.",
)
FLAGS.enum(
    "strategy",
    "default",
    ["default", "mirrored", "multi_worker", "tpu", "parameter_server"],
    "mirrored: all GPUs of this machine, or all devices of JAX. multi_worker: "
    "machines that TF_CONFIG names. parameter_server is not for fit.",
)
FLAGS.str("tpu", None, "With --strategy=tpu: the TPU's name or address.")
FLAGS.int(
    "steps_per_execution", 1, "Steps in one call; for TPUs.", lower_bound=1
)
FLAGS.bool(
    "jit_compile",
    None,
    "Compile the whole step with XLA; Keras decides if not given. On a CPU it "
    "makes convolutions slow.",
)
FLAGS.bool("resume", False, "Resume from the newest backup.")
# With _SETTINGS: flags of the training's settings, which have its defaults.
_NAMES = ("model", "start_from", "dataset", "optimizer", "augmentation")


@command_line.main(FLAGS, "output_dir")
def main():
    from lopt_tf.evaluation import image_devices, image_settings, image_training

    if FLAGS.strategy != "tpu":
        FLAGS.refuse(["tpu"], "without --strategy=tpu")
    if FLAGS.strategy == "parameter_server":
        raise flags.Error(
            "--strategy=parameter_server is asynchronous, which Keras' fit is "
            "not: use multi_worker."
        )
    settings = image_settings.Settings(
        **FLAGS.given([*_NAMES, *_SETTINGS]), dtype_policy=FLAGS.dtype_policy
    )
    settings.completed()
    jit_compile = FLAGS.jit_compile
    # Until the first row is there, an interrupt ends the program at once.
    deferred_stop = functools.cache(command_line.deferred_stop)
    with image_devices.strategy(FLAGS.strategy, FLAGS.tpu) as strategy:
        image_training.train(
            settings,
            FLAGS.output_dir,
            strategy=strategy,
            data_dir=FLAGS.data_dir,
            manual_dir=FLAGS.manual_dir,
            resume=FLAGS.resume,
            steps_per_execution=FLAGS.steps_per_execution,
            jit_compile="auto" if jit_compile is None else jit_compile,
            report=command_line.say,
            stop=lambda: deferred_stop()(),
        )
    command_line.say(f"Metrics: {FLAGS.output_dir}/metrics.csv")


if __name__ == "__main__":
    sys.exit(main(sys.argv))
