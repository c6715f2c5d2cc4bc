"""Steps of an `AlternatingModel`: choose, update, measure, count."""

import functools

import tensorflow as tf

from lopt_tf.autoloss import schedule_argument
from lopt_tf.autoloss.objective_step import Measurement

# Metadata that the objectives have to be measured for, and which of their
# axes are actions.
MEASURED = ("losses", "average_losses", "train_loss", "gradient_magnitudes")
_PER_ACTION = ("losses", "average_losses", "gradient_magnitudes", "last_action")


def needs_of(schedule):
    """Names of the metadata that a schedule looks at, a set."""
    return {name for names in schedule.needs.values() for name in names}


class Actions:
    """What a compiled `AlternatingModel` does at its steps.

    Where there is one device, TensorFlow chooses the objective, inside one
    function for `steps_per_execution` steps. With several replicas, whose
    optimizers do not run inside of conditions, and with `run_eagerly`, the
    host chooses.

    Args:
        model: the model.
        steps: a list of `ObjectiveStep`.
    """

    def __init__(self, model, steps):
        self.model = model
        self.steps = steps
        self.state = model.schedule_state
        self.schedule = model.schedule
        self.order = schedule_argument.order_of(
            model.schedule, list(model.objectives)
        )
        self.updates = [each.updates for each in model.objectives.values()]
        self.strategy = model.replica_strategy
        self.replicas = self.strategy.num_replicas_in_sync
        self._compiled = {}

    def choice(self):
        """What the schedule decides: a `schedules.Choice`."""
        found = self.state.metadata()
        for name in _PER_ACTION:
            found[name] = tf.gather(found[name], self.order, axis=1)
        step = tf.cast(self.state.step.value, tf.int32)
        return self.schedule(found, step, self.state.seed())

    def choose(self):
        """The place of the objective that comes next, a tensor."""
        return self._place(self.choice())

    def _place(self, choice):
        return tf.gather(self.order, tf.argmax(choice.weights[0]))

    def _needs(self):
        """Names of the metadata that the schedule or its training looks at."""
        return needs_of(self.schedule) | {*self.model.learning.needs}

    def _writer(self, choice):
        """Writes, when a step has been made, what its controller learns from.

        It is made before the step; then it is a function without arguments.
        """
        tape, level = self.model.learning.tape, self.state.known_train_loss()

        def write():
            if tape is not None:
                tape.write(choice, level)

        return write

    def take(self, action, batches, needs, others=None, now=True):
        """Makes one step; arguments as for `AlternatingModel.take`.

        Args:
            now: whether resting objectives are measured, a boolean or tensor.
        """
        with_magnitude = "gradient_magnitudes" in needs
        rest = set()
        if others and not {*needs}.isdisjoint(MEASURED):
            rest = {*others} - {action}
        found, known = [], []
        for place in range(len(self.steps)):
            if place in rest:
                measure = functools.partial(
                    self._run, place, "measure", others[place], with_magnitude
                )
                found.append(_if(now, measure))
                known.append(tf.cast(now, tf.float32))
            else:
                found.append(Measurement.none())
                known.append(float(place == action))
        losses = []
        for batch in batches:
            found[action] = self._run(action, "update", batch, with_magnitude)
            losses.append(found[action].loss)
        with tf.control_dependencies(losses):
            self._count(action, losses, found, known)

    def _count(self, action, losses, found, known):
        chosen = tf.one_hot(action, len(self.steps))
        mean = tf.add_n(losses) / len(losses)
        self.state.measure(tf.stack(known), *map(tf.stack, zip(*found)))
        self.state.advance(action, len(losses))
        self.state.show(chosen * mean, chosen * len(losses))

    def _run(self, place, what, batch, with_magnitude):
        """A `Measurement`: the mean over the replicas."""
        function = functools.partial(
            getattr(self.steps[place], what), with_magnitude=with_magnitude
        )
        if self.replicas > 1:
            found = self.strategy.run(function, (self._split(batch),))
            means = (self.strategy.reduce("MEAN", x, axis=None) for x in found)
            return Measurement(*means)
        if self.model.jit_compile and not self.model.run_eagerly:
            key = place, what, with_magnitude
            function = self._once(key, function, jit_compile=True)
        return function(batch)

    def _split(self, batch):
        """A batch as replicas take it: each a part of the rows."""
        if self.replicas == 1:
            return batch

        def part(context):
            number = context.replica_id_in_sync_group
            return tf.nest.map_structure(
                lambda x: _part(x, number, self.replicas), batch
            )

        return self.strategy.experimental_distribute_values_from_function(part)

    def _check_share(self, batch):
        """Raises ValueError for a batch that replicas cannot share evenly."""
        rows = int(_rows(batch))
        if rows % self.replicas:
            raise ValueError(
                f"A batch of {rows} rows cannot be shared by {self.replicas} "
                "replicas evenly. Batch by a multiple of their number, with "
                "batch(..., drop_remainder=True)."
            )

    def _once(self, key, function, **options):
        """The function compiled, the same for the same key."""
        if key not in self._compiled:
            self._compiled[key] = tf.function(
                function, autograph=False, **options
            )
        return self._compiled[key]

    # Where the host chooses.

    def take_on_host(self, action, batches, needs=(), others=None):
        """`take`, compiled by itself."""
        if self.replicas > 1:
            for batch in batches:
                self._check_share(batch)
        needs = tuple(sorted({*needs}))
        function = functools.partial(self.take, action, needs=needs)
        if not self.model.run_eagerly:
            function = self._once((action, needs), function)
        function(batches, others=others)

    def look(self):
        """The `schedules.Choice` of the next step, compiled by itself."""
        if self.model.run_eagerly:
            return self.choice()
        return self._once("choice", self.choice)()

    def _step_on_host(self, streams):
        choice = self.look()
        action, write = int(self._place(choice)), self._writer(choice)
        batches = self._draw(action, streams.shared, streams.iterators)
        others, every = None, self.model.measure_every
        step = int(self.state.step.numpy())
        if streams.shared and every and step % every == 0:
            others = dict.fromkeys(range(len(self.steps)), batches[-1])
        self.take_on_host(action, batches, self._needs(), others)
        write()

    # Where TensorFlow chooses.

    def _step_in_graph(self, shared, iterators):
        every, needs = self.model.measure_every, self._needs()
        choice = self.choice()
        write = self._writer(choice)

        def branch(action):
            batches = self._draw(action, shared, iterators)
            others, now = None, False
            if shared and every:
                others = dict.fromkeys(range(len(self.steps)), batches[-1])
                now = self.state.step.value % every == 0
            # If the data end, nothing of the step has happened.
            drawn = tf.nest.flatten(batches, expand_composites=True)
            drawn = [each for each in drawn if each is not None]
            with tf.control_dependencies(drawn):
                self.take(action, batches, needs, others, now)
            return tf.constant(0)

        branches = [
            functools.partial(branch, place) for place in range(len(self.steps))
        ]
        tf.switch_case(self._place(choice), branches)
        write()

    def _steps_in_graph(self, shared, count, iterators):
        def body(i):
            self._step_in_graph(shared, iterators)
            return i + 1

        tf.while_loop(lambda i: i < count, body, [0], parallel_iterations=1)
        return self.logs()

    def _draw(self, action, shared, iterators):
        """The batches of a step, all before its first update."""
        iterator = iterators[0 if shared else action]
        return [next(iterator) for _ in range(self.updates[action])]

    # What Keras calls.

    def train_function(self, streams):
        """A function of an iterator over ticks that makes steps: the logs."""
        if self.model.run_eagerly or self.replicas > 1:

            def several(count):
                for _ in range(count):
                    self._step_on_host(streams)
                return self.logs()

        else:
            function = functools.partial(self._steps_in_graph, streams.shared)
            # A controller's training adds to what is compiled.
            key = "steps", streams.shared, self.model.learning.tape
            function = self._once(key, function)

            def several(count):
                return function(tf.constant(count), streams.iterators)

        def train(ticks):
            count = _take_ticks(ticks, self.model.steps_per_execution)
            try:
                return several(count)
            except (tf.errors.OutOfRangeError, StopIteration):
                taken = self.state.taken.numpy()
                action = int(self._place(self.look()))
                raise streams.ended(action, taken) from None

        return train

    def test_function(self):
        """A function of an iterator over {name: batch}: the logs."""

        def losses(batches):
            weights = tf.stack([_rows(batches[s.name]) for s in self.steps])
            values = [s.value(batches[s.name], False) for s in self.steps]
            # A replica that has no row of a small last batch has no loss.
            sums = tf.math.multiply_no_nan(tf.stack(values), weights)
            return sums, weights

        def add(batches):
            sums, weights = (
                self.strategy.reduce("SUM", each, axis=None)
                for each in self.strategy.run(losses, (self._split(batches),))
            )
            self.state.show(tf.math.divide_no_nan(sums, weights), weights)

        if not self.model.run_eagerly:
            add = self._once("test", add, reduce_retracing=True)

        def test(iterator):
            for number in range(self.model.steps_per_execution):
                try:
                    add(next(iterator))
                except (tf.errors.OutOfRangeError, StopIteration):
                    if not self.state.loss_counts.numpy().any():
                        raise ValueError(
                            "The data set of `evaluate` is empty."
                        ) from None
                    if not number:
                        raise StopIteration from None
                    break
            return self.logs(training=False)

        return test

    def logs(self, training=True):
        """{name: tensor}: mean losses and, of training, shares of steps."""
        losses, shares = map(tf.unstack, self.state.shown())
        logs = {step.name: loss for step, loss in zip(self.steps, losses)}
        if training:
            shares = zip(self.steps, shares)
            logs |= {f"share/{step.name}": share for step, share in shares}
        return logs


