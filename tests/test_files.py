"""Files: damaged, foreign, giant or in the way, and what is made of them."""

import io
import json
import os
import pathlib
import zipfile

import flip_bits
import numpy as np
import pytest

import lopt_tf
from lopt_tf import array_files, checkpointing, folders
from lopt_tf.autoloss import ScheduleController, bench
from lopt_tf.evaluation import folder as folder_lib
from lopt_tf.optimizers import pretrained
from lopt_tf.optimizers.hierarchical_rnn import HierarchicalRNNRule
from lopt_tf.optimizers.learned_adam import LearnedAdamRule

RULE = HierarchicalRNNRule(level_sizes=(3, 4))
WEIGHTS = RULE.init_weights(0)
ABOUT = {"rule": RULE.name, "config": RULE.get_config()}
CONTROLLER = {
    "task": "toy",
    "actions": ["a", "b"],
    "features": ["progress"],
    "policy_config": {"num_actions": 2, "hidden": 4, "seed": 1},
}


def _refused(load, *words):
    """Loads what cannot be; the message is one line."""
    with pytest.raises(checkpointing.CheckpointError) as caught:
        load()
    message = str(caught.value)
    assert len(message.splitlines()) == 1 and "pickle" not in message
    for word in words:
        assert word in message
    return message


def _write(path, arrays, header):
    """A file of arrays with a header of one's own."""
    entry = np.array(header if isinstance(header, str) else json.dumps(header))
    with open(path, "wb") as file:
        array_files.write(file, {**arrays, "__metadata__": entry})


@pytest.fixture
def kinds(tmp_path):
    return flip_bits.files(tmp_path)


# Single bits


def test_no_flipped_bit_is_believed(kinds):
    """`flip_bits.py` does thousands of them."""
    for path, load in kinds.values():
        places = flip_bits.random_places(path, 150)
        assert flip_bits.flip(path, load, places)["refused"] > 75


def test_no_flipped_bit_of_a_shape_is_believed(tmp_path):
    """NumPy would read less of an entry, and miss its checksum."""
    path = tmp_path / "file.npz"
    arrays = {"weights": np.arange(8439, dtype="float32")}
    header = {"kind": "kind", "version": 1, "metadata": {}}
    for described in (True, False):
        if described:
            checkpointing.save(path, "kind", arrays, {})
        else:
            # As older versions wrote it.
            _write(path, arrays, header)
        begin = 8 * path.read_bytes().index(b"8439")
        outcomes = flip_bits.flip(
            path,
            lambda: checkpointing.load(path, "kind"),
            range(begin - 80, begin + 80),
        )
        assert outcomes == {"refused": 160}


# Not what was written


def test_headers_that_cannot_be(tmp_path):
    path = tmp_path / "file.npz"
    good = {"kind": "kind", "version": 1, "metadata": {"x": 1}}
    _write(path, {"a": np.ones(2)}, good)
    assert checkpointing.load(path, "kind")[1] == {"x": 1}
    wrong = [
        *({**good, "version": x} for x in ("1", None, True, 1.5)),
        *({**good, "metadata": x} for x in ([], None, "x", 1)),
        *({**good, "kind": x} for x in (None, 3, [])),
        *({n: good[n] for n in good if n != left} for left in good),
        {**good, "arrays": {}},
        {**good, "arrays": {"a": ["<f8", [3]]}},
        {**good, "arrays": {"a": ["<f8", [2]], "b": ["<f8", [2]]}},
        *([], None, 3, "[" * 10**5, "{"),
    ]
    for header in wrong:
        _write(path, {"a": np.ones(2)}, header)
        _refused(lambda: checkpointing.load(path, "kind"), str(path), "damaged")
    _write(path, {"a": np.ones(2)}, {**good, "version": 2})
    _refused(lambda: checkpointing.load(path, "kind"), "newer lopt_tf")


