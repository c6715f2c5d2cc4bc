"""What befalls an `AlternatingModel` that trains for long: nothing is lost."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from lopt_tf import autoloss
from lopt_tf.autoloss import schedules

STEPS = 6


def _to(goal):
    def loss(model, batch, training):
        return ops.mean(ops.square(model.net(batch) - goal))

    return loss


def _batches(*values):
    rows = np.float32(values)[:, None, None] * np.ones([1, 4, 1], "float32")
    return tf.data.Dataset.from_tensor_slices(rows)


ONES = _batches(1).repeat()


def _model(optimizer, schedule):
    keras.utils.set_random_seed(3)
    net = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model = autoloss.AlternatingModel(
        {
            "up": autoloss.Objective(_to(1.0), net),
            "down": autoloss.Objective(_to(-1.0), net),
        },
        net=net,
    )
    model.compile(optimizer, schedule)
    model.schedule_state.draw.assign(5)
    return model


def _fit(model, data=ONES, epochs=1, **kwargs):
    return model.fit(
        data, steps_per_epoch=STEPS, epochs=epochs, verbose=0, **kwargs
    ).history


def test_a_schedule_outlives_a_loss_that_is_not_finite():
    """The optimizer skips that step: what the schedule looks at, too."""
    schedule = schedules.Feedback([[1.0, 1.0]], "average_losses", action=1)
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.01))
    model = _model(optimizer, schedule)
    _fit(model, _batches(1, np.nan, np.inf, 1, 1, 1))
    assert np.isfinite(model.net.get_weights()[0]).all()
    state = model.schedule_state
    for variable in (state.average_losses, state.last_losses):
        assert np.isfinite(variable.numpy()).all()
    shares = _fit(model, epochs=5)
    assert 0 < np.mean(shares["share/down"]) < 1
    assert np.all(state.measured.numpy() == 1)


def test_a_training_that_is_made_longer_knows_its_progress(tmp_path):
    def fit(epochs):
        model = _model("sgd", schedules.Curriculum([[0.5, 0.5]]))
        kept = keras.callbacks.BackupAndRestore(
            tmp_path / "backup", delete_checkpoint=False
        )
        history = _fit(model, epochs=epochs, callbacks=[kept])
        state = model.schedule_state
        assert int(state.total.numpy()) == int(state.step.numpy())
        return history["share/up"]

    assert fit(2) == [0, 1]
    # From the third of six epochs on; the last objective comes first.
    assert fit(6) == [0, 1, 1, 1]


def test_a_controller_that_is_replaced_leaves_nothing():
    options = autoloss.ControllerOptions(features=("average_first",))
    controllers = [
        autoloss.ScheduleController.untrained("toy", ("up", "down"), options)
        for _ in range(2)
    ]
    model = _model("sgd", controllers[0])
    count = len(model.weights)
    model.compile("sgd", controllers[0])
    assert len(model.weights) == count
    model.compile("sgd", controllers[1])
    assert len(model.weights) == count
    own = {id(w) for w in controllers[1].policy.weights}
    assert own < {id(w) for w in model.weights}
    model.compile("sgd", "1:1")
    assert len(model.weights) == len(_model("sgd", "1:1").weights) < count
    _fit(model)


def test_callbacks_that_need_one_optimizer_say_so(tmp_path):
    each = {"up": "sgd", "down": "sgd"}
    model = _model(each, "1:1")
    board = keras.callbacks.TensorBoard
    for callback in (
        keras.callbacks.ReduceLROnPlateau(monitor="up", mode="min"),
        keras.callbacks.LearningRateScheduler(lambda epoch: 0.1),
        keras.callbacks.SwapEMAWeights(),
        board(str(tmp_path), write_steps_per_second=True),
    ):
        with pytest.raises(ValueError, match="needs one optimizer for all"):
            _fit(model, callbacks=[callback])
    assert int(model.schedule_state.step.numpy()) == 0
    assert not any(tmp_path.iterdir())
    _fit(model, callbacks=[board(str(tmp_path))])


def test_a_loss_that_is_not_finite_ends_a_training_that_asks_for_it(capfd):
    ends = keras.callbacks.TerminateOnNaN()
    history = _fit(
        _model(keras.optimizers.SGD(1e30), "1:1"), epochs=4, callbacks=[ends]
    )
    assert len(history["up"]) == 1
    assert "is not finite" in capfd.readouterr().out
    # What is never chosen has no loss: no reason to end.
    history = _fit(_model("sgd", "1:0"), epochs=2, callbacks=[ends])
    assert len(history["up"]) == 2
