"""Kills programs at random moments: resumed, they end as if undisturbed.

python tests/kill_programs.py [KILLS]

Each of metatrain, autoloss (with REINFORCE and with PPO) and evaluate is killed
(SIGKILL) KILLS times, 20 if not given: after a random time, or, five times or a
quarter of them, in the middle of writing a file. After each kill it is started
again. In the end its results must be those of a run that nothing disturbed,
and its folder must hold nothing else.
"""

import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

import numpy as np

from lopt_tf import array_files

ROOT = pathlib.Path(__file__).parent.parent
# Dies where a file is half written, after so many that were written.
_DYING = """
import os, runpy, signal, sys
from lopt_tf import folders
number, module = int(sys.argv[1]), sys.argv[2]
fsync = os.fsync
left = [number]
def dying(file):
    left[0] -= 1
    if left[0] < 0:
        os.ftruncate(file, os.fstat(file).st_size // 2)
        os.kill(os.getpid(), signal.SIGKILL)
    fsync(file)
folders.os.fsync = dying
sys.argv = [module, *sys.argv[3:]]
runpy.run_module(module, run_name="__main__")
"""
_AUTOLOSS = [
    *("--task=regression", "--set=dimensions=3", "--set=max_steps=100"),
    *("--parallel=4", "--checkpoint_every_s=0.2"),
]
PROGRAMS = {
    "metatrain": [
        "--problems=bowl_problems.0,quadratic_problems.0",
        *("--instances=2", "--segment_length=5", "--level_sizes=3,4,5"),
        *("--min_length=5", "--mean_length=10", "--mean_partials=3"),
        *("--meta_updates=600", "--checkpoint_every_s=0.2"),
        *("--eval_every=100", "--eval_problems=bowl_problems.1"),
    ],
    "autoloss reinforce": [*_AUTOLOSS, "--episodes=200"],
    "autoloss ppo": [*_AUTOLOSS, "--episodes=100", "--algorithm=ppo"],
    "evaluate": [
        *("--experiment=problems", "--steps=40", "--seeds=2"),
        *("--problems=bowl_problems.0,quadratic_problems.0",),
        *("--tuning_seeds=1",),
    ],
}
# What tells of seconds, or of how often a run was interrupted.
_VARYING = ("tensorboard", "timings.csv", "report.html", "parts")


def command(name, folder, resume, dies_after=None):
    """The command line of a program; it dies after so many files if given."""
    module = f"train_scripts.{name.split()[0]}"
    start = ["-m", module]
    if dies_after is not None:
        start = ["-c", _DYING, str(dies_after), module]
    arguments = [f"--output_dir={folder}", "--threads=1"]
    arguments += ["--resume"] * (resume and name != "evaluate")
    return [sys.executable, *start, *PROGRAMS[name], *arguments]


def run(name, folder, resume=False, **kwargs):
    """Starts a program; its output goes beside the folder."""
    with open(folder.with_name(f"{folder.name}.txt"), "a") as output:
        return subprocess.Popen(
            command(name, folder, resume, **kwargs),
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=output,
            stderr=output,
        )


def results(folder):
    """{relative path: what counts of a file} of all files that count."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path.is_dir() or name.parts[0] in _VARYING:
            continue
        if path.suffix == ".npz":
            arrays = array_files.read(path)
            del arrays["__metadata__"]
            if name.parts[0] == "checkpoints":
                # Older ones are of moments.
                name, arrays = name.parent, {**arrays}
            found[str(name)] = arrays
        else:
            found[str(name)] = path.read_bytes()
    return found


def differences(ours, expected):
    """Names of what differs between two `results`."""
    wrong = sorted({*ours} ^ {*expected})
    for name in {*ours} & {*expected}:
        pair = ours[name], expected[name]
        if isinstance(pair[0], bytes):
            same = pair[0] == pair[1]
        else:
            same = {*pair[0]} == {*pair[1]} and all(
                np.array_equal(pair[0][x], pair[1][x], equal_nan=True)
                if pair[0][x].dtype.kind == "f"
                else np.array_equal(pair[0][x], pair[1][x])
                for x in pair[0]
            )
        if not same:
            wrong.append(name)
    return wrong


def has_begun(name, folder):
    """Whether there is anything to resume from."""
    if name == "evaluate":
        return False
    return any((folder / "checkpoints").glob("checkpoint-*.npz"))


def kill(name, kills, root):
    """Kills a program so often; returns how often in the midst of a write."""
    rng = np.random.default_rng(0)
    began = time.monotonic()
    undisturbed = root / "undisturbed"
    assert run(name, undisturbed).wait() == 0, undisturbed
    duration = time.monotonic() - began
    folder, in_writes, done = root / "killed", 0, 0
    while done < kills:
        in_write = in_writes < max(1, min(5, kills // 4))
        resume = has_begun(name, folder)
        more = {"dies_after": int(rng.integers(0, 12))} if in_write else {}
        process = run(name, folder, resume, **more)
        try:
            limit = None if in_write else rng.uniform(0.3, 1) * duration
            process.wait(limit)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
        if process.returncode == 0:
            # It came to its end first: from the start, once more.
            check(name, folder, undisturbed)
            subprocess.run(["rm", "-r", str(folder)], check=True)
            continue
        assert process.returncode == -signal.SIGKILL, folder
        done += 1
        in_writes += in_write
    assert run(name, folder, has_begun(name, folder)).wait() == 0, folder
    check(name, folder, undisturbed)
    return in_writes


def check(name, folder, undisturbed):
    """Compares a folder with that of the undisturbed run."""
    wrong = differences(results(folder), results(undisturbed))
    assert not wrong, (name, wrong)
    stray = [*folder.rglob(".*")]
    assert not stray, (name, stray)


def main():
    kills = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    chosen = sys.argv[2:] or PROGRAMS
    for name in chosen:
        root = pathlib.Path(tempfile.mkdtemp())
        in_writes = kill(name, kills, root)
        print(f"{name}: {kills} kills, {in_writes} in a write: as undisturbed")


if __name__ == "__main__":
    main()