def test_files_that_claim_or_hide_terabytes(tmp_path):
    path = tmp_path / "file.npz"

    def load():
        return checkpointing.load(path, "kind")

    # A header that says more than there is.
    entry = io.BytesIO()
    header = {"descr": "<f4", "fortran_order": False, "shape": (10**12,)}
    np.lib.format.write_array_header_1_0(entry, header)
    for content in (entry.getvalue(), entry.getvalue() + b"1234"):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("bomb.npy", content)
        _refused(load, str(path), "damaged")
    # Bytes that are far fewer when compressed.
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.npy", bytes(10**8))
    assert path.stat().st_size < 10**6
    _refused(load, "compressed")
    # Two entries of one name, objects, other programs' files.
    with zipfile.ZipFile(path, "w") as archive:
        with pytest.warns(UserWarning):
            for _ in range(2):
                archive.writestr("a.npy", entry.getvalue())
    _refused(load, "damaged")
    np.savez(path, a=np.array([object()], dtype=object))
    _refused(load, "damaged")
    for text in (b"", b"hello", b"\x89PNG\r\n\x1a\n", b"\x80\x04.", b"PK"):
        path.write_bytes(text)
        _refused(load, "damaged", "good copy")


def test_a_file_larger_than_memory_is_not_read(tmp_path):
    path = tmp_path / "file.npz"
    checkpointing.save(path, "kind", {}, {})
    os.truncate(path, 2**43)
    _refused(lambda: checkpointing.load(path, "kind"), "larger than memory")


# Optimizers


def test_descriptions_of_optimizers_that_cannot_be(tmp_path):
    path = tmp_path / "optimizer.npz"

    def changed(**settings):
        return {**ABOUT, "config": {**ABOUT["config"], **settings}}

    wrong = {
        "describe": [
            {},
            {"rule": RULE.name},
            {"config": {}},
            {**ABOUT, "rule": 3},
        ],
        "newer": [changed(momentum=0.9), {**ABOUT, "rule": "of_tomorrow"}],
        "cannot be": [
            changed(num_gradient_scales="x"),
            changed(num_gradient_scales=1.5),
            changed(num_gradient_scales=True),
            changed(num_gradient_scales=10**6),
            changed(use_attention="no"),
            changed(init_lr_range=None),
            changed(init_lr_range=[1e-6, float("inf")]),
            changed(init_lr_range=[1e-6, float("nan")]),
            changed(init_lr_range=[1e-6]),
            changed(max_log_lr=float("inf")),
            changed(min_log_lr=float("nan")),
            changed(level_sizes=[10**6, 10**6]),
            changed(level_sizes=[]),
            changed(level_sizes=[3, "4"]),
            changed(step_unit=3),
        ],
    }
    for word, all_metadata in wrong.items():
        for metadata in all_metadata:
            checkpointing.save(path, pretrained.KIND, WEIGHTS, metadata)
            for load in (
                lambda: pretrained.load_rule(path),
                lambda: lopt_tf.HierarchicalRNN.from_pretrained(path),
            ):
                _refused(load, str(path), word)
    adam = LearnedAdamRule()
    config = {**adam.get_config(), "epsilon": float("inf")}
    metadata = {"rule": adam.name, "config": config}
    checkpointing.save(path, pretrained.KIND, adam.init_weights(0), metadata)
    _refused(lambda: pretrained.load_rule(path), "cannot be")


def _spoiled(weights):
    """{what: weights that are of no use}."""
    name = next(iter(weights))
    array = weights[name]
    types = ("float64", "float16", "int32", "bool", "complex64", "U8", "S4")
    spoiled = {kind: array.astype(kind) for kind in types}
    for number in (np.nan, np.inf, -np.inf):
        spoiled[str(number)] = array.copy()
        spoiled[str(number)].flat[-1] = number
    spoiled["shape"] = array[..., :0]
    found = {what: {**weights, name: a} for what, a in spoiled.items()}
    found["missing"] = {n: a for n, a in weights.items() if n != name}
    found["unknown"] = {**weights, "more": array}
    return found


def test_weights_of_no_use_are_neither_read_nor_written(tmp_path):
    path = tmp_path / "optimizer.npz"
    for what, weights in _spoiled(WEIGHTS).items():
        with pytest.raises(ValueError, match="not written"):
            pretrained.save(path, RULE, weights)
        assert not path.exists(), what
        checkpointing.save(path, pretrained.KIND, weights, ABOUT)
        _refused(lambda: pretrained.load_rule(path), "cannot be used")
        path.unlink()
    controller = ScheduleController(**CONTROLLER)
    for what, weights in _spoiled(controller.weights()).items():
        with pytest.raises(ValueError, match="not written"):
            controller.save(path, weights)
        assert not path.exists(), what
        facts = {"config": CONTROLLER}
        checkpointing.save(path, "lopt_tf.schedule", weights, facts)
        _refused(lambda: ScheduleController.load(path), "cannot be used")
        path.unlink()


