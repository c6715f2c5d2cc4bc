"""A trained translator as a file, and texts that it translates."""

import hashlib
import json
import os
import pathlib
import time
import types

from lopt_tf import checkpointing, folders
from lopt_tf.autoloss import compiled_episodes, named_arrays
from lopt_tf.autoloss.controller import ScheduleController, best_path
from lopt_tf.autoloss.schedules import Ratio
from lopt_tf.autoloss.starts import starts
from problems.alternating.translation import corpora, networks, subwords
from problems.alternating.translation.task import Translation
from problems.alternating.translation.translator import Translator

_KIND, _KIND_BEGUN = "lopt_tf.translator", "lopt_tf.translator_training"
_KEEP_EVERY_S = 60.0
# Without a controller: a good ratio on scarce pairs (docs/translation.md).
_RATIO = (4, 1, 0)
# What others of a folder are called.
_OWN_FILES = (".npz", ".json", ".csv")
# How it is searched is no matter of training.
_OF_SEARCH = {"beams"}
# Settings that a trained one needs no more.
_OF_TRAINING = {
    **{"corpus": "generated", "tags": "", "entities": "", "language": {}},
    **dict.fromkeys(("updates", "hold", "validations")),
}


def translate_file(task, folder, source, target, controller, report):
    """Translates a file, line by line.

    The folder keeps the translator, `translator.npz`; where there is none, one
    is trained first. That goes on from `translator_training.npz` if it was
    stopped.

    Args:
        task: a `Translation`.
        folder: an existing folder; its `best.npz` is the controller if there
            is one and none is named.
        source, target: paths; what is to be translated, and the result, a
            file that may be there.
        controller: a path, or None.
        report: a function of one line of text.

    Raises:
        ValueError: if the task is another one, the source is no text in UTF-8,
            the target cannot be written, the translator was trained with other
            settings or has learned nothing, or a controller is named for one
            that was trained already.
    """
    if not isinstance(task, Translation):
        raise ValueError(
            f"--mode=translate is for --task=translation. Received: {task.name}"
        )
    lines = [line for _, line in corpora.lines(source)]
    path = pathlib.Path(folder) / "translator.npz"
    _check_target(source, target, folder)
    if controller is not None and path.exists():
        raise ValueError(
            f"{path} was trained already: a controller has no effect on it. "
            "Leave it out, or choose another folder."
        )
    if not path.exists():
        if controller is None and (best := best_path(folder)).exists():
            controller = best
        begun = pathlib.Path(folder) / "translator_training.npz"
        save(path, task, trained(task, controller, report, begun))
        begun.unlink(missing_ok=True)
    translator = load(path, task)
    texts = [line for line in lines if line.strip()]
    cut = translator.count_cut(texts)
    if cut:
        report(
            f"note: {cut} of {len(texts)} lines are cut after "
            f"{translator.most_subwords} subwords, the most that this "
            "translator reads."
        )
    found = iter(translator.translate(texts, task.beams))
    told = [next(found) if line.strip() else "" for line in lines]
    folders.write_text(target, "".join(f"{line}\n" for line in told))
    report(f"Translations: {target}")


def _check_target(source, target, folder):
    """Raises ValueError, before hours of training, if no file can be there."""
    target, folder = pathlib.Path(target), pathlib.Path(folder)
    problem = None
    if not target.parent.is_dir():
        problem = f"there is no folder {target.parent}"
    elif target.exists() and not target.is_file():
        problem = "it is no ordinary file"
    elif target.exists() and target.samefile(source):
        problem = "it is what is to be translated"
    elif target.suffix in _OWN_FILES and target.parent.samefile(folder):
        problem = "files of that name belong to the program"
    elif not os.access(target if target.exists() else target.parent, os.W_OK):
        problem = "permission denied"
    if problem:
        raise ValueError(
            f"Translations cannot be written to {target}: {problem}. Name "
            "another file."
        )


