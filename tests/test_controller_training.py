"""Controllers that are trained while their model trains, in `fit`."""

import csv

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from lopt_tf import autoloss
from lopt_tf.autoloss import learning, rewards, schedules


@keras.saving.register_keras_serializable("tests_training")
def help_loss(model, batch, training):
    return ops.mean(ops.square(model.net(batch) - 1))


@keras.saving.register_keras_serializable("tests_training")
def harm_loss(model, batch, training):
    return ops.mean(ops.square(model.net(batch) + 1))


_OPTIONS = tf.data.Options()
# Autotuning can hold up the end of an iterator for seconds.
_OPTIONS.autotune.enabled = False
ONES = tf.data.Dataset.from_tensors(np.ones([4, 1], "float32")).repeat()
ONES = ONES.with_options(_OPTIONS)
FEATURES = ("last_action", "average_first", "run_length")
OPTIONS = autoloss.ControllerOptions(
    algorithm="ppo",
    features=FEATURES,
    hidden=0,
    learning_rate=0.03,
    entropy_bonus=0.01,
)


def _model(options=OPTIONS, schedule=None, **compiled):
    """A model that one objective improves, and the other one spoils."""
    keras.utils.set_random_seed(3)
    net = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model = autoloss.AlternatingModel(
        {
            "help": autoloss.Objective(help_loss, net),
            "harm": autoloss.Objective(harm_loss, net),
        },
        net=net,
    )
    if schedule is None:
        schedule = autoloss.ScheduleController.untrained(
            "toy", model.objectives, options
        )
    model.compile(keras.optimizers.SGD(0.02), schedule, **compiled)
    model.schedule_state.draw.assign(5)
    return model


def _arrays(model):
    taken = model.schedule_state.taken
    found = [v.numpy() for v in model.variables if v is not taken]
    found += [v.numpy() for v in model.optimizer.variables]
    state = model.learning._arrays()
    return found + [state[name] for name in sorted(state)]


def _assert_equal(first, second):
    assert len(first) == len(second)
    for a, b in zip(first, second):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("reward", ["loss", "validation"])
