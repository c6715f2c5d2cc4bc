"""The learned optimizers by name.

A subclass of `LearnedOptimizer` enters when it is defined; those of the package
are there once `lopt_tf` is imported.
"""

# {name of the update rule: the Keras optimizer around it}
OPTIMIZERS = {}


def add(optimizer_class):
    """Makes a Keras optimizer known by the name of its rule.

    Raises:
        ValueError: if the rule has no name, or another optimizer's.
    """
    name = optimizer_class.rule_class.name
    known = OPTIMIZERS.get(name, optimizer_class)
    if name is None or known.__qualname__ != optimizer_class.__qualname__:
        raise ValueError(
            f"{optimizer_class.__qualname__} needs a rule with a `name` of "
            f"its own. Received: name={name!r}. Taken: {', '.join(OPTIMIZERS)}."
        )
    OPTIMIZERS[name] = optimizer_class


def rule(name, **config):
    """Makes the update rule of that name from its arguments.

    Raises:
        ValueError: if there is none of that name.
    """
    return optimizer_class(name).rule_class(**config)


def optimizer_class(rule_name):
    """The Keras optimizer around the update rule of that name.

    Raises:
        ValueError: if there is none of that name.
    """
    if rule_name not in OPTIMIZERS:
        raise ValueError(
            f"There is no learned optimizer named {rule_name!r}. Known: "
            f"{', '.join(OPTIMIZERS)}."
        )
    return OPTIMIZERS[rule_name]
