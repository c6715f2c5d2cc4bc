"""Batches of images, whose order and looks are functions of (seed, step)."""

import tensorflow as tf

from lopt_tf.images import views

# Views have seeds of their own beside those of the order.
_VIEWS = 1


class Batches:
    """Batches of a source, shared out to the replicas of a strategy.

    The batch of a step is the same for any number of replicas and processes;
    each decodes only its own rows. An epoch leaves out what does not fill a
    batch. Inputs are float32 [B, size, size, 3] in -1..1, labels one-hot
    float32 [B, classes].

    Args:
        source: the `sources.Source`.
        batch_size: B, of all replicas together.
        image_size: pixels of a side.
        seed: integer; of the order and the views. Defaults to `0`.
        augmentation: see `views.random_view`. Defaults to `None`: the
            source's.
    """

    def __init__(
        self, source, batch_size, image_size, seed=0, augmentation=None
    ):
        self._source = source
        self._batch_size = batch_size
        self._image_size = image_size
        self._seed = seed
        self._augmentation = augmentation or source.augmentation

    @property
    def size(self):
        """How many images there are."""
        return self._source.size

    def test_steps(self, steps_per_execution=1):
        """How many batches a test takes: all images, perhaps some twice.

        Args:
            steps_per_execution: of which it is a multiple: Keras runs no
                fewer at a time. Defaults to `1`.
        """
        at_once = self._batch_size * steps_per_execution
        return -(-self._source.size // at_once) * steps_per_execution

    def training(self, first_step, strategy=None):
        """Endless batches (images, labels), from that step on.

        Args:
            first_step: the number of the first batch.
            strategy: a `tf.distribute.Strategy`. Defaults to `None`: no
                replicas.

        Raises:
            ValueError: if there are fewer images than a batch has.
        """
        size = self._batch_size
        if size > self.size:
            raise ValueError(
                f"A batch of {size} is more than the {self.size} images that "
                "there are: choose a smaller one."
            )
        return self._shared(*self._training_places(first_step), strategy)

    def _training_places(self, first_step):
        """((place, record)s in the order of training, what is made of one)."""
        size = self._batch_size
        first = first_step * size
        records = self._source.shuffled(
            self._seed, first, self.size // size * size
        )
        places = tf.data.Dataset.counter(first)
        return tf.data.Dataset.zip(places, records), self._train_example

    def test(self, strategy=None, steps_per_execution=1):
        """All images again and again: (images, labels, weights).

        Each time takes `test_steps(steps_per_execution)` batches; weights are
        0 where an image comes twice in them, because it fills the last ones.
        """
        steps = self.test_steps(steps_per_execution)
        records = self._source.in_order().repeat()
        records = records.take(steps * self._batch_size)
        places = records.enumerate().repeat()
        return self._shared(places, self._test_example, strategy)

    def undecoded(self, first_step, steps):
        """The name of an image to train on that cannot be decoded, or "".

        Args:
            first_step, steps: those of its batch, where it was met.
        """
        places, example = self._training_places(first_step)
        return self._undecoded(places.take(steps * self._batch_size), example)

    def undecoded_in_tests(self):
        """The name of an image to test on that cannot be decoded, or ""."""
        places = self._source.in_order().enumerate()
        return self._undecoded(places, self._test_example)

    def _undecoded(self, places, example):
        # A graph, as `map` makes one of it.
        made = tf.function(example)
        for place, record in places:
            try:
                made(place, record)
            except (tf.errors.InvalidArgumentError, tf.errors.NotFoundError):
                return self._source.name_of(record)
        return ""

    def _shared(self, places, example, strategy):
        """The batches of each replica of these (place, record)s."""

        def own(context):
            return self._own(places, example, context)

        if strategy is None:
            return own(tf.distribute.InputContext())
        return strategy.distribute_datasets_from_function(own)

    def _own(self, places, example, context):
        """The batches of one process' replicas, one after the other."""
        size = self._batch_size
        here = size // context.num_input_pipelines
        if here < size:
            mine = context.input_pipeline_id
            places = places.filter(lambda n, _: n % size // here == mine)
        examples = places.map(
            example, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
        )
        rows = size // context.num_replicas_in_sync
        batches = examples.batch(rows, drop_remainder=True)
        return batches.prefetch(tf.data.AUTOTUNE)

    def _train_example(self, place, record):
        image, label = self._source.load(record)
        seed = tf.random.experimental.stateless_fold_in(
            tf.constant([self._seed, _VIEWS], "int64"), place
        )
        image = views.random_view(
            image, self._image_size, seed, self._augmentation
        )
        return image, self._one_hot(label)

    def _test_example(self, place, record):
        image, label = self._source.load(record)
        image = views.test_view(image, self._image_size, self._augmentation)
        weight = tf.cast(place < self._source.size, "float32")
        return image, self._one_hot(label), weight

    def _one_hot(self, label):
        return tf.one_hot(label, self._source.num_classes)