def trained(task, controller, report, begun=None):
    """Trains a model under a controller's file; without one, by a ratio.

    Args:
        task, controller, report: as for `translate_file`.
        begun: a path: where a training that is stopped is kept, and what it
            goes on from if it is there. Defaults to `None`.

    Returns:
        The model with the best validation.

    Raises:
        ValueError: if nothing was learned, or what was begun is another
            training; also CheckpointError.
    """
    if controller is None:
        schedule, by = Ratio([_RATIO]), list(_RATIO)
        report("Training a translator: every fifth time tags.")
    else:
        loaded = ScheduleController.load(controller)
        loaded.check_fits(task)
        schedule = loaded.schedule()
        by = pathlib.Path(controller).read_bytes()
        by = hashlib.sha256(by).hexdigest()
        report(f"Training a translator under {controller}.")
        for line in loaded.remarks(task):
            report(line)
    played = compiled_episodes.episodes_of(task, schedule, task.period)
    for line in task.remarks():
        report(line)
    settings = task.get_config()
    for name in _OF_SEARCH:
        del settings[name]
    settings = {"task": settings, "by": by, "data": task.data_digest}
    training = _Begun(begun, played, settings)
    position = training.position() or played.begin(starts("test", 1))
    try:
        while not played.finished(position):
            position, _ = played.advance(position)
            (episode,) = position.state
            loss = episode.measured[task.result_name]
            report(f"update {episode.updates}: {task.result_name} {loss:.2f}")
            training.keep_sometimes(position)
    except KeyboardInterrupt:
        training.keep(position)
        raise
    (episode,) = position.state
    # At first the best is the network that has learned nothing yet.
    if not any(loss == episode.best for _, loss in episode.curve):
        if begun is not None:
            begun.unlink(missing_ok=True)
        raise ValueError(
            "The translator has learned nothing: no validation was better "
            "than that of its start. Lower its learning rate "
            "(--set=learning_rate=...)."
        )
    played.take_best(position, 0)
    return played.model


class _Begun:
    """The file of a training that has not ended."""

    def __init__(self, path, played, settings):
        self._path = path
        self._played = played
        self._settings = json.loads(json.dumps(settings))
        self._kept_at = time.monotonic()

    def position(self):
        """What is in the file, None if there is none."""
        if self._path is None or not self._path.exists():
            return None
        arrays, facts = checkpointing.load(self._path, _KIND_BEGUN)
        for name in _OF_SEARCH:
            # Earlier versions kept it.
            facts["settings"]["task"].pop(name, None)
        saved, now = facts["settings"], self._settings
        saved.setdefault("data", now["data"])
        differing = {n for n in {*saved, *now} if saved.get(n) != now.get(n)}
        if differing == {"data"}:
            raise ValueError(
                f"{self._path} is of a training on other sentences, or of "
                "networks of another version. Delete it to train anew, or "
                "choose another folder."
            )
        if differing:
            raise ValueError(
                f"{self._path} is of a training with other settings. Give it "
                "those to go on, delete it, or choose another folder."
            )
        return self._played.load(arrays, facts["position"])

    def keep(self, position):
        if self._path is None:
            return
        arrays, facts = self._played.save(position)
        facts = {"position": facts, "settings": self._settings}
        checkpointing.save(self._path, _KIND_BEGUN, arrays, facts)
        self._kept_at = time.monotonic()

    def keep_sometimes(self, position):
        if time.monotonic() - self._kept_at > _KEEP_EVERY_S:
            self.keep(position)


def save(path, task, model):
    """Writes the networks and the vocabulary of a task's model."""
    facts = {
        "networks": networks.VERSIONS[task.architecture],
        "task": task.get_config(),
        "outputs": task.data.outputs,
        "subwords": task.data.subwords.to_json(),
    }
    arrays = _arrays(list(model.models.values()))
    checkpointing.save(path, _KIND, arrays, facts)


def load(path, task=None):
    """The `Translator` of a file that `save` wrote.

    Args:
        path: of the file.
        task: what it must have been trained on. Defaults to `None`: anything.

    Raises:
        CheckpointError: if it is missing, damaged or something else.
        ValueError: if it was trained on another task.
    """
    arrays, facts = checkpointing.load(path, _KIND)
    version = networks.VERSIONS.get(facts["task"].get("architecture"))
    if facts.get("networks", 0) != version:
        raise checkpointing.CheckpointError(
            f"{path} is of another version of lopt-tf, whose networks were "
            "others. Delete it to train a translator anew, or choose another "
            "folder."
        )
    if task is not None:
        _check_settings(path, facts["task"], task)
    made = Translation(**{**facts["task"], **_OF_TRAINING})
    parts = made.networks(facts["outputs"])
    variables = _variables(parts.values())
    names = named_arrays.shapes("translator", variables)
    checkpointing.check_arrays(path, arrays, names)
    named_arrays.assign("translator", variables, arrays)
    return Translator(
        types.SimpleNamespace(**parts),
        subwords.Subwords.from_json(facts["subwords"]),
        *(made.lengths, made.batch_size),
    )


def _check_settings(path, saved, task):
    now = task.get_config()
    for name in now.keys() - _OF_SEARCH:
        if now[name] != saved.get(name):
            raise ValueError(
                f"{path} was trained with {name}={saved.get(name)}, not "
                f"{now[name]}. Say so (--set={name}=...), or choose another "
                "folder."
            )


def _arrays(layers):
    return named_arrays.read("translator", _variables(layers))


def _variables(layers):
    return [v for layer in layers for v in layer.trainable_variables]
