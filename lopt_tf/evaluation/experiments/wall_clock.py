"""Time per step relative to Adam, and memory, beside the paper's formula."""

import dataclasses
import functools
import itertools
import math
import operator
import statistics

import keras
import numpy as np

from lopt_tf.evaluation import curves, plots, results, step_time
from lopt_tf.optimizers import layouts, registry
from lopt_tf.reporting import report

TITLE = "Time and memory of a step"
QUESTION = (
    "The paper: a step costs O(N B + N H0² + T H1² + H2²) for N parameters "
    "in T tensors, B examples and hidden sizes H, so that the time of a step "
    "relative to Adam's falls towards 1 as the minibatch grows; memory is "
    "O(N H0 + T H1 + H2)."
)
LEARNED = "optional"
_STEPS = 3
_FLOAT_BYTES = 4


@dataclasses.dataclass(frozen=True)
class Settings:
    """Which models and minibatches.

    Attributes:
        hidden_sizes: of each model, a fully connected one on 784 inputs.
        batch_sizes: examples in a minibatch, ascending.
        repetitions: timings of each, of a few steps; their median counts.
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


def run(folder, settings):
    """Measures every pair of model and minibatch; returns an `Outcome`."""
    learned, models = folder.learned, settings.hidden_sizes
    rule = learned.rule if learned else registry.rule("hierarchical_rnn")
    pairs = list(itertools.product(models, settings.batch_sizes))
    folder.progress.plan(2 * len(pairs) * (settings.repetitions + 1))
    timings = [_timing_row(folder, rule, *pair, settings) for pair in pairs]
    memory = [row for hidden in models for row in _memory_rows(rule, hidden)]
    return results.Outcome(
        tables=[
            report.Table(
                "timings",
                "Time of a train step",
                timings,
                "Medians in milliseconds, forward and backward pass "
                "included. formula: (N B + N H0² + T H1² + H2²) / (N B), "
                "the paper's with all constants taken as equal.",
            ),
            report.Table(
                "memory",
                "Memory of the optimizer's state",
                memory,
                "Bytes per parameter beside the parameter itself. formula: "
                "4 (H0 + 2 S + 3) for the element's hidden state, S momenta "
                "and mean squares, two decays and the learning rate (and 1 "
                "more with attention, of which the Keras optimizer has 2), "
                "and 4 (T H1 + H2) / N.",
            ),
        ],
        plots=[
            report.Plot(
                "wall_clock",
                "Time per step relative to Adam",
                functools.partial(_plot, rows=timings, settings=settings),
                "Dashed: the paper's formula with all constants taken as "
                "equal, for the largest model; the others' are the same but "
                "for a term that hardly shows.",
            )
        ],
    )


def _plot(path, rows, settings):
    models = curves.grouped(rows, operator.itemgetter("model"))

    def points(own, column):
        return [(row["batch"], row[column]) for row in own if column in row]

    formula = points(list(models.values())[-1], "formula")
    plots.plot_log_log(
        path,
        {model: points(own, "ratio") for model, own in models.items()},
        "batch size",
        "time of a step over Adam's",
        dashed={"the paper's formula": formula} if formula else None,
        ticks=(settings.batch_sizes, (0.5, 1, 2, 5, 10, 20, 50, 100)),
    )


def _sizes(hidden):
    return (step_time.INPUTS, *hidden, step_time.CLASSES)


def _name(hidden):
    count = sum(map(math.prod, _shapes(hidden)))
    return f"{'-'.join(map(str, _sizes(hidden)))} ({count:,} parameters)"


def _shapes(hidden):
    pairs = itertools.pairwise(_sizes(hidden))
    return [s for a, b in pairs for s in ((a, b), (b,))]


def _timing_row(folder, rule, hidden, batch, settings):
    count = 2 * (settings.repetitions + 1)
    piece = f"{'-'.join(map(str, hidden))}/{batch}"
    if not folder.has(piece):
        make = registry.optimizer_class(rule.name)
        optimizers = {
            "learned": make(**rule.get_config(), seed=0),
            "adam": keras.optimizers.Adam(),
        }
        sizes = (hidden, batch, settings.repetitions, _STEPS, settings.seed)
        folder.keep(piece, step_time.step_times(optimizers, *sizes))
    arrays = folder.load(piece, count, count * _STEPS)
    learned, adam = (
        1e3 * statistics.median(arrays[name].tolist())
        for name in ("learned", "adam")
    )
    return {
        "model": _name(hidden),
        "batch": batch,
        "learned_ms": learned,
        "adam_ms": adam,
        "ratio": learned / adam,
        **_formula(rule, hidden, batch),
    }


def _formula(rule, hidden, batch):
    """The paper's ratio of costs; nothing for another kind of optimizer."""
    if not hasattr(rule, "level_sizes"):
        return {}
    shapes = _shapes(hidden)
    elements = sum(map(math.prod, shapes))
    squares = [size**2 for size in (*rule.level_sizes, 0, 0)[:3]]
    gradient = elements * batch
    update = elements * squares[0] + len(shapes) * squares[1] + squares[2]
    return {"formula": float((gradient + update) / gradient)}


def _memory_rows(rule, hidden):
    shapes = _shapes(hidden)
    elements = sum(map(math.prod, shapes))
    params = [np.zeros(shape, "float32") for shape in shapes]
    rates = rule.draw_log_learning_rates(params, params)
    state = rule.init_state(rule.init_weights(0), params, rates)
    arrays = keras.tree.flatten(state)
    held = sum(_FLOAT_BYTES * int(np.prod(a.shape)) for a in arrays)
    row = {
        "model": _name(hidden),
        "optimizer": rule.name,
        "bytes_per_parameter": held / elements,
    }
    if hasattr(rule, "level_sizes"):
        first, second, third = (*rule.level_sizes, 0, 0)[:3]
        per_element = first + 2 * rule.num_gradient_scales + 3
        per_element += rule.use_attention
        upper = (len(shapes) * second + third) / elements
        row["formula"] = _FLOAT_BYTES * (per_element + upper)
        row["padding"] = _padding(shapes)
    two_floats = 2.0 * _FLOAT_BYTES
    adam = {"bytes_per_parameter": two_floats, "formula": two_floats}
    return [row, {"model": _name(hidden), "optimizer": "adam", **adam}]


def _padding(shapes):
    """Share of elements that only fill up blocks."""
    layout = layouts.choose_layout([np.zeros(s) for s in shapes])
    if not hasattr(layout, "num_blocks"):
        return 0.0
    held = layout.num_blocks * layout.block_size
    return held / sum(layout.sizes) - 1
