"""Image classifiers to train: data sets, their batches, networks."""
