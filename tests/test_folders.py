"""Folders, checkpoints of runs, and what others left or put there."""

import os
import pathlib
import sys

import pytest

from lopt_tf import checkpointing, folders
from lopt_tf.reporting import report, tables
from train_scripts import compile_cache

# Checkpoints of a run


def test_names_of_checkpoints(tmp_path):
    store = checkpointing.Checkpoints(tmp_path, "kind")
    for step in (99_999_999, 10**8):
        store.save(step, {}, {"step": step})
    (tmp_path / "checkpoint-backup.npz").write_bytes(b"mine")
    (tmp_path / "checkpoint-0000001x.npz").write_bytes(b"mine")
    assert store.load_latest()[1] == {"step": 10**8}
    store.save(10**8 + 1, {}, {"step": 10**8 + 1})
    assert [path.name for path in store.paths()] == [
        "checkpoint-100000000.npz",
        "checkpoint-100000001.npz",
    ]
    assert (tmp_path / "checkpoint-backup.npz").read_bytes() == b"mine"


def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path):
    store, notes = checkpointing.Checkpoints(tmp_path, "kind"), []
    for step in (1, 2):
        store.save(step, {}, {"step": step})
    first, second = store.paths()
    second.write_bytes(second.read_bytes()[:-9])
    damaged = second.read_bytes()
    assert store.load_latest(notes.append)[1] == {"step": 1}
    (note,) = notes
    assert second.name in note and f"resuming from {first.name}" in note
    assert second.read_bytes() == damaged
    # It gives way to the next good one, which is older by its number.
    store.save(2, {}, {"step": "again"})
    assert store.load_latest(notes.append)[1] == {"step": "again"}
    assert len(notes) == 1 and len(store.paths()) == 2
    for path in store.paths():
        path.write_bytes(b"x")
    with pytest.raises(checkpointing.DamagedError, match="no older one"):
        store.load_latest()
    checkpointing.save(second, "other", {}, {})
    with pytest.raises(checkpointing.CheckpointError, match="'other'"):
        store.load_latest()


# Folders


def test_what_dead_processes_were_writing_is_removed(tmp_path):
    (tmp_path / "parts").mkdir()
    stray = [
        tmp_path / ".optimizer.npz.123.tmp",
        tmp_path / ".curves.csv.tmp",
        tmp_path / "parts" / ".a.npz.k2j_9xyz.tmp",
    ]
    mine = [tmp_path / ".notes.tmp", tmp_path / "x.npz.tmp"]
    for path in (*stray, *mine):
        path.write_bytes(b"half")
    with folders.whole(tmp_path / "parts" / "b.npz") as file:
        file.write(b"b")
        # Others that work in the folder do not touch what is being written.
        with folders.claimed(tmp_path):
            pass
    assert (tmp_path / "parts" / "b.npz").read_bytes() == b"b"
    assert not any(path.exists() for path in stray)
    assert all(path.exists() for path in mine)


def test_nothing_is_written_through_links(tmp_path):
    target = tmp_path / "target"
    target.write_text("mine")
    work = tmp_path / "work"
    work.mkdir()
    (work / ".lock").symlink_to(target)
    with pytest.raises(ValueError, match="a link"):
        folders.lock(work)
    (work / ".lock").unlink()
    (work / ".lock").write_text("of another program")
    folders.lock(work).close()
    assert (work / ".lock").read_text() == "of another program"
    # The names that temporary files once had.
    for name in (".x.csv.tmp", f".x.npz.{os.getpid()}.tmp"):
        (work / name).symlink_to(target)
    tables.write_csv(work / "x.csv", [{"a": 1}])
    checkpointing.save(work / "x.npz", "kind", {}, {})
    assert target.read_text() == "mine"
    assert not (work / "x.csv").is_symlink()
    mask = os.umask(0o27)
    try:
        folders.write_text(work / "new", "x")
    finally:
        os.umask(mask)
    assert (work / "new").stat().st_mode & 0o777 == 0o640


def test_a_full_disk_names_the_file(tmp_path, monkeypatch):
    def full(number):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    for write in (
        lambda: tables.write_csv(tmp_path / "a.csv", [{"a": 1}]),
        lambda: checkpointing.save(tmp_path / "a.npz", "kind", {}, {}),
    ):
        with pytest.raises(OSError, match=str(tmp_path / "a")):
            write()
    assert not any(tmp_path.iterdir())


def test_folders_that_cannot_be_written_to(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (pathlib.Path("/dev/null"), tmp_path / "file" / "x"):
        with pytest.raises(ValueError, match="cannot be written to"):
            with folders.claimed(path):
                pass
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


# The rest


def test_reports_escape_names(tmp_path):
    bad = "<script>"
    table = report.Table(bad, bad, [{bad: bad}], bad, {bad: bad})
    about = report.About(bad, bad, {bad: bad}, bad, {bad: bad})
    report.write(tmp_path, [table], [], about)
    assert bad not in (tmp_path / "report.html").read_text()


def test_a_compile_cache_without_spaces(tmp_path, monkeypatch):
    """XLA would take what is before them for the folder."""
    monkeypatch.delitem(sys.modules, "tensorflow")
    with pytest.raises(ValueError, match="takes no spaces"):
        with compile_cache.used(str(tmp_path / "my cache"), print):
            raise AssertionError("It was used.")


def test_the_compile_cache_is_verified(tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "tensorflow")
    monkeypatch.setenv("TF_XLA_FLAGS", "")
    lines, root = [], tmp_path / "cache"

    def used():
        return compile_cache.used(str(root), lines.append)

    with used():
        (folder,) = root.iterdir()
        assert f"directory={folder}" in os.environ["TF_XLA_FLAGS"]
        (folder / "good.pb").write_bytes(b"program")
        (folder / "bad.pb").write_bytes(b"program")
        # Another process neither waits nor sees what is not finished.
        with used():
            assert "does without" in lines.pop()
    assert os.environ["TF_XLA_FLAGS"] == ""
    (folder / "bad.pb").write_bytes(b"progrbm")
    (folder / "unfinished.pb").write_bytes(b"progr")
    with used():
        names = sorted(path.name for path in folder.iterdir())
        assert names == ["good.pb", "good.pb.sha256"]
        assert "2 compiled programs" in lines.pop()
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o777)
    with pytest.raises(ValueError, match="Others can write"):
        with used():
            pass
