"""Keras models in files that may be missing or damaged."""

import pathlib
import zipfile

import keras


def read(path, what, advice):
    """The model of a file, not compiled.

    Args:
        path: of the file.
        what: the model is, for errors: a noun.
        advice: what to do if it is damaged, for errors: a sentence.

    Raises:
        ValueError: if it is missing, damaged, or no model.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise ValueError(f"There is no {what} {path}.")
    try:
        if path.suffix == ".keras":
            with zipfile.ZipFile(path) as archive:
                broken = archive.testzip()
            if broken:
                raise ValueError(f"{broken} in it is not what was written")
        return keras.saving.load_model(path, compile=False)
    except Exception as error:
        # Whatever Keras meets in a file that is not a model.
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"The {what} {path} is damaged, or no Keras model ({reason}). "
            f"{advice}"
        ) from error
