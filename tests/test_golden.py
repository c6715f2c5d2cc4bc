"""Parity with numbers measured by running the original release.

Reads every file of a folder (`LOPT_GOLDEN_DIR`, default tests/golden), and
tells by its content what it is.
"""

import functools
import json
import os
import pathlib

import golden_names
import numpy as np
import pytest
import tensorflow as tf

from lopt_tf.metatraining import (
    estimators,
    inner_steps,
    objective,
    unroll,
)
from lopt_tf.optimizers import layouts
from lopt_tf.optimizers.hierarchical_rnn import HierarchicalRNNRule
from problems import corpus, datasets
from problems.classifiers import FullyConnected
from problems.problem import stateless_seed
from problems.quadratic import Quadratic

FOLDER = pathlib.Path(
    os.environ.get("LOPT_GOLDEN_DIR")
    or pathlib.Path(__file__).parent / "golden"
)
_RULE_ARGUMENTS = set(HierarchicalRNNRule().get_config())
# Relative to the largest entry of a step; about 3 times the release's own
# float32 error against float64.
_STEP_TOLERANCE = 2e-5


def _form(path):
    """What a golden file holds."""
    if path.suffix == ".md":
        return "documentation"
    if path.suffix == ".json":
        content = json.loads(path.read_text())
        return "problem_specs" if "sets" in content else "behaviour"
    with np.load(path, allow_pickle=False) as file:
        keys = file.files
    if any(key.startswith("metagrad/") for key in keys):
        return "metagrad"
    if "rnn_input_size_level0" in keys:
        return "hrnn"
    if any(key.startswith("traj/update_step/") for key in keys):
        return "other"
    if any(key.endswith("/call_json") for key in keys):
        return "datasets"
    if any(key.endswith("/set0/objective") for key in keys):
        return "problems"
    raise ValueError(f"{path} is of no known form.")


def _forms():
    """{form: paths}; an unreadable file is of the form "broken"."""
    found = {}
    for path in sorted(FOLDER.glob("*")) if FOLDER.is_dir() else []:
        try:
            form = _form(path)
        except Exception:  # noqa: BLE001 - test_folder_is_understood says why
            form = "broken"
        found.setdefault(form, []).append(path)
    return found


FILES = _forms()


def _files(form):
    return pytest.mark.parametrize(
        "path", FILES.get(form, []), ids=lambda path: path.stem
    )


def test_folder_is_understood():
    for path in FILES.get("broken", []):
        _form(path)
    measured = ("hrnn", "metagrad", "problems", "other", "datasets")
    assert any(FILES.get(form) for form in measured), f"nothing in {FOLDER}"


# The hierarchical RNN.


def _rule(file):
    config = json.loads(str(file["config_json"]))
    used = {k: v for k, v in config.items() if k in _RULE_ARGUMENTS}
    return HierarchicalRNNRule(**used), config


def _assert_close(name, ours, reference, tolerance=_STEP_TOLERANCE):
    ours, reference = np.asarray(ours), np.asarray(reference)
    assert ours.shape == reference.shape, name
    error = np.max(np.abs(ours.astype("float64") - reference))
    assert error <= tolerance * np.max(np.abs(reference)), f"{name}: {error}"


@_files("hrnn")
def test_hierarchical_rnn_trajectory(path):
    file = np.load(path)
    rule, _ = _rule(file)
    count = len(json.loads(str(file["shapes_json"])))
    weights = golden_names.arrays(file, "meta/")
    drawn = rule.init_weights(0)
    assert {n: w.shape for n, w in weights.items()} == {
        n: w.shape for n, w in drawn.items()
    }
    assert sum(w.size for w in drawn.values()) == file["num_meta_parameters"]
    assert rule.num_inputs == file["rnn_input_size_level0"]
    params = [file[f"init/params/{i}"] for i in range(count)]
    state = golden_names.state(file, "init/", count)
    if not rule.use_attention:
        del state["true_parameters"]
    layout = layouts.choose_layout(params)
    for step in range(len(file["grads/0"])):
        grads = [file[f"grads/{i}"][step] for i in range(count)]
        steps, attended, _ = rule.updates(
            weights, state, layout, layout.pack(grads)
        )
        params, state = rule.step(weights, state, params, grads)
        true = rule.true_parameters(weights, state, params)
        expected = golden_names.state(file, "traj/", count, step)
        for name in state:
            _assert_close(f"{name}, step {step}", state[name], expected[name])
        for i in range(count):
            compared = {
                "update_step": layout.unpack(steps)[i],
                "params": true[i],
                "attended": params[i],
            }
            if attended is not None:
                compared["attention_step"] = layout.unpack(attended)[i]
            for name, ours in compared.items():
                reference = file[f"traj/{name}/{i}"][step]
                _assert_close(f"{name}/{i}, step {step}", ours, reference)