def test_shipped_names_win(tmp_path, monkeypatch):
    name = "hierarchical_rnn_lasting"
    monkeypatch.chdir(tmp_path)
    pretrained.save(name, RULE, WEIGHTS)
    assert pretrained.load_rule(name).name == name
    assert pretrained.load_rule(f"./{name}").rule == RULE
    pathlib.Path(name).unlink()
    pathlib.Path(name).mkdir()
    assert pretrained.load_rule(name).name == name
    pretrained.save("optimizer.npz", RULE, WEIGHTS)
    with pytest.raises(ValueError, match="is empty"):
        pretrained.load_rule("")


# Controllers, tunings, results


def test_descriptions_of_controllers_that_cannot_be(tmp_path):
    path = tmp_path / "controller.npz"
    controller = ScheduleController(**CONTROLLER)
    controller.save(path, training={"task": {}})
    assert ScheduleController.load(path).facts == {"task": {}}
    nested = CONTROLLER["policy_config"]
    wrong = [
        *(None, [], {}, "x", {**CONTROLLER, "policy_config": None}),
        *({n: x for n, x in CONTROLLER.items() if n != m} for m in CONTROLLER),
        {**CONTROLLER, "features": ["of_tomorrow"]},
        {**CONTROLLER, "features": "progress"},
        {**CONTROLLER, "features": []},
        {**CONTROLLER, "actions": ["a"]},
        {**CONTROLLER, "actions": [1, 2]},
        {**CONTROLLER, "more": 1},
        *(
            {**CONTROLLER, "policy_config": {**nested, **changed}}
            for changed in (
                {"hidden": 10**9},
                {"hidden": "4"},
                {"num_actions": 10**9},
                {"logit_scale": float("nan")},
                {"activation": "of_tomorrow"},
                {"more": 1},
            )
        ),
    ]
    kind = "lopt_tf.schedule"
    for config in wrong:
        facts = {"config": config}
        checkpointing.save(path, kind, controller.weights(), facts)
        _refused(lambda: ScheduleController.load(path), str(path))


def test_tunings_that_cannot_be(tmp_path):
    path = tmp_path / "tuning.json"
    settings, tuned = flip_bits.SETTINGS, flip_bits.TUNED

    def known():
        return bench.known_choices(path, settings)

    assert known() == {}
    bench.keep_choices(path, settings, tuned)
    assert known() == tuned
    assert bench.known_choices(path, {**settings, "x": 1}) == {}
    # As older versions wrote it, without a digest: it is tuned anew.
    path.write_text(json.dumps({"settings": settings, "known": tuned}))
    assert known() == {}
    bench.keep_choices(path, settings, tuned)
    path.write_text(path.read_text().replace("1:2", "1:3"))
    _refused(known, str(path), "Delete it to tune anew")
    for content in (b"{", b"[]", b"null", b"\xff\xfe\x00", b"[" * 10**5, b""):
        path.write_bytes(content)
        _refused(known, str(path), "Delete it to tune anew")


def test_results_that_cannot_be(tmp_path):
    kept = folder_lib.ExperimentFolder(tmp_path, {"seeds": 1})
    kept.keep("a", {"x": np.ones(2)})
    digest = checkpointing.load(kept.part("a.npz"), "lopt_tf.evaluation")[1]
    for metadata in (
        {},
        {**digest, "seconds": None},
        {**digest, "settings": 3},
    ):
        checkpointing.save(
            kept.part("a.npz"), "lopt_tf.evaluation", {}, metadata
        )
        _refused(lambda: kept.load("a"), "a.npz", "Delete it")
    kept.close()
    for content in (b"\xff", b"[" * 10**5, b"[]", b"{"):
        (tmp_path / "settings.json").write_bytes(content)
        _refused(
            lambda: folder_lib.ExperimentFolder(tmp_path, {"seeds": 1}),
            "settings.json",
        )
    # It was given back all the same.
    with folders.claimed(tmp_path):
        pass
