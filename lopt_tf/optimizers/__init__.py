"""Update rules and their Keras optimizers."""
