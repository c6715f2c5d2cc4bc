"""The weights that ship with the package."""

import json
import os
import pathlib
import subprocess
import sys

import first_release
import keras
import numpy as np
import pytest

import lopt_tf
from lopt_tf.optimizers import pretrained

ROOT = pathlib.Path(__file__).parents[1]


def test_shipped_weights_have_cards():
    names = lopt_tf.list_pretrained()
    assert names == [
        f"hierarchical_rnn_{name}"
        for name in ("roles", "all_round", "bounded", "lasting", "scaled")
    ]
    for name in names:
        card = pretrained.path(name).with_suffix(".md").read_text()
        _, *parts = card.split("\n## ")
        sections = dict(part.split("\n", 1) for part in parts)
        for heading in ("Recipe", "Cost", "Results", "Known weaknesses"):
            assert len(sections[heading].split()) > 20, (name, heading)
        assert f'from_pretrained("{name}")' in "".join(card.split())


@pytest.mark.parametrize("name", [None, *lopt_tf.list_pretrained()])
def test_shipped_weights_train_a_network(name):
    """In `compile` and `fit`, without a warning about missing weights."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(256, 12)).astype("float32")
    y = (x @ rng.normal(size=(12, 4))).argmax(1)
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [keras.layers.Dense(24, activation="relu"), keras.layers.Dense(4)]
    )
    optimizer = lopt_tf.LearnedOptimizer.from_pretrained(name, seed=2)
    model.compile(
        optimizer=optimizer,
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    history = model.fit(x, y, batch_size=32, epochs=25, verbose=0).history
    assert history["accuracy"][-1] > 0.95
    shipped = name or lopt_tf.list_pretrained()[0]
    assert optimizer.get_config()["pretrained_name"] == shipped
    for array in optimizer.rule_weights().values():
        assert np.all(np.isfinite(array))


def test_the_default_is_scaled_with_units_by_role():
    load = lopt_tf.HierarchicalRNN.from_pretrained
    made, default = load("hierarchical_rnn_scaled", step_unit="role"), load()
    assert made.rule.get_config() == default.rule.get_config()
    for name, array in default.rule_weights().items():
        np.testing.assert_array_equal(array, made.rule_weights()[name])


def test_the_lower_bound_is_all_that_two_of_them_differ_in():
    lasting, all_round = (
        pretrained.load_rule(f"hierarchical_rnn_{name}").weights
        for name in ("lasting", "all_round")
    )
    for name, array in lasting.items():
        np.testing.assert_array_equal(array, all_round[name])
    load = lopt_tf.HierarchicalRNN.from_pretrained
    made = load("hierarchical_rnn_lasting", min_log_lr=-33.0)
    assert (
        made.rule.get_config()
        == load("hierarchical_rnn_all_round").rule.get_config()
    )
    again = lopt_tf.HierarchicalRNN.from_config(made.get_config())
    assert again.rule.min_log_lr == -33.0


@pytest.mark.parametrize("name", first_release.OPTIMIZERS)
def test_weights_of_the_first_release_give_the_same_steps(name):
    optimizer = first_release.load(name)
    kind, config = first_release.OPTIMIZERS[name]
    assert type(optimizer) is getattr(lopt_tf, kind)
    assert optimizer.rule == type(optimizer)(**config).rule
    computed = first_release.steps(optimizer)
    expected = np.load(first_release.FOLDER / "steps.npz")
    for key, array in computed.items():
        np.testing.assert_allclose(
            array, expected[f"{name}/{key}"], rtol=1e-6, atol=1e-6, err_msg=key
        )


def test_model_of_the_first_release_resumes():
    expected = np.load(first_release.FOLDER / "resumed.npz")
    computed = first_release.resumed()
    assert set(computed) == set(expected)
    for key, array in computed.items():
        np.testing.assert_allclose(
            array, expected[key], rtol=1e-6, atol=1e-6, err_msg=key
        )


@pytest.mark.slow
def test_weights_are_in_what_is_installed(tmp_path):
    """A build outside of the checkout finds them, and their cards."""
    built = tmp_path / "built"
    subprocess.run(
        [
            sys.executable,
            "setup.py",
            "--quiet",
            "egg_info",
            f"--egg-base={tmp_path}",
            "build_py",
            f"--build-lib={built}",
        ],
        cwd=ROOT,
        check=True,
    )
    code = (
        "import json, lopt_tf;"
        "optimizer = lopt_tf.HierarchicalRNN.from_pretrained();"
        "print(json.dumps([lopt_tf.__file__, lopt_tf.list_pretrained(),"
        " optimizer.get_config()['pretrained_name']]))"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(built)},
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    where, names, name = json.loads(printed.splitlines()[-1])
    assert pathlib.Path(where).is_relative_to(built)
    assert names == list(lopt_tf.list_pretrained()) and name == names[0]
    folder = built / "lopt_tf" / "optimizers" / "pretrained"
    for name in names:
        assert (folder / f"{name}.md").is_file()
