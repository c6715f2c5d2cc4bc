"""Time per step relative to Adam, and memory, beside the paper's formula."""

import dataclasses
import statistics
import time

import keras
import numpy as np

from lopt_tf.evaluation import plots, results
from lopt_tf.optimizers import registry, update_rule

TITLE = "Time and memory of a step"
QUESTION = (
    "The paper: a step costs O(N B + N H0² + T H1² + H2²) for N parameters "
    "in T tensors, B examples and hidden sizes H, so that the time of a step "
    "relative to Adam's falls towards 1 as the minibatch grows; memory is "
    "O(N H0 + T H1 + H2)."
)
LEARNED = "optional"
_INPUTS, _CLASSES = 784, 10
_STEPS = 3
_FLOAT_BYTES = 4


@dataclasses.dataclass(frozen=True)
class Settings:
    """Which models and minibatches.

    Attributes:
        hidden_sizes: of each model, a fully connected one on 784 inputs.
        batch_sizes: examples in a minibatch, ascending.
        repetitions: timings of each, of a few steps, learned and Adam in
            turn; their median counts.
        seed: of the data.
    """

    hidden_sizes: tuple
    batch_sizes: tuple
    repetitions: int
    seed: int = 0


PRESETS = {
    "quick": Settings(
        ((16,), (64,), (256, 128)), (8, 32, 128, 512, 1024), repetitions=5
    ),
    "full": Settings(
        ((16,), (64,), (256, 128), (1024, 512)),
        (8, 16, 32, 64, 128, 256, 512, 1024),
        repetitions=15,
    ),
}


def run(study, settings):
    """Measures every pair of model and minibatch; returns an `Outcome`."""
    rule = (
        registry.rule("hierarchical_rnn")
        if study.learned is None
        else study.learned.rule
    )
    pairs = [
        (hidden, batch)
        for hidden in settings.hidden_sizes
        for batch in settings.batch_sizes
    ]
    study.progress.plan(2 * len(pairs) * (settings.repetitions + 1))
    timings = [
        _timing_row(study, rule, hidden, batch, settings)
        for hidden, batch in pairs
    ]
    memory = [
        row
        for hidden in settings.hidden_sizes
        for row in _memory_rows(rule, hidden)
    ]
    return results.Outcome(
        tables=[
            results.Table(
                "timings",
                "Time of a train step",
                timings,
                "Medians in milliseconds, forward and backward pass "
                "included. formula: (N B + N H0² + T H1² + H2²) / (N B), "
                "the paper's with all constants taken as equal.",
            ),
            results.Table(
                "memory",
                "Memory of the optimizer's state",
                memory,
                "Bytes per parameter beside the parameter itself. formula: "
                "4 (H0 + 2 S + 3) for the element's hidden state, S momenta "
                "and mean squares, two decays and the learning rate (and 1 "
                "more with attention), and 4 (T H1 + H2) / N.",
            ),
        ],
        plots=[
            results.Plot(
                "wall_clock",
                "Time per step relative to Adam",
                lambda path: _plot(path, timings, settings),
                "Dashed: the paper's formula with all constants taken as "
                "equal, for the largest model; the others' are the same but "
                "for a term that hardly shows.",
            )
        ],
    )


def _plot(path, rows, settings):
    labels = dict.fromkeys(row["model"] for row in rows)

    def points(model, column):
        return [
            (row["batch"], row[column])
            for row in rows
            if row["model"] == model and column in row
        ]

    formula = points(list(labels)[-1], "formula")
    plots.plot_log_log(
        path,
        {model: points(model, "ratio") for model in labels},
        "batch size",
        "time of a step over Adam's",
        dashed={"the paper's formula": formula} if formula else None,
        ticks=(settings.batch_sizes, (0.5, 1, 2, 5, 10, 20, 50, 100)),
    )


def _name(hidden):
    sizes = (_INPUTS, *hidden, _CLASSES)
    count = sum((a + 1) * b for a, b in zip(sizes, sizes[1:]))
    return f"{'-'.join(map(str, sizes))} ({count:,} parameters)"