def _if(now, measure):
    """What `measure` returns, or nothing; `now` is a boolean or tensor."""
    if isinstance(now, bool):
        return measure() if now else Measurement.none()
    return tf.cond(now, measure, Measurement.none)


def _part(rows, number, count):
    """The part of a tensor's rows that one of `count` replicas takes."""
    rows = _as_tensor(rows)
    if rows.shape.rank == 0:
        return rows
    shape = _shape(rows)
    total = shape[0]
    first, last = number * total // count, (number + 1) * total // count
    if isinstance(rows, tf.SparseTensor):
        begin = tf.concat([[first], tf.zeros_like(shape[1:])], 0)
        size = tf.concat([[last - first], shape[1:]], 0)
        return tf.sparse.slice(rows, begin, size)
    return rows[first:last]


def _as_tensor(rows):
    is_special = isinstance(rows, (tf.SparseTensor, tf.RaggedTensor))
    return rows if is_special else tf.convert_to_tensor(rows)


def _shape(rows):
    """The shape of a dense, sparse or ragged tensor, as it is now."""
    if isinstance(rows, tf.SparseTensor):
        return rows.dense_shape
    return tf.shape(rows)


def _take_ticks(ticks, most):
    """Takes up to `most` ticks and counts them; StopIteration if none."""
    for count in range(most):
        try:
            next(ticks)
        except (tf.errors.OutOfRangeError, StopIteration):
            if not count:
                raise StopIteration from None
            return count
    return most


def _rows(batch):
    """How many rows a batch has, a float: its weight in a mean.

    Those of its first part, in the order of `tf.nest`, that has any.
    """
    for part in tf.nest.flatten(batch):
        if part is not None and (part := _as_tensor(part)).shape.rank:
            return tf.cast(_shape(part)[0], tf.float32)
    return tf.ones(())
