"""A long run can be stopped at any moment, and leaves whole files only."""

import re

import numpy as np
import pytest

from lopt_tf import checkpointing, folders, long_run

KIND = "lopt_tf.test"


class Counter(long_run.Trainer):
    """Adds numbers up; `fail` maps step numbers to what they raise."""

    unit = "numbers"

    def __init__(self, num_steps=4, fail=None, measured=None, **options):
        self._num_steps = num_steps
        self._fail = fail or {}
        self._measured = measured
        self._options = {"size": 1, "newer": (2, 3), **options}
        self.done, self.sum = 0, 0.0

    step_number = property(lambda self: self.done)
    num_steps = property(lambda self: self._num_steps)

    def step(self):
        if self.done + 1 in self._fail:
            raise self._fail[self.done + 1]
        self.done += 1
        self.sum += self.done
        return {"sum": self.sum, "unknown": None}

    def measure(self):
        return self._measured(self) if self._measured else {}

    def snapshot(self):
        return {"sum": np.array(self.sum)}, {"done": self.done}

    def restore(self, arrays, metadata):
        self.sum, self.done = float(arrays["sum"]), metadata["done"]

    def settings(self):
        return {"options": self._options}

    def default_settings(self):
        return {"options": {"size": 1, "newer": (2, 3)}}

    def products(self):
        return {"sum.txt": lambda path: path.write_text(str(self.sum))}

    def describe(self):
        return ["counts"]

    def status(self, rows):
        return f"step {self.done}/{self._num_steps}: {len(rows)} rows"


def _run(trainer, folder=None, resume=False, **kwargs):
    long_run.LongRun(trainer, KIND, folder, **kwargs).run(resume)
    return trainer


def _files(folder):
    return {
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and "tensorboard" not in path.parts
    }


def test_runs_to_the_end(tmp_path):
    lines = []
    trainer = _run(Counter(), tmp_path / "a" / "b", report=lines.append)
    assert trainer.sum == 10
    assert _files(tmp_path / "a" / "b") == {
        "checkpoints/checkpoint-00000004.npz",
        "sum.txt",
    }
    assert (tmp_path / "a" / "b" / "sum.txt").read_text() == "10.0"
    assert lines[0] == "counts"
    assert lines[-1].startswith("step 4/4: 4 rows  ")
    assert "numbers/s" in lines[-1] and "0.0 min left" in lines[-1]


def test_is_silent_and_writes_nothing_unless_told(capsys):
    assert _run(Counter()).sum == 10
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), FloatingPointError("nan"), MemoryError()]
)
def test_interrupts_and_failures_save_what_was_done(tmp_path, error):
    with pytest.raises(type(error)):
        _run(Counter(fail={3: error}), tmp_path)
    assert "checkpoints/checkpoint-00000002.npz" in _files(tmp_path)
    assert _run(Counter(), tmp_path, resume=True).sum == 10


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("bad")])
def test_a_start_that_fails_leaves_nothing(tmp_path, error):
    with pytest.raises(type(error)):
        _run(Counter(fail={1: error}), tmp_path / "a" / "b")
    assert not (tmp_path / "a").exists()
    (tmp_path / "c").mkdir()
    with pytest.raises(type(error)):
        _run(Counter(fail={1: error}), tmp_path / "c")
    assert not any((tmp_path / "c").iterdir())
    with pytest.raises(ValueError, match="no checkpoint .* to resume from"):
        _run(Counter(), tmp_path / "d", resume=True)
    assert not (tmp_path / "d").exists()