# Meta-gradients.


class _GivenUnroller(unroll.Unroller):
    """Takes its minibatches and its start from a golden file."""

    def __init__(self, *args, given, first_step, start, **kwargs):
        super().__init__(*args, **kwargs)
        self._given, self._first_step = given, first_step
        self._start_given = start

    def batches(self, seed, first_step):
        if self._given is None:
            return super().batches(seed, first_step)
        begin = first_step - self._first_step
        rows = self._given[begin : begin + self.segment_length]
        return rows[:, None].astype("int32")

    def draw_start(self, seed):
        return self._start_given


def _golden_problem(file):
    names = [key for key in file.files if key.startswith("problem/")]
    constants = {
        name.removeprefix("problem/"): tf.constant(file[name][None])
        for name in names
    }
    if "w" in constants:
        return Quadratic(constants["w"].shape[1]), constants
    shapes = [
        file[f"start/params/{i}"].shape
        for i in range(sum(k.startswith("start/params/") for k in file.files))
    ]
    rows = file["problem/data"].shape[0]
    data = datasets.Dataset(datasets.random_mlp, shapes[0][0], rows)
    constants["labels"] = tf.cast(constants["labels"], "int32")
    hidden = [shape[0] for shape in shapes[1:-2:2]]
    batch_size = file["batches"].shape[1]
    problem = FullyConnected(shapes[0][0], 2, data, batch_size, hidden)
    return problem, constants


def _golden_estimate(file, second_derivatives):
    rule, config = _rule(file)
    info = json.loads(str(file["info_json"]))
    problem, constants = _golden_problem(file)
    count = len(problem.shapes)
    steps, before = info["steps"], info["steps_before"]
    length = next(n for n in (4, 5, 3, 2, 1) if steps % n == 0)
    state = golden_names.state(file, "start/", count)
    if not rule.use_attention:
        del state["true_parameters"]
    true = [tf.constant(file[f"start/params/{i}"][None]) for i in range(count)]
    start = problem.loss(true, constants)[None]
    layout = layouts.choose_layout(true, 1)
    log_lrs = state.get("log_learning_rate", layout.pack(true)[0])
    log_lrs = [tensor[None] for tensor in layout.unpack(tf.constant(log_lrs))]
    unroller = _GivenUnroller(
        problem,
        rule,
        1,
        length,
        second_derivatives,
        keeps_trail=True,
        given=file["batches"] if "batches" in file.files else None,
        first_step=before,
        start=(true, log_lrs),
    )
    attended = [file[f"start/attended/{i}"][None] for i in range(count)]
    carry = inner_steps.Carry(
        params=[tf.constant(tensor) for tensor in attended],
        state={n: tf.constant(s[None]) for n, s in state.items()},
        initial=tf.constant(file["initial_obj"][None]),
        alive=tf.constant([True]),
    )
    # In a first unroll the learned initial states get a gradient, too.
    run = estimators.Run((0,), before, carry if before else ())
    score = objective.MetaObjective(
        config["use_log_objective"],
        config["use_numerator_epsilon"],
        file["obj_weights"],
    )

    def as_in_the_release(objectives, initial, alive):
        # Its list has the start twice, and lacks the final parameters.
        recorded = tf.concat([start, start, objectives[:-1]], axis=0)
        return score(recorded, initial)

    weights = {
        name: tf.constant(array)
        for name, array in golden_names.arrays(file, "meta/").items()
    }
    vector = estimators.WeightVector(weights)
    estimator = estimators.TruncatedBackpropagation(unroller, as_in_the_release)
    estimate, _ = estimator.step(
        vector, vector.flatten(weights), constants, run, steps // length
    )
    gradients = vector.unflatten(estimate.gradient)
    return estimate, start, gradients


def _assert_gradients(ours, reference):
    largest = max(np.max(np.abs(r)) for r in reference.values())
    assert set(ours) == set(reference)
    for name, expected in reference.items():
        error = np.abs(np.asarray(ours[name], "float64") - expected)
        # The first bound is the release's precision. The second one still
        # notices a change of 1 % where a whole tensor's gradient nearly
        # cancels.
        bound = np.minimum(
            1e-6 * largest + 1e-4 * np.abs(expected),
            np.maximum(4e-3 * np.max(np.abs(expected)), 1e-9 * largest),
        )
        assert np.all(error <= bound), f"{name}: {np.max(error)} of {largest}"


