"""The replicas of a strategy that share the instances of a problem."""

import tensorflow as tf

from lopt_tf import compilation


class Replicas:
    """The devices that share the instances of a problem.

    Arrays have one row for each instance, or one for each copy of each
    instance (all instances' first copies, then the second ones ...). Every
    replica holds the rows of its own instances, as a per-replica value of
    `tf.distribute`; with one replica everything is a plain tensor.

    Args:
        strategy: a `tf.distribute.Strategy`; the current one if None.
        count: how many replicas; the strategy's number if None. 1 works
            within the scope of any strategy.
    """

    def __init__(self, strategy=None, count=None):
        self.strategy = strategy or tf.distribute.get_strategy()
        self.count = count or self.strategy.num_replicas_in_sync
        self.index = tf.constant(0)
        # A TPU runs nothing outside of graphs.
        self._run = self.strategy.run
        if isinstance(self.strategy, tf.distribute.TPUStrategy):
            self._run = tf.function(self.strategy.run, autograph=False)
        if self.count > 1:
            make = self.strategy.experimental_distribute_values_from_function
            self.index = make(
                lambda context: tf.constant(context.replica_id_in_sync_group)
            )

    @property
    def num_workers(self):
        """Processes that run the same program in step."""
        if not isinstance(
            self.strategy, tf.distribute.MultiWorkerMirroredStrategy
        ):
            return 1
        spec = self.strategy.cluster_resolver.cluster_spec().as_dict()
        return sum(len(spec.get(kind, ())) for kind in ("chief", "worker")) or 1

    @property
    def is_chief(self):
        """Whether this process writes files and reports."""
        if self.num_workers == 1:
            return True
        resolver = self.strategy.cluster_resolver
        if resolver.task_type == "chief":
            return True
        has_chief = "chief" in resolver.cluster_spec().as_dict()
        return not has_chief and resolver.task_id == 0

    def agree(self, flags):
        """Whether any worker says so, for each of a list of booleans."""
        if self.num_workers == 1:
            return list(flags)
        votes = tf.constant(flags, "float32")
        votes = self.strategy.run(tf.identity, (votes,))
        total = self.strategy.reduce("SUM", votes, axis=None)
        return [bool(vote > 0) for vote in total.numpy()]

    def of_chief(self, number):
        """An integer of 0 to 2^31 - 1: the chief's, on every worker."""
        bits = [bool(self.is_chief and number >> i & 1) for i in range(31)]
        return sum(bit << i for i, bit in enumerate(self.agree(bits)))

    def compiled(self, function):
        """`function` compiled, each replica running it on its own values."""
        inner = compilation.compiled(function)
        if self.count == 1:
            return inner
        return tf.function(
            lambda *args: self.strategy.run(inner, args), autograph=False
        )

    def each(self, function, *args):
        """Calls a function of a few operations on each replica's values."""
        if self.count == 1:
            return function(*args)
        return self._run(function, args)

    def mean(self, values):
        """Means over replicas of nested per-replica values, all float32."""
        if self.count == 1:
            return values
        flat = tf.nest.flatten(values)
        if self.num_workers > 1:
            packed = self.each(_packed, *flat)
            total = self.strategy.reduce("MEAN", packed, axis=None)
            means = _unpacked(total, [self._local(v)[0] for v in flat])
        else:
            means = [tf.add_n(self._local(v)) / self.count for v in flat]
        return tf.nest.pack_sequence_as(values, means)

    def rank(self, value):
        """The number of axes of a per-replica value."""
        return self._local(value)[0].shape.rank

    def num_bytes(self, values):
        """The size of nested per-replica values on one replica."""
        first = [self._local(value)[0] for value in tf.nest.flatten(values)]
        return sum(v.shape.num_elements() * v.dtype.size for v in first)

    def split(self, array, axis=0, copies=1):
        """Gives every replica the rows of its instances.

        Args:
            array: a tensor with copies * K rows along `axis`.
            axis: the axis of the instances.
            copies: how many copies of each instance it has.
        """
        if self.count == 1:
            return array
        rows = array.shape[axis] // (copies * self.count)

        def own_rows(whole, replica):
            parts = [
                tf.gather(part, tf.range(rows) + replica * rows, axis=axis)
                for part in tf.split(whole, copies, axis=axis)
            ]
            return tf.concat(parts, axis=axis)

        return self.each(own_rows, tf.convert_to_tensor(array), self.index)

    def join(self, entries):
        """The inverse of `split` for many values; all workers must call it.

        Args:
            entries: {name: (per-replica value, axis, copies)}.

        Returns:
            {name: array with the rows of all instances}.
        """
        if self.count == 1:
            return {name: value for name, (value, _, _) in entries.items()}
        if not entries:
            return {}
        all_parts = self._all_parts([value for value, _, _ in entries.values()])
        joined = {}
        for name, *parts in zip(entries, *all_parts):
            _, axis, copies = entries[name]
            # First copies of all instances, then the second ones ...
            by_copy = zip(*(tf.split(p, copies, axis=axis) for p in parts))
            in_order = [part for parts in by_copy for part in parts]
            joined[name] = tf.concat(in_order, axis=axis)
        return joined

    def _local(self, value):
        """What this process holds of a per-replica value."""
        return self.strategy.experimental_local_results(value)

    def _all_parts(self, values):
        """Each replica's tensors: a list of lists, from all workers."""
        local = [self._local(value) for value in values]
        if self.num_workers == 1:
            return list(zip(*local))
        packed = self.strategy.gather(self.each(_packed, *values), axis=0)
        like = [parts[0] for parts in local]
        return [_unpacked(r, like) for r in tf.split(packed, self.count)]


def _packed(*values):
    """Several tensors in one vector: one message for all."""
    flat = [tf.reshape(tf.cast(value, "float32"), [-1]) for value in values]
    return tf.concat(flat, axis=0)


def _unpacked(vector, like):
    """The inverse of `_packed`, with shapes and types of given tensors."""
    pieces = tf.split(vector, [t.shape.num_elements() for t in like])
    return [
        tf.cast(tf.reshape(piece, tensor.shape), tensor.dtype)
        for piece, tensor in zip(pieces, like)
    ]
