"""A trained translator as a file, and texts that it translates."""

import pathlib
import types

from lopt_tf import checkpointing, folders
from lopt_tf.autoloss import compiled_episodes, named_arrays
from lopt_tf.autoloss.controller import ScheduleController
from lopt_tf.autoloss.schedules import Curriculum
from lopt_tf.autoloss.starts import starts
from problems.alternating.translation import corpora, subwords
from problems.alternating.translation.task import Translation
from problems.alternating.translation.translator import Translator

_KIND = "lopt_tf.translator"
# Without a controller: what was best of a few on scarce pairs.
_SHARES = (0.6, 0.2, 0.2)
# Settings that a trained one needs no more.
_OF_TRAINING = {
    **{"corpus": "generated", "tags": "", "entities": "", "language": {}},
    **dict.fromkeys(("updates", "hold", "validations")),
}


def translate_file(task, folder, source, target, controller, report):
    """Translates a file, line by line.

    The folder keeps the translator, `translator.npz`; where there is none, one
    is trained first.

    Args:
        task: a `Translation`.
        folder: an existing folder; its `best.npz` is the controller if there
            is one and none is named.
        source, target: paths; what is to be translated, and the result.
        controller: a path, or None.
        report: a function of one line of text.

    Raises:
        ValueError: if the task is another one, the source is no text in UTF-8,
            the translator was trained with other settings, or a controller is
            named for one that was trained already.
    """
    if not isinstance(task, Translation):
        raise ValueError(
            f"--mode=translate is for --task=translation. Received: {task.name}"
        )
    lines = [line for _, line in corpora.lines(source)]
    path = pathlib.Path(folder) / "translator.npz"
    if controller is not None and path.exists():
        raise ValueError(
            f"{path} was trained already: a controller has no effect on it. "
            "Leave it out, or choose another folder."
        )
    if not path.exists():
        best = pathlib.Path(folder) / "best.npz"
        if controller is None and best.exists():
            controller = best
        save(path, task, trained(task, controller, report))
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


def trained(task, controller, report):
    """Trains a model under a controller's file; without one, by a curriculum.

    Returns:
        The model with the best validation.
    """
    if controller is None:
        schedule = Curriculum([_SHARES])
        report("Training a translator: entities, tags, then translation.")
    else:
        loaded = ScheduleController.load(controller)
        loaded.check_fits(task)
        schedule = loaded.schedule()
        report(f"Training a translator under {controller}.")
    played = compiled_episodes.episodes_of(task, schedule, task.period)
    position = played.begin(starts("test", 1))
    while not played.finished(position):
        position, _ = played.advance(position)
        (episode,) = position.state
        loss = episode.measured[task.result_name]
        report(f"update {episode.updates}: {task.result_name} {loss:.2f}")
    played.take_best(position, 0)
    return played.model


def save(path, task, model):
    """Writes the networks and the vocabulary of a task's model."""
    networks = list(model.models.values())
    facts = {
        "task": task.get_config(),
        "outputs": task.data.outputs,
        "subwords": task.data.subwords.to_json(),
    }
    checkpointing.save(path, _KIND, _arrays(networks), facts)


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
    if task is not None:
        _check_settings(path, facts["task"], task)
    made = Translation(**{**facts["task"], **_OF_TRAINING})
    networks = made.networks(facts["outputs"])
    variables = _variables(networks.values())
    names = named_arrays.shapes("translator", variables)
    checkpointing.check_arrays(path, arrays, names)
    named_arrays.assign("translator", variables, arrays)
    return Translator(
        types.SimpleNamespace(**networks),
        subwords.Subwords.from_json(facts["subwords"]),
        *(made.lengths, made.batch_size),
    )


def _check_settings(path, saved, task):
    now = task.get_config()
    # How it is searched is no matter of training.
    for name in now.keys() - {"beams"}:
        if now[name] != saved.get(name):
            raise ValueError(
                f"{path} was trained with {name}={saved.get(name)}, not "
                f"{now[name]}. Say so (--set={name}=...), or choose another "
                "folder."
            )


def _arrays(networks):
    return named_arrays.read("translator", _variables(networks))


def _variables(networks):
    return [v for net in networks for v in net.trainable_variables]