@_files("metagrad")
@pytest.mark.parametrize("second_derivatives", [True, False])
def test_meta_gradient(path, second_derivatives):
    file = np.load(path)
    estimate, start, gradients = _golden_estimate(file, second_derivatives)
    kind = "metagrad" if second_derivatives else "metagrad_first_order"
    for precision in ("", "f64/"):
        if f"{precision}metaobj" not in file.files:
            continue
        reference = golden_names.arrays(file, f"{precision}{kind}/")
        _assert_gradients(gradients, reference)
        metaobj = file[f"{precision}metaobj"]
        assert abs(estimate.meta_loss - metaobj) <= 1e-5 * abs(metaobj) + 1e-7
        objectives = np.concatenate([start, start, estimate.objectives[:-1]])
        recorded = file[f"{precision}problem_objectives"]
        np.testing.assert_allclose(objectives[:, 0], recorded, rtol=1e-5)


# Problems.


@functools.cache
def _corpus():
    return corpus.sets()


def _problem(entry):
    set_name, index = entry.rsplit(".", 1)
    return _corpus()[set_name][int(index)]


def _entry_cases():
    cases = []
    for path in FILES.get("problems", []):
        with np.load(path) as file:
            entries = sorted({key.split("/")[0] for key in file.files})
        for entry in entries:
            cases.append(pytest.param(path, entry, id=f"{path.stem}-{entry}"))
    return cases


@pytest.mark.parametrize("path, entry", _entry_cases())
def test_problem(path, entry):
    file = np.load(path)
    problem = _problem(entry)
    drawn = problem.constants(stateless_seed(1), 1)
    wrapped = [name for name in drawn if name.endswith("data")]
    prefix = wrapped[0].removesuffix("data") if wrapped else ""
    constants = {}
    for name in drawn:
        key = f"{entry}/const/{name}"
        if key not in file.files:
            key = f"{entry}/{name.removeprefix(prefix)}"
        constants[name] = tf.constant(file[key][None])
        if name.endswith("matrix") or name in ("a", "b", "c"):
            np.testing.assert_allclose(constants[name], drawn[name], atol=1e-6)
    count = len(problem.shapes)
    sets = {
        key.split("/")[1]
        for key in file.files
        if key.startswith(f"{entry}/set")
    }
    for number in sorted(sets):
        params = [
            tf.constant(file[f"{entry}/{number}/param{i}"][None])
            for i in range(count)
        ]
        loss, grads = problem.value_and_gradients(params, constants)
        reference = file[f"{entry}/{number}/objective"]
        _assert_close("objective", loss[0], reference)
        for i, gradient in enumerate(grads):
            reference = file[f"{entry}/{number}/grad{i}"]
            _assert_close(f"grad{i}", gradient[0], reference)


@_files("problem_specs")
def test_problem_sets(path):
    specs = json.loads(path.read_text())
    for set_name, entries in specs["sets"].items():
        ours = _corpus()[set_name]
        assert len(ours) == len(entries)
        for problem, entry in zip(ours, entries):
            shapes = [list(shape) for shape in problem.shapes]
            assert shapes == entry["param_shapes"]
            assert problem.batch_size == entry["batch_size"]
            assert type(problem).__name__ == entry["spec"]["class"]
            data = entry["dataset"]
            # Five rows of parity were not meant.
            if data and data["function"] != "noisy_parity_class":
                assert problem.num_examples == data["data_shape"][0]
    assert list(_corpus()) == list(specs["sets"])
    default = set(specs["sets_included_by_default_flags"])
    assert set(corpus.default_sets()) == default


@_files("problem_specs")
def test_starts_are_distributed_as_in_the_release(path):
    specs = json.loads(path.read_text())
    for entry, about in specs["instances_in_problems_npz"].items():
        set_name = entry.rsplit(".", 1)[0]
        # LogObjective and SparseProblem do not start as meant there.
        if set_name.startswith(("log_", "sparse_gradient_")):
            continue
        starts = _problem(entry).init(stateless_seed(5), 400)
        for start, stats in zip(starts, about["init_stats_200_draws"]):
            name = f"{entry} {stats['shape']}"
            spread = stats["std"]
            assert abs(np.mean(start) - stats["mean"]) < 0.25 * spread, name
            assert abs(np.std(start) - spread) < 0.15 * spread, name


