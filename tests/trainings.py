"""Small meta-trainings for tests."""

import numpy as np
import tensorflow as tf

from lopt_tf import metatraining
from lopt_tf.optimizers.hierarchical_rnn import HierarchicalRNNRule
from problems import corpus

NAMES = ["norm_problems.1", "bowl_problems.0"]


def options(**kwargs):
    defaults = {
        "meta_updates": 8,
        "instances": 2,
        "segment_length": 5,
        "parallel_tasks": 2,
        "curriculum": metatraining.Curriculum(
            starts=2, mean_partials=1, min_length=5, mean_length=5
        ),
    }
    return metatraining.TrainingOptions(**{**defaults, **kwargs})


def rule():
    return HierarchicalRNNRule(level_sizes=(3, 4, 5))


def train(options, folder=None, **kwargs):
    return metatraining.train(
        corpus.select(NAMES), rule(), options, output_dir=folder, **kwargs
    )


def assert_same(ours, expected):
    assert set(ours) == set(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(ours[name], array, err_msg=name)


def tags(folder):
    (events, *_) = sorted((folder / "tensorboard").glob("*"))
    return {
        value.tag
        for event in tf.compat.v1.train.summary_iterator(str(events))
        for value in event.summary.value
    }
