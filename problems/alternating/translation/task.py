"""Task 4: translation, with tags and entities as auxiliary tasks."""

import dataclasses
import functools
import json
import math
import os

import keras
import tensorflow as tf

from problems.alternating.supervised import check_positive, check_seed
from problems.alternating.task import ModelTask
from problems.alternating.translation import (
    data,
    networks,
    optional,
    presets,
    scores,
    sources,
    translator,
)
from problems.alternating.translation.language import Language

_COUNTS = (
    *("pairs", "tagged", "symbols", "width", "embedding", "depth", "beams"),
    *("batch_size", "updates", "hold", "validations", "valid", "test"),
)
_KINDS = {str: "a text", bool: "true or false"}
# Batches of training sentences that validations measure, too.
_TRAIN_BATCHES = 4
_MOST_TOKENS = 60
# Learning rates that translation alone is tried with, in the task's.
_RATES = (0.3, 0.6, 1.0, 2.0)
_LARGEST_RATE = 10.0
# Updates between two of PPO (AutoLoss, section 4).
_PUBLISHED_PERIOD = 50


@dataclasses.dataclass(eq=False)
class Translation(ModelTask):
    """Translation, part-of-speech tags, entities: one encoder, three decoders.

    A step of the schedule chooses one of the three, which then makes `hold`
    updates, each on a batch of its own data. The result is the perplexity of
    translation on the model with the best validation.

    Args:
        preset: "demo" (about a minute of one core), "full" (some minutes) or
            "paper" (as published); gives what is not given below.
        corpus: "generated", or a folder of sentence pairs: see `sources.read`.
        tags: the file of tags that belongs to a folder.
        entities: of entities. Defaults to `""`: the names among the tags.
        language: {argument of `language.Language`: value}; a dictionary.
        architecture: "lstm" or "transformer".
        own_optimizers: whether each task has an Adam of its own. Defaults to
            `True`. One that all share remembers the small gradients of tags
            that are learned; then translation's first steps are far too long.
        beams: candidates of the search that BLEU is measured with.
        data_seed: of generated sentences, and of the splits.
        pairs, tagged: sentences of translation and of each other task to
            train on; of files, the most of them, drawn, those included that
            are too long. (Other numbers have other test sentences, too.)
        symbols, width, embedding, depth, dropout, batch_size, learning_rate:
            of subwords, networks and Adam; the norm of a gradient is at most 1.
            Transformers take no `embedding`.
        lengths: of buckets, in subwords, ascending, at most 60; sentences that
            are longer are left out.
        updates: of an episode, in all.
        hold: updates between two decisions.
        validations: of an episode.
        valid, test: sentences of each task to measure on, those included
            that are too long. Published test sentences are taken, all of them.

    Attributes:
        data: `data.Data`; reads and prepares it when it is first asked for.
    """

    preset: str = "demo"
    corpus: str = "generated"
    tags: str = ""
    entities: str = ""
    language: dict = dataclasses.field(default_factory=dict)
    architecture: str = "lstm"
    own_optimizers: bool = True
    beams: int = 5
    data_seed: int = 0
    pairs: int | None = None
    tagged: int | None = None
    symbols: int | None = None
    width: int | None = None
    embedding: int | None = None
    depth: int | None = None
    dropout: float | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    lengths: tuple | None = None
    updates: int | None = None
    hold: int | None = None
    validations: int | None = None
    valid: int | None = None
    test: int | None = None

    name = "translation"
    actions = sources.TASKS
    own_batches = True
    result_name = "perplexity"
    measures = (
        "perplexity",
        *(
            f"{task}_{what}"
            for task in sources.TASKS
            for what in ("loss", "accuracy", "train_loss", "train_accuracy")
        ),
    )
    coin_parts = 10
    # Much for translation, much for one of the others, and all alike.
    ratios = (
        *((1, 1, 1), (2, 1, 0), (4, 1, 0), (8, 1, 0), (1, 1, 0)),
        (1, 2, 0),
        *((2, 0, 1), (4, 0, 1), (2, 1, 1), (4, 1, 1), (8, 1, 1)),
    )
    # On a CPU XLA takes 0.6 (demo) to 0.9 (full) of an update's time; Keras'
    # "auto" would do without.
    jit_compile = True
    # The model that is measured now.
    _measured = None
    # Entities, then tags, then translation: shares of the updates.
    curricula = (
        *((0.95, 0.05, 0.0), (0.9, 0.1, 0.0), (0.8, 0.2, 0.0)),
        *((0.7, 0.3, 0.0), (0.5, 0.5, 0.0)),
        *((0.9, 0.05, 0.05), (0.8, 0.1, 0.1), (0.6, 0.2, 0.2)),
        (0.4, 0.3, 0.3),
    )

    def __post_init__(self):
        presets.filled(self)
        self._check_kinds()
        check_positive(int, **{name: getattr(self, name) for name in _COUNTS})
        check_seed(data_seed=self.data_seed)
        check_positive(
            float, most=_LARGEST_RATE, learning_rate=self.learning_rate
        )
        if not 0 <= self.dropout < 1:
            raise ValueError(
                "`dropout` must be at least 0 and below 1. Received: "
                f"dropout={self.dropout!r}"
            )
        self._check_language()
        if self.architecture not in networks.ARCHITECTURES:
            raise ValueError(
                f"Unknown architecture {self.architecture!r}. Known: "
                f"{', '.join(networks.ARCHITECTURES)}."
            )
        networks.check_width(self.architecture, self.width)
        own = presets.PRESETS[self.preset]["embedding"]
        if self.architecture != "lstm" and self.embedding != own:
            raise ValueError(
                "Embeddings of a transformer are as wide as all of it, `width`."
                f" Received: embedding={self.embedding}"
            )
        self.lengths = _checked_lengths(self.lengths)
        self._check_corpus()
        if self.updates % (self.hold * self.validations):
            raise ValueError(
                "`updates` must be a multiple of `hold` times `validations`. "
                f"Received: updates={self.updates}, hold={self.hold}, "
                f"validations={self.validations}"
            )
        self.max_steps = self.updates // self.hold
        self.period = self.max_steps // self.validations

    def _check_kinds(self):
        """Raises ValueError for a value of another kind than its default."""
        for field in dataclasses.fields(self):
            kind = type(field.default)
            value = getattr(self, field.name)
            if kind is str and isinstance(value, os.PathLike):
                value = os.fspath(value)
                setattr(self, field.name, value)
            if kind in (str, bool) and not isinstance(value, kind):
                raise ValueError(
                    f"`{field.name}` must be {_KINDS[kind]}. Received: "
                    f"{field.name}={value!r}"
                )

    def _check_language(self):
        """Raises ValueError for what no `Language` takes."""
        try:
            Language(**self.language)
        except TypeError as error:
            raise ValueError(
                "`language` must be arguments of a `Language`, {name: value}. "
                f"Received: language={self.language!r} ({error})"
            ) from error

    def _check_corpus(self):
        """Raises ValueError for files and settings that do not belong."""
        if self.corpus != "generated":
            if not self.tags:
                raise ValueError(
                    f"The corpus {self.corpus} needs a file of part-of-speech "
                    "tags: --set=tags=FILE."
                )
            if self.language:
                raise ValueError(
                    "`language` is of the generated corpus. Received: corpus="
                    f"{self.corpus!r}, language={self.language}"
                )
        elif self.tags or self.entities:
            raise ValueError(
                "`tags` and `entities` are files that belong to a `corpus`, a "
                f"folder. Received: tags={self.tags!r}, "
                f"entities={self.entities!r}"
            )

    def get_config(self):
        return {**dataclasses.asdict(self), "lengths": list(self.lengths)}

    @property
    def alone_settings(self):
        rates = [factor * self.learning_rate for factor in _RATES]
        return tuple(
            (("learning_rate", rate),)
            for rate in rates
            if rate <= _LARGEST_RATE
        )

    @functools.cached_property
    def data(self):
        language = json.dumps(self.language, sort_keys=True)
        return _data(
            *(self.corpus, self.tags, self.entities, language),
            *(self.pairs, self.tagged, (self.valid, self.test)),
            *(self.symbols, self.lengths, self.batch_size, self.data_seed),
        )

    @property
    def data_digest(self):
        # Nothing goes on with networks that were others under these settings.
        version = networks.VERSIONS[self.architecture]
        return self.data.digest + (f", networks {version}" if version else "")

    def remarks(self):
        return [self.data.told()]

    def build(self):
        # Not above: problems are there without schedules.
        from lopt_tf.autoloss import AlternatingModel, Objective

        made = self.networks(self.data.outputs)
        objectives = {
            task: Objective(
                networks.loss_of(task),
                [made["encoder"], made[f"{task}_decoder"]],
            )
            for task in self.actions
        }
        model = AlternatingModel(objectives, **made)
        optimizer = self._optimizer()
        if self.own_optimizers:
            optimizer = {task: self._optimizer() for task in self.actions}
        # Each task has data of its own: none is measured while it rests.
        # The host chooses the objectives of several replicas, without XLA.
        single = model.replica_strategy.num_replicas_in_sync == 1
        jit_compile = self.jit_compile and single
        model.compile(optimizer, measure_every=0, jit_compile=jit_compile)
        return model

    def networks(self, outputs):
        """Encoder and decoders by name, for outputs {task: how many}."""
        return networks.make(
            *(self.architecture, outputs["translation"], outputs),
            embedding=self.embedding,
            width=self.width,
            depth=self.depth,
            dropout=self.dropout,
            longest=self.lengths[-1],
        )

    def _optimizer(self):
        return keras.optimizers.Adam(self.learning_rate, global_clipnorm=1.0)

    def _take(self, model):
        """Compiles what measures a model, if it is another one."""
        if model is self._measured:
            return
        self._measured = model

        def measuring(task):
            return tf.function(
                lambda batch: networks.sums(
                    *networks.logits(model, task, batch)
                ),
                autograph=False,
            )

        self._sums = {task: measuring(task) for task in self.actions}
        self.translator = translator.Translator(
            model, self.data.subwords, self.lengths, self.batch_size
        )

    def start(self, model, setting, seed):
        networks.initialize(list(model.models.values()), seed)

    def batch(self, setting, seed, number, action):
        stream = self.data.streams[self.actions[action]]["train"]
        return stream.batch(seed, number)

    def measure(self, model, split):
        self._take(model)
        found = {}
        for task in self.actions:
            streams = self.data.streams[task]
            whole = (batch for _, batch in streams[split].whole())
            some = streams["train"].spaced(_TRAIN_BATCHES)
            for prefix, batches in (("", whole), ("train_", some)):
                loss, hits = translator.teacher_forced(
                    self._sums[task], batches
                )
                found[f"{task}_{prefix}loss"] = loss
                found[f"{task}_{prefix}accuracy"] = hits
        loss = found["translation_loss"]
        # Beyond it, all is equally lost.
        return {"perplexity": math.exp(min(loss, 50.0)), **found}

    def details_of(self, model, curve, split=None):
        """How good outputs are on the test sentences, by several measures."""
        if split != "test":
            return {}
        self._take(model)
        streams = self.data.streams
        stream = streams[data.TRANSLATION][split]
        pairs = [self.data.pairs[split][i] for i in stream.kept]
        told = self.translator.translate([x.source for x in pairs], self.beams)
        right = [x.target for x in pairs]
        batches = (batch for _, batch in stream.whole())
        _, hits = translator.teacher_forced(
            self._sums[data.TRANSLATION], batches
        )
        tags, entities = (
            translator.tags(self.translator, self.data, task, split)
            for task in self.actions[1:]
        )
        return {
            "BLEU": scores.bleu(told, right),
            "chrF": scores.chrf(told, right),
            "token accuracy": hits,
            "tag accuracy": scores.accuracy(*tags),
            "span F1": scores.span_f1(*entities),
        }