# Data sets.


@_files("datasets")
@pytest.mark.parametrize(
    "function",
    [
        "random",
        "random_mlp",
        "random_binary",
        "random_symmetric",
        "noisy_parity_class",
    ],
)
def test_dataset(path, function):
    file = np.load(path)
    call = json.loads(str(file[f"{function}/call_json"]))
    draw = getattr(datasets, function)
    data, labels = draw(*call["args"], **call["kwargs"])
    np.testing.assert_allclose(data, file[f"{function}/data"], atol=1e-6)
    np.testing.assert_array_equal(labels, file[f"{function}/labels"])


@_files("datasets")
def test_batch_indices(path):
    file = np.load(path)
    keys = [key for key in file.files if key.startswith("batch_indices/")]
    for key in keys:
        parts = key.split("/")[1].split("_")
        n, b, k, s = (
            int(part.lstrip("abcdefghijklmnopqrstuvwxyz")) for part in parts
        )
        ours = datasets.batch_indices(np.random.RandomState(s), n, b, k)
        np.testing.assert_array_equal(ours, file[key])


# Directions nearly cancel in some steps: the release's own float32 error is
# 1.4e-5 of the largest one there.
_DIRECTION_TOLERANCE = 7e-5


@_files("other")
def test_other_optimizer(path):
    file = np.load(path)
    rule = golden_names.other_rule(file)
    count = len(json.loads(str(file["shapes_json"])))
    weights = golden_names.other_weights(file)
    drawn = rule.init_weights(0)
    assert {n: w.shape for n, w in weights.items()} == {
        n: w.shape for n, w in drawn.items()
    }
    assert sum(w.size for w in drawn.values()) == file["num_meta_parameters"]
    params = [file[f"init/params/{i}"] for i in range(count)]
    layout = layouts.choose_layout(params)
    state = golden_names.other_state(file, "init/", count)
    _assert_start(rule, weights, params, layout, state)
    # The release's Adam without a second moment; ours has one.
    broken = "velocity" in state and not _second_moment(file, count).any()
    for step in range(len(file["grads/0"])):
        grads = [file[f"grads/{i}"][step] for i in range(count)]
        steps, _, _ = rule.updates(weights, state, layout, layout.pack(grads))
        params, state = rule.step(weights, state, params, grads)
        expected = golden_names.other_state(file, "traj/", count, step)
        assert set(state) == set(expected)
        if broken:
            assert np.any(state["velocity"]) and not np.any(
                np.nan_to_num(expected.pop("velocity"))
            )
            steps = _with_the_release_fault(weights, state, steps)
        for name, reference in expected.items():
            _assert_close(f"{name}, step {step}", state[name], reference)
        for i, ours in enumerate(layout.unpack(steps)):
            reference = file[f"traj/update_step/{i}"][step]
            # The fault divides 0 by 0 where a gradient is 1.
            fine = np.isfinite(reference) if broken else slice(None)
            _assert_close(
                f"step/{i}, step {step}",
                ours.numpy()[fine],
                reference[fine],
                _DIRECTION_TOLERANCE,
            )
            if not broken:
                reference = file[f"traj/params/{i}"][step]
                _assert_close(f"params/{i}, {step}", params[i], reference)


def _assert_start(rule, weights, params, layout, state):
    """The rule's own starting state is the file's."""
    if "log_learning_rate" in state:
        log_lrs = layout.unpack(tf.constant(state["log_learning_rate"]))
        low, high = np.log(rule.init_lr_range)
        for log_lr in log_lrs:
            assert np.all((low - 1e-5 < log_lr) & (log_lr < high + 1e-5))
    else:
        log_lrs = params
    ours = rule.init_state(weights, params, log_lrs)
    assert set(ours) == set(state)
    for name, reference in state.items():
        np.testing.assert_allclose(ours[name], reference, atol=1e-6)


def _second_moment(file, count):
    """All of a trajectory's second moments; nan counts as 0."""
    moments = [file[f"traj/state/{i}/v"].ravel() for i in range(count)]
    return np.nan_to_num(np.concatenate(moments))


def _with_the_release_fault(weights, state, steps):
    """What learned Adam's steps would be with a second moment of 0."""
    beta = tf.sigmoid(weights["beta_2_logit"])
    unbiased = state["velocity"] / (1 - beta ** state["step"])
    epsilon = tf.exp(weights["log_epsilon"])
    return steps * (tf.sqrt(unbiased + 1e-10) + epsilon) / (1e-5 + epsilon)
