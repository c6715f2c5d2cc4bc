"""What single episodes of models have come to, kept in files as they end."""

import json
import pathlib
import time

import numpy as np

from lopt_tf import checkpointing, checks, folders

_SPEAK_EVERY_S = 30.0


class KeptOutcomes:
    """Episodes under fixed schedules that need not be run again.

    Those of models take minutes each: a comparison that was stopped goes on
    where it was. A file is used for the same task, schedule and start only;
    what the task's settings do not tell, such as its code, is not looked at.

    Args:
        folder: of the files, made when the first is written; None keeps
            nothing. Defaults to `None`.
        say: a function of one line of text, for progress. Defaults to `None`.
    """

    def __init__(self, folder=None, say=None):
        self._folder = pathlib.Path(folder) if folder else None
        self._say = say or (lambda line: None)
        self._spoke = time.monotonic()
        self._seconds = []

    def outcomes(self, run, task, candidates, seeds, split, draw):
        """As `baselines.outcomes`, an episode at a time.

        Args:
            run: a function of (candidate, seed, draw): such outcomes of one
                episode. The other arguments are as there.
        """
        found, read = [], 0
        total = len(candidates) * len(seeds)
        for candidate in candidates:
            for place, seed in enumerate(seeds):
                where = {
                    "task": {"name": task.name, **task.get_config()},
                    "schedule": candidate.label,
                    "setting": np.asarray(candidate.setting).tolist(),
                    **{"start": int(seed), "split": split},
                    "draw": int(draw) + place,
                }
                where = json.loads(json.dumps(where, default=checks.plain))
                known = self._known(where)
                read += known is not None
                if known is None:
                    began = time.monotonic()
                    known = _plain(*run(candidate, seed, int(draw) + place))
                    self._keep(where, known)
                    self._seconds.append(time.monotonic() - began)
                found.append(known)
                self._tell(task, candidate.label, known, len(found), total)
        if read:
            self._say(
                f"note: {read} of {total} episodes are those in "
                f"{self._folder}. Delete it if code or data have changed."
            )
        return _joined(found, len(candidates), len(seeds))

    def _tell(self, task, label, known, done, total):
        if time.monotonic() - self._spoke < _SPEAK_EVERY_S:
            return
        self._spoke = time.monotonic()
        # The first one compiles.
        usual = np.median(self._seconds[1:] or self._seconds or [0.0])
        self._say(
            f"{label}: {task.result_name} {known['result']:.4g}; episode "
            f"{done} of {total}, {(total - done) * usual / 60:.1f} min left"
        )

    def _path(self, where):
        return self._folder / f"{checkpointing.digest(where)[:16]}.json"

    def _known(self, where):
        """What is in the file of an episode; None if there is none."""
        if self._folder is None:
            return None
        try:
            content = json.loads(self._path(where).read_text())
            digest = content.pop("digest")
        except (OSError, ValueError, KeyError, AttributeError):
            return None
        # A file that was changed is no outcome.
        if digest != checkpointing.digest(content):
            return None
        return content["known"] if content["where"] == where else None

    def _keep(self, where, known):
        if self._folder is None:
            return
        known = json.loads(json.dumps(known))
        content = {"where": where, "known": known}
        content["digest"] = checkpointing.digest(content)
        self._folder.mkdir(exist_ok=True)
        folders.write_text(self._path(where), json.dumps(content) + "\n")


def _plain(results, details, curves):
    """Outcomes of one episode as JSON has them."""
    return {
        "result": float(results[0, 0]),
        "details": {name: float(x[0, 0]) for name, x in details.items()},
        "curve": curves and curves[0][0],
    }


def _joined(found, *shape):
    """Outcomes of all candidates and starts, as `baselines.outcomes` does."""
    results = np.float32([x["result"] for x in found]).reshape(shape)
    details = {
        name: np.float32([x["details"][name] for x in found]).reshape(shape)
        for name in found[0]["details"]
    }
    curves = None
    if found[0]["curve"] is not None:
        each = [[tuple(point) for point in x["curve"]] for x in found]
        count = shape[1]
        curves = [each[i : i + count] for i in range(0, len(each), count)]
    return results, details, curves