def test_the_policy_moves_to_the_objective_that_helps(reward, tmp_path):
    model = _model(steps_per_execution=5)
    path = tmp_path / "controller.npz"
    callback = autoloss.ControllerTraining(OPTIONS, reward, path)
    steps, epochs = (400, 4) if reward == "loss" else (10, 100)
    history = model.fit(
        ONES,
        steps_per_epoch=steps,
        epochs=epochs,
        validation_data=ONES.take(1),
        callbacks=[callback, keras.callbacks.CSVLogger(tmp_path / "log.csv")],
        verbose=0,
    ).history
    # A fifth of the last actions or so are drawn evenly.
    assert np.mean(history["share/help"][-epochs // 4 :]) > 0.75
    assert np.isfinite(history["controller/entropy"][-1])
    with open(tmp_path / "log.csv") as file:
        assert "controller/value_error" in next(csv.DictReader(file))
    # Afterwards nothing is drawn evenly, and nothing is learned.
    assert float(model.schedule.epsilon.numpy()) == 0
    assert model.learning.tape is None
    saved = autoloss.ScheduleController.load(path)
    assert saved.actions == ("help", "harm")
    before = saved.weights()
    again = _model(schedule=saved)
    history = again.fit(ONES, steps_per_epoch=200, verbose=0).history
    assert history["share/help"][-1] > 0.8
    for name, array in saved.weights().items():
        np.testing.assert_array_equal(array, before[name])


def test_what_is_learned_from_by_hand(monkeypatch):
    """Records of every step: what was seen, done, and gained."""
    records = []
    monkeypatch.setattr(
        learning.ppo.PPO, "after_segment", lambda self, r: records.append(r)
    )
    seen = {"features": [], "weights": [], "level": []}

    class Spy(schedules.PolicySchedule):
        def __call__(self, found, step, seed):
            choice = super().__call__(found, step, seed)
            seen["features"].append(choice.features[0].numpy())
            seen["weights"].append(choice.weights[0].numpy())
            seen["level"].append(found["train_loss"][0].numpy())
            return choice

    controller = autoloss.ScheduleController.untrained(
        "toy", ("help", "harm"), OPTIONS
    )
    plain = controller.schedule()
    spy = Spy(plain.policy, plain.features, plain.actions)
    model = _model(schedule=spy, run_eagerly=True)
    callback = autoloss.ControllerTraining(OPTIONS)
    model.fit(ONES, steps_per_epoch=60, verbose=0, callbacks=[callback])
    (record,) = records
    # The 51st look is for what follows; the step itself looks again.
    np.testing.assert_array_equal(record.features[:, 0], seen["features"][:50])
    np.testing.assert_array_equal(record.following[0], seen["features"][50])
    np.testing.assert_array_equal(record.weights[:, 0], seen["weights"][:50])
    drops = -np.diff(seen["level"][:51])
    # Before the first step there is no loss to drop from.
    drops[0] = 0.0
    mean = np.mean(np.abs(drops[1:]))
    expected = rewards.step_reward()(
        {
            "improvement": np.float32(drops),
            "mean_improvement": np.float32(mean),
            "validated": np.ones(50, bool),
        }
    )
    np.testing.assert_allclose(record.reward[:, 0], expected, rtol=1e-5)
    assert record.alive.all() and not record.finished.any()
    assert model.learning.tape is None
    # Ten steps are left for the next fit.
    assert int(model.learning._tape.count.numpy()) == 10


def test_a_list_that_keras_made_does_as_well():
    """It has set its model before `fit` begins."""
    shares = []
    for wrapped in (False, True):
        model = _model()
        callbacks = [autoloss.ControllerTraining(OPTIONS)]
        if wrapped:
            callbacks = keras.callbacks.CallbackList(callbacks, model=model)
        history = model.fit(
            ONES, steps_per_epoch=60, verbose=0, callbacks=callbacks
        )
        shares.append(history.history["share/help"])
        assert model.learning.tape is None
    assert shares[0] == shares[1]


class _StopAfter(keras.callbacks.Callback):
    """Ends fit after some steps, as a user who interrupts it."""

    def __init__(self, steps):
        super().__init__()
        self.left = steps

    def on_train_batch_end(self, batch, logs=None):
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt


def _training(reward):
    return autoloss.ControllerTraining(OPTIONS, reward)


_FIT = {
    "steps_per_epoch": 70,
    "epochs": 3,
    "validation_data": ONES.take(1),
    "verbose": 0,
}


def test_a_backup_resumes_exactly(tmp_path):
    """Between two updates, with steps that wait for the next one."""
    undisturbed, stopped, restored = (_model() for _ in range(3))
    undisturbed.fit(ONES, callbacks=[_training("loss")], **_FIT)

    def backup():
        return keras.callbacks.BackupAndRestore(tmp_path / "backup")

    with pytest.raises(KeyboardInterrupt):
        callbacks = [backup(), _training("loss"), _StopAfter(150)]
        stopped.fit(ONES, callbacks=callbacks, **_FIT)
    restored.fit(ONES, callbacks=[backup(), _training("loss")], **_FIT)
    _assert_equal(_arrays(undisturbed), _arrays(restored))


def test_a_file_resumes_exactly(tmp_path):
    """Also after a model without the callback has passed the state on."""
    undisturbed, stopped = _model(), _model()
    undisturbed.fit(ONES, callbacks=[_training("validation")], **_FIT)
    with pytest.raises(KeyboardInterrupt):
        callbacks = [_training("validation"), _StopAtEpoch(2)]
        stopped.fit(ONES, callbacks=callbacks, **_FIT)
    stopped.save(tmp_path / "model.keras")
    passed_on = keras.models.load_model(tmp_path / "model.keras")
    passed_on.save(tmp_path / "copy.keras")
    loaded = keras.models.load_model(tmp_path / "copy.keras")
    callbacks = [_training("validation")]
    loaded.fit(ONES, initial_epoch=2, callbacks=callbacks, **_FIT)
    _assert_equal(_arrays(undisturbed), _arrays(loaded))


class _StopAtEpoch(keras.callbacks.Callback):
    """Ends fit when an epoch begins."""

    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.epoch:
            raise KeyboardInterrupt


def test_bad_trainings_of_controllers(tmp_path):
    with pytest.raises(ValueError, match="algorithm='ppo'.*ModelTask"):
        autoloss.ControllerTraining(autoloss.ControllerOptions())
    with pytest.raises(ValueError, match="one of loss, validation.*'bleu'"):
        autoloss.ControllerTraining(reward="bleu")
    model = _model(schedule="1:1")
    with pytest.raises(ValueError, match="schedule=.*Received.*Ratio"):
        model.fit(
            *(ONES,),
            steps_per_epoch=1,
            callbacks=[autoloss.ControllerTraining()],
        )
    model = _model()
    model.schedule.even_draws = True
    with pytest.raises(ValueError, match="`controller.even_draws = False`"):
        model.fit(
            *(ONES,),
            steps_per_epoch=1,
            callbacks=[autoloss.ControllerTraining()],
        )
    model = _model()
    with pytest.raises(ValueError, match="'validation'.*validation_data"):
        model.fit(
            ONES,
            steps_per_epoch=1,
            callbacks=[autoloss.ControllerTraining(reward="validation")],
        )
    model.fit(
        ONES,
        steps_per_epoch=1,
        callbacks=[autoloss.ControllerTraining()],
        verbose=0,
    )
    model.save_weights(tmp_path / "model.weights.h5")
    wider = autoloss.ControllerOptions(
        algorithm="ppo", features=("progress",), hidden=0
    )
    other = _model(wider)
    other.fit(
        ONES,
        steps_per_epoch=1,
        callbacks=[autoloss.ControllerTraining()],
        verbose=0,
    )
    with pytest.raises(ValueError, match="of another controller"):
        model.learning.load_own_variables(other.learning._arrays())
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    with strategy.scope():
        model = _model()
    with pytest.raises(ValueError, match="several replicas"):
        model.fit(
            ONES,
            steps_per_epoch=1,
            callbacks=[autoloss.ControllerTraining()],
        )
