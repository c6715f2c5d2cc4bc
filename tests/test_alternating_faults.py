"""What befalls an `AlternatingModel` that trains for long: nothing is lost."""

import types
import typing

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from lopt_tf import autoloss
from lopt_tf.autoloss import schedules

STEPS = 6
_NAMES = ("up", "down")


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


class _Pair(typing.NamedTuple):
    inputs: tf.Tensor
    goals: tf.Tensor


@pytest.mark.parametrize("schedule", ["1:0", "1:1", "3:1"])
@pytest.mark.parametrize("shared", [True, False])
def test_averages_are_of_what_has_moved(schedule, shared):
    """Also of an objective that begins later, or never."""
    keras.utils.set_random_seed(3)
    nets = [
        keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
        for _ in range(2)
    ]

    def loss(net):
        return lambda model, batch, training: ops.mean(net(batch) ** 2)

    model = autoloss.AlternatingModel(
        {name: autoloss.Objective(loss(n), n) for name, n in zip("ab", nets)},
        a_net=nets[0],
        b_net=nets[1],
    )

    def sgd():
        return keras.optimizers.SGD(1e-3, use_ema=True)

    model.compile(sgd() if shared else {"a": sgd(), "b": sgd()}, schedule)
    before = [np.array(n.trainable_variables[0]) for n in nets]
    model.fit(ONES, steps_per_epoch=STEPS, verbose=0)
    after = [np.array(n.trainable_variables[0]) for n in nets]
    assert before[0] != after[0]
    assert (before[1] != after[1]) == (schedule != "1:0")
    np.testing.assert_allclose(after, before, atol=0.05)


def test_averages_of_what_others_move_are_refused():
    averaged = {name: keras.optimizers.SGD(use_ema=True) for name in _NAMES}
    with pytest.raises(ValueError, match="'down' updates, too"):
        _model(averaged, "1:1")
    often = keras.optimizers.SGD(use_ema=True, ema_overwrite_frequency=2)
    with pytest.raises(ValueError, match="ema_overwrite_frequency must be"):
        _model(often, "1:1")


def test_epochs_without_a_loss_are_passed_over(tmp_path):
    """The first ones are of the other objective."""
    model = _model("sgd", schedules.Curriculum([[0.5, 0.5]]))
    monitored = {"monitor": "up", "mode": "min"}
    best = tmp_path / "best.weights.h5"
    callbacks = [
        keras.callbacks.EarlyStopping(patience=1, **monitored),
        keras.callbacks.ReduceLROnPlateau(patience=1, **monitored),
        keras.callbacks.ModelCheckpoint(
            best, save_best_only=True, save_weights_only=True, **monitored
        ),
    ]
    history = _fit(model, epochs=6, callbacks=callbacks)
    assert np.isnan(history["up"]).tolist() == [True] * 3 + [False] * 3
    assert callbacks[0].best == callbacks[2].best == history["up"][-1]
    assert len({*history["learning_rate"]}) == 1
    last = model.net.get_weights()
    model.load_weights(best)
    np.testing.assert_array_equal(model.net.get_weights()[0], last[0])


def test_epochs_without_a_loss_end_nothing():
    """Keras' own patience is 0; a callback may be used again and again."""
    model = _model("sgd", schedules.Curriculum([[0.5, 0.5]]))
    stopping = keras.callbacks.EarlyStopping("up", mode="min")
    plateau = keras.callbacks.ReduceLROnPlateau("up", mode="min", patience=0)
    history = _fit(model, epochs=6, callbacks=[stopping, plateau])
    assert len(history["up"]) == len(history["learning_rate"]) == 6
    first = stopping.on_epoch_end
    _fit(model, epochs=1, callbacks=[stopping, plateau])
    assert stopping.on_epoch_end is first


