"""What single episodes of models have come to, kept in files as they end."""

import json
import pathlib
import time

import numpy as np

from lopt_tf import checkpointing, checks, folders

_SPEAK_EVERY_S = 30.0


class KeptOutcomes:
    """Episodes that need not be run again.

    Those of models take minutes each: a comparison that was stopped goes on
    where it was. A file is used for the same task, data, schedule and start
    only; the code is not looked at.

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
            run: a function of (task, candidate, seed, draw): such outcomes of
                one episode. The other arguments are as there.
        """
        found = []
        for each, place, seed in self._counted(task, candidates, seeds):
            if place == 0:
                # One for all starts: each compiles a model of its own.
                changed = each.task(task)
            found.append(
                self._episode(
                    run, changed, each, seed, split, int(draw) + place
                )
            )
        return _joined(found, len(candidates), len(seeds))

    def controller(self, run, task, policy, seeds):
        """Test outcomes of a controller, shares and images of its episodes.

        Shares are [segments, E, actions], images in -1..1 [E, count, ...] or
        None.

        Args:
            run: a function of (task, policy, seed, draw): such outcomes,
                shares and images of one episode.
            policy: with a `label` and a `setting` that tells it from others.
            task, seeds: as for `outcomes`.
        """
        found = [
            self._episode(run, task, each, seed, "test", place)
            for each, place, seed in self._counted(task, [policy], seeds)
        ]
        results, details, curves = _joined(found, 1, len(seeds))
        details = {name: values[0] for name, values in details.items()}
        each = [np.float32(x["shares"]) for x in found]
        longest = max(map(len, each))
        # An episode that has finished takes no action any more.
        shares = np.full([longest, len(each), len(task.actions)], np.nan)
        for place, share in enumerate(each):
            shares[: len(share), place] = share
        images = [x.get("images") for x in found]
        if any(x is None for x in images):
            # Of a task without, or of an earlier version.
            images = None
        else:
            images = np.float32(images) / 127.5 - 1
        return results[0], details, curves and curves[0], shares, images

    def _counted(self, task, candidates, seeds):
        """(candidate, place, seed) of each episode; tells how far it is."""
        total, done, self._read = len(candidates) * len(seeds), 0, 0
        for candidate in candidates:
            for place, seed in enumerate(seeds):
                yield candidate, place, seed
                done += 1
                self._tell(task, candidate.label, done, total)
        if self._read:
            self._say(
                f"note: {self._read} of {total} episodes are those in "
                f"{self._folder}. Delete it if the code has changed."
            )

    def _episode(self, run, task, candidate, seed, split, draw):
        """What an episode has come to, as JSON has it."""
        where = {
            "task": {"name": task.name, **task.get_config()},
            "schedule": candidate.label,
            "setting": np.asarray(candidate.setting).tolist(),
            **{"start": int(seed), "split": split, "draw": draw},
        }
        if task.data_digest is not None:
            where["data"] = task.data_digest
        where = json.loads(json.dumps(where, default=checks.plain))
        known = self._known(where)
        self._read += known is not None
        if known is None:
            began = time.monotonic()
            known = _plain(*run(task, candidate, seed, draw))
            self._keep(where, known)
            self._seconds.append(time.monotonic() - began)
        self._last = known["result"]
        return known

    def _tell(self, task, label, done, total):
        if time.monotonic() - self._spoke < _SPEAK_EVERY_S:
            return
        self._spoke = time.monotonic()
        # The first one compiles.
        usual = np.median(self._seconds[1:] or self._seconds or [0.0])
        self._say(
            f"{label}: {task.result_name} {self._last:.4g}; episode "
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


def _plain(results, details, curves, shares=None, images=None):
    """Outcomes of one episode as JSON has them, images as bytes."""
    found = {
        "result": float(results[0, 0]),
        "details": {name: float(x[0, 0]) for name, x in details.items()},
        "curve": curves and curves[0][0],
    }
    if shares is not None:
        found["shares"] = np.float32(shares[:, 0]).tolist()
    if images is not None:
        pixels = np.clip(np.round((images[0] + 1) * 127.5), 0, 255)
        found["images"] = pixels.astype(int).tolist()
    return found


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
