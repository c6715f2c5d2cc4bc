"""Checkpoints: whole or not at all, verified, found again."""

import json
import os

import numpy as np
import pytest

from lopt_tf import checkpointing

ARRAYS = {"a": np.arange(3.0), "b/c": np.ones((2, 2), "int32")}


def test_round_trip(tmp_path):
    path = tmp_path / "sub" / "file.npz"
    checkpointing.save(path, "kind", ARRAYS, {"x": [1, "y"]})
    arrays, metadata = checkpointing.load(path, "kind")
    assert metadata == {"x": [1, "y"]}
    assert set(arrays) == set(ARRAYS)
    for name in ARRAYS:
        np.testing.assert_array_equal(arrays[name], ARRAYS[name])
        assert arrays[name].dtype == ARRAYS[name].dtype


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file.npz"
    checkpointing.save(path, "kind", ARRAYS, {"n": 1})

    def fail(file):
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        checkpointing.save(path, "kind", ARRAYS, {"n": 2})
    assert checkpointing.load(path, "kind")[1] == {"n": 1}
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("spoil", ["cut", "flip", "text", "empty", "pickle"])
def test_damage_is_noticed(tmp_path, spoil):
    path = tmp_path / "file.npz"
    big = {"a": np.arange(1000.0)}
    checkpointing.save(path, "kind", big, {})
    content = bytearray(path.read_bytes())
    if spoil == "flip":
        content[len(content) // 2] ^= 0xFF
    content = {"cut": content[: len(content) // 2], "text": b"hello"}.get(
        spoil, b"" if spoil == "empty" else content
    )
    path.write_bytes(content)
    if spoil == "pickle":
        with open(path, "wb") as file:
            np.savez(file, a=np.array([object()], dtype=object))
    before = path.read_bytes()
    with pytest.raises(checkpointing.CheckpointError, match="damaged"):
        checkpointing.load(path, "kind")
    assert path.read_bytes() == before


def test_missing_kind_and_version(tmp_path):
    path = tmp_path / "file.npz"
    with pytest.raises(checkpointing.CheckpointError, match="no file"):
        checkpointing.load(path, "kind")
    checkpointing.save(path, "other", ARRAYS, {})
    with pytest.raises(checkpointing.CheckpointError, match="'other'"):
        checkpointing.load(path, "kind")
    header = {"kind": "kind", "version": 99, "metadata": {}}
    np.savez(path, __metadata__=np.array(json.dumps(header)))
    with pytest.raises(checkpointing.CheckpointError, match="newer lopt_tf"):
        checkpointing.load(path, "kind")


def test_the_newest_few_are_kept(tmp_path):
    checkpoints = checkpointing.Checkpoints(tmp_path, "kind", keep=2)
    for step in (9, 10, 200):
        checkpoints.save(step, ARRAYS, {"step": step})
    assert len(checkpoints.paths()) == 2
    assert checkpoints.load_latest()[1] == {"step": 200}


def test_a_folder_in_use_is_no_folder_for_another_run(tmp_path):
    checkpoints = checkpointing.Checkpoints(tmp_path / "in", "kind")
    checkpoints.check_unused(tmp_path, "a run")
    checkpoints.save(1, ARRAYS, {})
    match = f"{tmp_path} already holds a run"
    with pytest.raises(checkpointing.CheckpointError, match=match):
        checkpoints.check_unused(tmp_path, "a run")


def test_without_a_folder_nothing_is_kept():
    checkpoints = checkpointing.Checkpoints(None, "kind")
    checkpoints.save(1, ARRAYS, {})
    assert checkpoints.paths() == []
    checkpoints.check_unused(None, "a run")
    with pytest.raises(checkpointing.CheckpointError, match="to resume"):
        checkpoints.load_latest()


def test_a_disk_that_fails_damages_no_checkpoint(tmp_path, monkeypatch):
    """What cannot be read for a moment must not be replaced by an older one."""
    checkpoints = checkpointing.Checkpoints(tmp_path, "kind")
    for step in (1, 2):
        checkpoints.save(step, ARRAYS, {"step": step})
    with monkeypatch.context() as patch:

        def fail(path):
            raise OSError(5, "Input/output error")

        patch.setattr(checkpointing.array_files, "read", fail)
        with pytest.raises(
            checkpointing.CheckpointError, match="cannot be read.*output error"
        ) as caught:
            checkpoints.load_latest()
    assert not isinstance(caught.value, checkpointing.DamagedError)
    _, metadata = checkpoints.load_latest()
    assert metadata == {"step": 2}
    checkpoints.save(3, ARRAYS, {})
    assert [path.name[-5] for path in checkpoints.paths()] == ["2", "3"]