def test_fit_in_a_scope_says_so():
    strategy = tf.distribute.OneDeviceStrategy("/cpu:0")
    with strategy.scope():
        model = _model("sgd", "1:1")
        with pytest.raises(ValueError, match="`fit` outside of strategy"):
            _fit(model)
        with pytest.raises(ValueError, match="`evaluate` outside of"):
            model.evaluate(ONES.take(1), verbose=0)
    _fit(model)


@keras.saving.register_keras_serializable("alternating_faults")
def saved_loss(model, batch, training):
    return ops.mean(ops.square(model.net(batch)))


def _saved_model():
    net = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    each = autoloss.Objective(saved_loss, net)
    return autoloss.AlternatingModel({"up": each, "down": each}, net=net)


def test_a_file_of_one_device_loads_for_several(tmp_path):
    model = _saved_model()
    model.compile("sgd", "1:1", jit_compile=True, steps_per_execution=2)
    model.save(tmp_path / "model.keras")
    strategy = tf.distribute.MirroredStrategy(["cpu:0", "cpu:1"])
    with strategy.scope():
        loaded = keras.models.load_model(tmp_path / "model.keras")
    _fit(loaded)
    again = keras.models.load_model(tmp_path / "model.keras")
    assert again.jit_compile is True and again.steps_per_execution == 2
    model.compile("sgd", "1:1")
    assert model.get_compile_config()["jit_compile"] == "auto"


def test_a_loss_that_was_registered_anew_is_saved(tmp_path):
    model = _saved_model()
    model.compile("sgd", "1:1")
    register = keras.saving.register_keras_serializable("alternating_faults")
    try:
        # As a notebook's cell that is run again.
        again = types.FunctionType(saved_loss.__code__, globals(), "saved_loss")
        register(again)
        model.save(tmp_path / "model.keras")
    finally:
        register(saved_loss)
    assert keras.models.load_model(tmp_path / "model.keras").compiled


def test_schedules_that_cannot_be_say_so():
    nets = {
        name: keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
        for name in ("one", "two", "three")
    }
    objectives = {
        name.upper(): autoloss.Objective(saved_loss, net)
        for name, net in nets.items()
    }
    model = autoloss.AlternatingModel(objectives, **nets)
    options = autoloss.ControllerOptions(features=("average_ratio",))
    controller = autoloss.ScheduleController.untrained(
        "toy", tuple(objectives), options
    )
    with pytest.raises(ValueError, match="is of two losses; the model has 3"):
        model.compile("sgd", controller)
    with pytest.raises(ValueError, match="numbers of steps: integers"):
        model.compile("sgd", schedules.Ratio([[0.5, 0.25, 0.25]]))


def test_a_ratio_counts_far():
    ratio = schedules.Ratio([[1.0, 2.0]])
    found = [
        ratio.weights({}, tf.constant(2**24 + i), None)[0].numpy().argmax()
        for i in range(6)
    ]
    # 2^24 is 1 more than a multiple of 3.
    assert found == [1, 1, 0, 1, 1, 0]


def test_steps_of_models_that_are_not_built_say_so():
    net = keras.Sequential([keras.layers.Dense(1)])
    each = autoloss.Objective(saved_loss, net)
    model = autoloss.AlternatingModel({"up": each, "down": each}, net=net)
    model.compile("sgd", "1:1")
    with pytest.raises(ValueError, match="`take` needs models that are built"):
        model.take(0, [np.ones([2, 1])])
    with pytest.raises(ValueError, match="`choose` needs models that are"):
        model.choose()


def test_named_batches_are_evaluated_as_they_are():
    def loss(model, batch, training):
        return ops.mean(ops.square(model.net(batch.inputs) - batch.goals))

    net = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    each = autoloss.Objective(loss, net)
    model = autoloss.AlternatingModel({"up": each, "down": each}, net=net)
    model.compile("sgd", "1:1")
    rows = np.ones([8, 1], "float32")
    data = tf.data.Dataset.from_tensor_slices(_Pair(rows, rows)).batch(4)
    model.fit(data, validation_data=data, verbose=0)