def test_a_failed_resume_leaves_the_checkpoint_as_it_was(tmp_path):
    _run(Counter(2), tmp_path)
    (path,) = (tmp_path / "checkpoints").iterdir()
    before = path.read_bytes(), path.stat().st_mtime_ns
    with pytest.raises(MemoryError):
        _run(Counter(fail={3: MemoryError()}), tmp_path, resume=True)
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError("disk full")])
def test_saving_that_ends_midway_keeps_the_checkpoint_before(
    tmp_path, monkeypatch, error
):
    def half(file, **arrays):
        file.write(b"half a file")
        raise error

    _run(Counter(2), tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(np, "savez", half)
        with pytest.raises((KeyboardInterrupt, OSError)):
            _run(Counter(fail={4: error}), tmp_path, resume=True)
    assert _files(tmp_path) == {
        "checkpoints/checkpoint-00000002.npz",
        "sum.txt",
    }
    assert _run(Counter(), tmp_path, resume=True).sum == 10


def test_an_interrupt_while_saving_saves(tmp_path, monkeypatch):
    """Only a second one loses what was done since the checkpoint."""
    savez = np.savez
    interrupts = [KeyboardInterrupt()]

    def interrupted(file, **arrays):
        if interrupts:
            raise interrupts.pop()
        savez(file, **arrays)

    monkeypatch.setattr(np, "savez", interrupted)
    with pytest.raises(KeyboardInterrupt):
        _run(Counter(), tmp_path)
    assert "checkpoints/checkpoint-00000004.npz" in _files(tmp_path)


def test_stop_saves(tmp_path):
    answers = iter([False, True])
    with pytest.raises(KeyboardInterrupt):
        _run(Counter(), tmp_path, stop=lambda: next(answers))
    assert "checkpoints/checkpoint-00000002.npz" in _files(tmp_path)


def test_one_run_at_a_time(tmp_path):
    def second(trainer):
        with pytest.raises(ValueError, match="Another process is working"):
            _run(Counter(), tmp_path)
        return {}

    _run(Counter(measured=second), tmp_path)
    with folders.claimed(tmp_path):
        with pytest.raises(ValueError, match="Another process is working"):
            _run(Counter(), tmp_path, resume=True)
    _run(Counter(5), tmp_path, resume=True)


def test_a_used_folder_is_refused(tmp_path):
    _run(Counter(2), tmp_path)
    with pytest.raises(checkpointing.CheckpointError, match="holds a training"):
        _run(Counter(), tmp_path)
    with pytest.raises(ValueError, match="`resume` needs `output_dir`"):
        _run(Counter(), resume=True)


def test_settings_are_compared_and_newer_ones_are_at_their_defaults(tmp_path):
    _run(Counter(2), tmp_path)
    store = checkpointing.Checkpoints(tmp_path / "checkpoints", KIND)
    arrays, metadata = store.load_latest()
    del metadata["settings"]["options"]["newer"]
    store.save(2, arrays, metadata)
    for wrong, values in (("size", "1, given 5"), ("newer", "[2, 3], given 5")):
        message = f"options.{wrong}: saved {values}"
        with pytest.raises(ValueError, match=re.escape(message)):
            _run(Counter(4, **{wrong: 5}), tmp_path, resume=True)
    assert _run(Counter(), tmp_path, resume=True).sum == 10


def test_speed_leaves_compilation_out(monkeypatch):
    now, lines = [0.0], []
    monkeypatch.setattr(long_run.time, "monotonic", lambda: now[0])

    class Compiling(Counter):
        def num_compilations(self):
            return sum(self.done >= step for step in (1, 3))

        def step(self):
            now[0] += 1.0 if self.done not in (0, 2) else 600.0
            return super().step()

    with pytest.raises(ValueError):
        _run(Compiling(6, fail={6: ValueError()}), report=lines.append)
    assert "1 numbers/s  0.0 min left" in lines[-1]


def test_settings_may_be_of_numpy(tmp_path):
    path = tmp_path / "checkpoint.npz"
    facts = {"seed": np.int64(3), "rate": np.float32(0.5), "on": np.bool_(1)}
    checkpointing.save(path, "kind", {}, facts)
    found = checkpointing.load(path, "kind")[1]
    assert found == {"seed": 3, "rate": 0.5, "on": True}
    assert long_run._json_ready(facts) == found
    with pytest.raises(TypeError, match="cannot be written as JSON"):
        checkpointing.save(path, "kind", {}, {"array": np.ones(2)})