@dataclasses.dataclass(eq=False)
class PublishedTranslation(Translation):
    """Each update is chosen, and PPO sees a validation after every 50.

    As `Translation`, with other defaults of `hold` and `validations`.
    """

    hold: int | None = 1

    def __post_init__(self):
        asked = self.validations
        if self.hold is None:
            self.hold = 1
        presets.filled(self)
        counts = self.updates, self.hold
        if asked is None and all(type(x) is int and x > 0 for x in counts):
            most = max(self.updates // _PUBLISHED_PERIOD, 1)
            fits = (
                x for x in range(most, 0, -1) if not counts[0] % (counts[1] * x)
            )
            self.validations = next(fits, 1)
            between = self.updates // self.validations
            if between > 2 * max(self.hold, _PUBLISHED_PERIOD):
                raise ValueError(
                    "The published way validates after about "
                    f"{_PUBLISHED_PERIOD} updates, and their number is no "
                    "multiple of that: give one that is, or `validations`. "
                    f"Received: updates={self.updates}, hold={self.hold}"
                )
        super().__post_init__()


@functools.lru_cache(4)
def _data(corpus, tags, entities, language, pairs, tagged, *rest):
    """The `data.Data` of a task's settings, once for equal ones."""
    counts, *sizes, seed = rest
    optional.check_available()
    if corpus == "generated":
        wanted = (count + sum(counts) for count in (pairs, tagged))
        made = sources.generated(json.loads(language), *wanted, seed)
    else:
        most = {"pairs": pairs, "tagged": tagged}
        most |= dict(zip(("valid", "test"), counts))
        made = sources.read(corpus, tags, entities, most=most, seed=seed)
    return data.Data(made, counts, *sizes, seed)


def _checked_lengths(lengths):
    """Lengths as a tuple; ValueError if they cannot be a stream's."""
    fits = isinstance(lengths, (list, tuple)) and all(
        type(x) is int and 2 <= x <= _MOST_TOKENS for x in lengths
    )
    if not fits or not lengths or list(lengths) != sorted({*lengths}):
        raise ValueError(
            "`lengths` must be ascending integers from 2 to "
            f"{_MOST_TOKENS}. Received: lengths={lengths!r}"
        )
    return tuple(lengths)