def _shapes(hidden):
    sizes = (_INPUTS, *hidden, _CLASSES)
    return [s for a, b in zip(sizes, sizes[1:]) for s in ((a, b), (b,))]


def _timing_row(study, rule, hidden, batch, settings):
    count = 2 * (settings.repetitions + 1)
    arrays = study.piece(
        f"{'-'.join(map(str, hidden))}/{batch}",
        f"{_name(hidden)}, batch size {batch}",
        lambda: _measure(rule, hidden, batch, settings),
        count,
        count * _STEPS,
    )
    learned, adam = (
        1e3 * statistics.median(arrays[name].tolist())
        for name in ("learned", "adam")
    )
    row = {
        "model": _name(hidden),
        "batch": batch,
        "learned_ms": learned,
        "adam_ms": adam,
        "ratio": learned / adam,
    }
    formula = _formula(rule, hidden, batch)
    return row if formula is None else {**row, "formula": formula}


def _formula(rule, hidden, batch):
    """The paper's ratio of costs, or None for another kind of optimizer."""
    sizes = getattr(rule, "level_sizes", None)
    if sizes is None:
        return None
    shapes = _shapes(hidden)
    elements = sum(map(np.prod, shapes))
    squares = [size**2 for size in (*sizes, 0, 0)[:3]]
    gradient = elements * batch
    update = elements * squares[0] + len(shapes) * squares[1] + squares[2]
    return float((gradient + update) / gradient)


def _measure(rule, hidden, batch, settings):
    """Seconds of a step, {"learned" and "adam": array [repetitions]}."""
    rng = np.random.default_rng(settings.seed)
    images = rng.random((batch, _INPUTS), "float32")
    labels = rng.integers(_CLASSES, size=batch)
    optimizer_class = registry.optimizer_class(rule.name)
    models = {
        "learned": _model(hidden, optimizer_class(**rule.get_config(), seed=0)),
        "adam": _model(hidden, keras.optimizers.Adam()),
    }
    seconds = {name: [] for name in models}
    # The first time is compilation.
    for repetition in range(settings.repetitions + 1):
        for name, model in models.items():
            began = time.perf_counter()
            for _ in range(_STEPS):
                model.train_on_batch(images, labels)
            if repetition:
                elapsed = time.perf_counter() - began
                seconds[name].append(elapsed / _STEPS)
    return {name: np.array(values) for name, values in seconds.items()}


def _model(hidden, optimizer):
    model = keras.Sequential(
        [
            keras.layers.Input((_INPUTS,)),
            *(keras.layers.Dense(size, activation="relu") for size in hidden),
            keras.layers.Dense(_CLASSES),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=optimizer, loss=loss)
    return model


def _memory_rows(rule, hidden):
    shapes = _shapes(hidden)
    elements = sum(int(np.prod(shape)) for shape in shapes)
    params = [np.zeros(shape, "float32") for shape in shapes]
    rates = rule.draw_log_learning_rates(params, params)
    state = rule.init_state(rule.init_weights(0), params, rates)
    held = sum(_FLOAT_BYTES * int(np.prod(a.shape)) for a in state.values())
    row = {
        "model": _name(hidden),
        "optimizer": rule.name,
        "bytes_per_parameter": held / elements,
    }
    sizes = getattr(rule, "level_sizes", None)
    if sizes is not None:
        first, second, third = (*sizes, 0, 0)[:3]
        per_element = first + 2 * rule.num_gradient_scales + 3
        per_element += rule.use_attention
        upper = (len(shapes) * second + third) / elements
        row["formula"] = _FLOAT_BYTES * (per_element + upper)
        row["padding"] = _padding(shapes)
    adam = {
        "model": _name(hidden),
        "optimizer": "adam",
        "bytes_per_parameter": 2.0 * _FLOAT_BYTES,
        "formula": 2.0 * _FLOAT_BYTES,
    }
    return [row, adam]


def _padding(shapes):
    """Share of elements that only fill up blocks."""
    layout = update_rule.choose_layout([np.zeros(s) for s in shapes])
    if not hasattr(layout, "num_blocks"):
        return 0.0
    held = layout.num_blocks * layout.block_size
    return held / sum(layout.sizes) - 1
