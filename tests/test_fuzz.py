"""Any shapes, types and gradients: finite, or skipped and counted."""

import os
import warnings

import hypothesis
import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import strategies as st

import lopt_tf
from lopt_tf.optimizers import registry

# By hand: LOPT_FUZZ_EXAMPLES=1000 pytest tests/test_fuzz.py
EXAMPLES = int(os.environ.get("LOPT_FUZZ_EXAMPLES", "10"))
STEPS = 3
TYPES = ("float16", "bfloat16", "float32", "float64")
KINDS = {
    name: lambda name=name, **kwargs: registry.OPTIMIZERS[name](**kwargs)
    for name in registry.OPTIMIZERS
}
KINDS["attention"] = lambda **kwargs: lopt_tf.HierarchicalRNN(
    use_attention=True, **kwargs
)
KINDS.update(
    {
        name: lambda name=name, **kwargs: (
            lopt_tf.LearnedOptimizer.from_pretrained(name, **kwargs)
        )
        for name in lopt_tf.list_pretrained()
    }
)
SCALES = st.sampled_from([0.0, *(10.0**e for e in range(-38, 39, 4)), 3e38])
DIMENSIONS = st.lists(st.integers(1, 3), max_size=5)
SHAPES = st.one_of(DIMENSIONS, st.sampled_from([[0], [2, 0], [7], [3, 5]]))
TENSOR = st.tuples(SHAPES, st.sampled_from(TYPES), SCALES)
TENSORS = st.one_of(
    st.lists(TENSOR, min_size=1, max_size=4),
    st.lists(TENSOR, min_size=5, max_size=30),
)
GRADIENTS = st.sampled_from(["plain"] * 6 + ["none", "sparse", "nan", "inf"])
SETTINGS = st.fixed_dictionaries(
    {},
    optional={
        "weight_decay": st.sampled_from([1e-3, 1e30]),
        "use_ema": st.just(True),
        "learning_rate": st.sampled_from([0.0, 1e-3, 1e30]),
    },
)
CLIPPING = st.sampled_from([{}, {}, {"clipvalue": 1.0}, {"clipnorm": 1.0}])
FUZZ = hypothesis.settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
)


def _values(rng, shape, dtype, scale):
    values = tf.constant(rng.normal(size=shape) * scale, "float64")
    largest = float(tf.as_dtype(dtype).max)
    return tf.cast(tf.clip_by_value(values, -largest, largest), dtype)


def _gradient(rng, kind, variable, scale):
    """(a gradient, whether it is finite)."""
    if kind == "none":
        return None, True
    shape, dtype = tuple(variable.shape), variable.dtype
    values = _values(rng, shape, dtype, scale)
    if kind == "sparse" and shape and shape[0]:
        rows = [0] * 2 + [shape[0] - 1]
        return tf.IndexedSlices(tf.gather(values, rows), rows), None
    if kind in ("nan", "inf") and 0 not in shape:
        return values + tf.cast(float(kind), dtype), False
    return values, True


def _arrays(variables):
    return {v.path: np.array(v).astype("float64") for v in variables}


@pytest.fixture(autouse=True, scope="module")
def _eager():
    # Each example has shapes of its own: compiling would take all the time.
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.mark.parametrize("kind", KINDS)
@FUZZ
@hypothesis.given(data=st.data())
def test_finite_or_skipped_and_counted(kind, data):
    tensors = data.draw(TENSORS)
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    variables = [
        keras.Variable(_values(rng, shape, dtype, scale), dtype=dtype)
        for shape, dtype, scale in tensors
    ]
    optimizer = KINDS[kind](
        seed=1, jit_compile=False, **data.draw(SETTINGS), **data.draw(CLIPPING)
    )
    optimizer.build(variables)
    for _ in range(STEPS):
        kinds = [data.draw(GRADIENTS) for _ in variables]
        if "none" in kinds:
            kinds[0] = "plain"
        grads, finite = zip(
            *(
                _gradient(rng, k, v, data.draw(SCALES))
                for k, v in zip(kinds, variables)
            )
        )
        everything = [*variables, *optimizer.variables]
        before = _arrays(everything)
        skipped, taken = optimizer.skipped_steps, int(optimizer.iterations)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            optimizer.apply(grads, variables)
        after = _arrays(everything)
        is_skipped = optimizer.skipped_steps - skipped
        assert int(optimizer.iterations) + is_skipped == taken + 1
        if False in finite:
            # Keras clips by a norm before an optimizer sees a gradient.
            assert is_skipped or optimizer.clipnorm
        for path, array in after.items():
            assert np.all(np.isfinite(array)), path
            if is_skipped and not ("skipped" in path or "average" in path):
                np.testing.assert_array_equal(array, before[path], path)


WRONG = {
    "shape": lambda v: tf.ones((*v.shape, 2), v.dtype),
    "complex": lambda v: tf.ones(v.shape, "complex64"),
    "integer": lambda v: tf.ones(v.shape, "int32"),
    "sparse": lambda v: tf.IndexedSlices(tf.ones((1, 9, 9)), [0]),
}


@pytest.mark.parametrize("wrong", WRONG)
@FUZZ
@hypothesis.given(data=st.data())
def test_what_does_not_fit_is_a_value_error_that_names_it(wrong, data):
    tensors = data.draw(TENSORS)
    variables = [
        keras.Variable(np.ones(shape), dtype=dtype)
        for shape, dtype, _ in tensors
    ]
    kind = data.draw(st.sampled_from(list(registry.OPTIMIZERS)))
    optimizer = KINDS[kind](seed=1, jit_compile=False)
    optimizer.build(variables)
    place = data.draw(st.integers(0, len(variables) - 1))
    grads = [tf.ones(v.shape, v.dtype) for v in variables]
    grads[place] = WRONG[wrong](variables[place])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ValueError, match=f"{variables[place].path} "):
            optimizer.apply(grads, variables)
