"""The folder of an experiment, which remembers finished work."""

import contextlib
import json
import pathlib
import time

from lopt_tf import checkpointing, folders
from lopt_tf.evaluation import progress

_KIND = "lopt_tf.evaluation"


class ExperimentFolder:
    """What an experiment works with: its folder, and what goes into it.

    Each piece of work is a file of its own, so that nothing is done twice:

        if not folder.has(name):
            folder.keep(name, compute())
        arrays = folder.load(name)

    A piece's name is a relative path.

    Args:
        root: the folder; made if it is not there. One process at a time may
            work in it.
        settings: JSON-ready dictionary of all that the results depend on.
        learned: the `TrainedRule` to be evaluated, or None.
        data_dir: where TensorFlow Datasets are prepared.
        report: a function of one line of text, or None for silence.

    Attributes:
        seconds: rows about the time of each piece, for a file of their own.
        facts: {name: value} for the report: what settings come down to.

    Raises:
        CheckpointError: if the folder holds results of other settings, or is
            damaged.
        ValueError: if another process works in it, or it cannot be written
            to.
    """

    def __init__(
        self, root, settings, learned=None, data_dir=None, report=None
    ):
        self.root = pathlib.Path(root)
        self.settings = json.loads(json.dumps(settings))
        self._digest = checkpointing.digest(self.settings)
        self.progress = progress.Progress(report)
        self.learned = learned
        self.data_dir = data_dir
        self.seconds = []
        self.facts = {}
        self._settings_path = self.root / "settings.json"
        self._made = set()
        self._began = time.perf_counter()
        self._claim = contextlib.ExitStack()
        self._claim.enter_context(folders.claimed(self.root))
        try:
            self._check_settings()
        except BaseException:
            self.close()
            raise

    def _check_settings(self):
        if not self._settings_path.exists():
            return
        try:
            saved = json.loads(self._settings_path.read_text())
            different = checkpointing.differences(saved, self.settings)
        except Exception as error:
            # Also RecursionError, of JSON that is nested too deeply.
            raise checkpointing.CheckpointError(
                f"{self._settings_path} is damaged ({error}). Name another "
                "folder."
            ) from error
        if different:
            raise checkpointing.CheckpointError(
                f"{self.root} holds results of other settings "
                f"({'; '.join(different)}). Name another folder, or give the "
                "saved settings to resume."
            )

    def write_settings(self):
        """Binds the folder to these settings, if it is not yet.

        That is when there are results, or soon will be: a mistake that is
        found before may be corrected in the same folder.
        """
        if not self._settings_path.exists():
            text = json.dumps(self.settings, indent=1) + "\n"
            folders.write_text(self._settings_path, text)

    def part(self, name):
        """The folder of a piece that keeps files of its own."""
        return self.root / "parts" / name

    def _file(self, name):
        return self.part(f"{name}.npz")

    def has(self, name):
        """Whether a piece is finished; if not, its time begins to count."""
        self._began = time.perf_counter()
        return self._file(name).exists()

    def keep(self, name, arrays):
        """Saves a finished piece, arrays by name."""
        self.write_settings()
        seconds = time.perf_counter() - self._began
        metadata = {"seconds": seconds, "settings": self._digest}
        checkpointing.save(self._file(name), _KIND, arrays, metadata)
        self._made.add(name)

    def load(self, name, runs=0, steps=0):
        """The arrays of a finished piece.

        Args:
            name: the piece's name.
            runs: the number of runs in it, for the progress. Defaults to 0.
            steps: the number of optimizer steps in it. Defaults to 0.

        Raises:
            CheckpointError: if the piece's file is damaged, or was made with
                other settings.
        """
        path = self._file(name)
        try:
            arrays, metadata = checkpointing.load(path, _KIND)
            seconds = metadata.get("seconds")
            is_piece = isinstance(seconds, (int, float))
            if not is_piece or metadata.get("settings") != self._digest:
                raise checkpointing.CheckpointError(
                    f"{path} was made with other settings than those of "
                    f"{self._settings_path}."
                )
        except checkpointing.CheckpointError as error:
            raise checkpointing.CheckpointError(
                f"{error} Delete it to have it made again."
            ) from error
        row = {"piece": name, "runs": runs, "steps": steps}
        self.seconds.append({**row, "seconds": seconds})
        self.progress.add(name, runs, steps, name in self._made)
        return arrays

    def close(self):
        """Lets another process work in the folder."""
        self._claim.close()
