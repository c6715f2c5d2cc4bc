"""What a network says of its tensors: whose they are, and what they are for."""

import typing

# What Keras calls the layers within a layer of attention.
_ASKED = {"query", "key"}
_OF_ATTENTION = {*_ASKED, "value", "attention_output"}
_TABLE = "embeddings"
ROLES = ("", "embedding", "attention")


class Layers(typing.NamedTuple):
    """What is known of a network's tensors beyond their shapes.

    Attributes:
        numbers: for each tensor an integer, the same for those of one layer.
        roles: for each tensor "embedding" (a table of vectors), "attention"
            (one of those that make queries, keys and values, or the output,
            of attention) or "" (anything else).
    """

    numbers: tuple
    roles: tuple


def of_paths(paths):
    """`Layers` of the variables with these paths, as Keras names them.

    Args:
        paths: list of strings, such as "net/block/query/kernel".
    """
    parts = [path.partition(":")[0].split("/") for path in paths]
    parents = ["/".join(p[:-1]) for p in parts]
    numbers = {parent: i for i, parent in enumerate(dict.fromkeys(parents))}
    children = {}
    for p in parts:
        children.setdefault("/".join(p[:-2]), set()).update(p[-2:-1])
    roles = [_role(p, children["/".join(p[:-2])]) for p in parts]
    return Layers(tuple(numbers[p] for p in parents), tuple(roles))


def _role(parts, beside):
    """The role of a variable, given the names of the layers beside its own."""
    *_, layer, name = ["", *parts]
    if name == _TABLE:
        return "embedding"
    is_attention = layer in _OF_ATTENTION and beside >= _ASKED
    return "attention" if is_attention else ""
