"""Task 4: translation with auxiliary tasks, its corpora and its networks."""

from problems.alternating.translation.corpora import CorpusError
from problems.alternating.translation.task import (
    PublishedTranslation,
    Translation,
)

__all__ = ["CorpusError", "PublishedTranslation", "Translation"]
