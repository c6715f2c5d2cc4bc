"""Golden files' names of meta-parameters and states in this package's terms."""

import json

import numpy as np

from lopt_tf.optimizers import registry

_MATRICES = {
    "Layer0_RNN/BiasGRUCell/gates": "parameter_rnn/gates",
    "Layer0_RNN/BiasGRUCell/candidate": "parameter_rnn/candidate",
    "Layer1_RNN/BiasGRUCell/gates": "tensor_rnn/gates",
    "Layer1_RNN/BiasGRUCell/candidate": "tensor_rnn/candidate",
    "Layer2_RNN/BiasGRUCell/gates": "global_rnn/gates",
    "Layer2_RNN/BiasGRUCell/candidate": "global_rnn/candidate",
    "Layer0_RNN/Param": "tensor_to_parameter",
    "Layer0_RNN/Global": "global_to_parameter",
    "Layer1_RNN": "global_to_tensor",
}
_OTHERS = {
    "Level0_RNN/init_vector": "parameter_rnn/initial_state",
    "Level1_RNN/init_vector": "tensor_rnn/initial_state",
    "Level2_RNN/init_vector": "global_rnn/initial_state",
    "GradsToDelta/Matrix": "gradient_shortcut",
    "GradsToAttnDelta/Matrix": "attention_shortcut",
    "learning_rate_momentum_logit": "learning_rate_momentum",
    "param_stepsize_offset": "step_offset",
    "attention_weights": "attention",
    "update_weights": "update",
    "inp_decay_weights": "input_decay",
    "inp_decay_bias": "input_decay_bias",
    "scl_decay_weights": "scale_decay",
    "scl_decay_bias": "scale_decay_bias",
    "learning_rate_weights": "learning_rate",
    "learning_rate_bias": "learning_rate_bias",
}
# One row a parameter state in the files -> (our state, row).
_ELEMENT_STATES = {
    "parameter": "parameter_hidden",
    "inp_decay": "input_decay",
    "scl_decay": "scale_decay",
    "grad_accum": "gradient_averages",
    "ms": "mean_squares",
    "log_learning_rate": "log_learning_rate",
}


def name_of(release_name):
    """The package's name for a meta-parameter of the release."""
    name = release_name.removeprefix("LOL/").removeprefix("PerTensor/")
    if name in _OTHERS:
        return _OTHERS[name]
    cell, kind = name.rsplit("/Affine/", 1)
    return _MATRICES[cell] + {"Matrix": "", "Bias": "_bias"}[kind]


def arrays(file, prefix):
    """{package name: array [out, in]} of the meta-parameters under prefix."""
    found = {}
    for key in file.files:
        if key.startswith(prefix):
            array = np.asarray(file[key])
            array = array.reshape(-1, 1) if array.ndim < 2 else array.T
            found[name_of(key[len(prefix) :])] = array
    return found


def state(file, prefix, num_tensors, step=None):
    """The package's flat state from `<prefix>state/*`; absent states are out.

    Args:
        file: an open golden file.
        prefix: for instance "init/", "traj/" or "start/".
        num_tensors: the number of tensors.
        step: the index of the first axis, for trajectories.
    """

    def read(key):
        return file[key] if step is None else file[key][step]

    keys = sorted(
        k.removeprefix(f"{prefix}state/0/")
        for k in file.files
        if k.startswith(f"{prefix}state/0/")
    )
    found = {}
    for key in keys:
        kind = key.rstrip("0123456789")
        rows = [read(f"{prefix}state/{i}/{key}") for i in range(num_tensors)]
        if kind == "layer":
            found["tensor_hidden"] = np.concatenate(rows).T
        elif kind == "true_param":
            flat = [row.reshape(1, -1) for row in rows]
            found["true_parameters"] = np.concatenate(flat, axis=1)
        else:
            ours = _ELEMENT_STATES[kind]
            found.setdefault(ours, []).append(np.concatenate(rows).T)
    for name, parts in found.items():
        if isinstance(parts, list):
            found[name] = np.concatenate(parts)
    if f"{prefix}global_state/0" in file.files:
        found["global_hidden"] = read(f"{prefix}global_state/0").T
    return found


# The release's other optimizers.

# A meta-parameter that only this optimizer has -> (rule, {the release's
# argument: ours}).
_KINDS = {
    "update_weights": (
        "coordinatewise_rnn",
        {
            "cell_sizes": "cell_sizes",
            "init_lr_range": "init_lr_range",
            "dynamic_output_scale": "dynamic_output_scale",
            "learnable_decay": "learnable_decay",
            "zero_init_lr_weights": "zero_init_lr_weights",
        },
    ),
    "beta2_logit": (
        "learned_adam",
        {
            "learning_rate": "initial_learning_rate",
            "beta1": "beta_1",
            "beta2": "beta_2",
            "epsilon": "epsilon",
        },
    ),
    "global_learning_rate": (
        "global_learning_rate",
        {"initial_rate": "initial_learning_rate"},
    ),
    "learning_rates": (
        "learning_rate_schedule",
        {"initial_rate": "initial_learning_rate", "n_steps": "num_steps"},
    ),
}
_OTHER_WEIGHTS = {
    "init_vector": "initial_state",
    "update_weights": "update",
    "decay_weights": "decay",
    "decay_bias": "decay_bias",
    "learning_rate_weights": "learning_rate",
    "learning_rate_bias": "learning_rate_bias",
    "log_learning_rate": "log_learning_rate",
    "beta1_logit": "beta_1_logit",
    "beta2_logit": "beta_2_logit",
    "log_epsilon": "log_epsilon",
    "global_learning_rate": "learning_rate",
    "learning_rates": "learning_rates",
}
_OTHER_STATES = {
    "rnn": "hidden",
    "rms": "mean_square",
    "decay": "decay",
    "learning_rate": "log_learning_rate",
    "m": "momentum",
    "v": "velocity",
    "t": "step",
    "itr": "step",
}


def other_rule(file):
    """The update rule of a golden file of one of the other optimizers."""
    names = json.loads(str(file["meta_names_json"]))
    last_parts = {name.rsplit("/", 1)[-1] for name in names}
    (kind,) = last_parts & set(_KINDS)
    name, arguments = _KINDS[kind]
    config = json.loads(str(file["config_json"]))
    used = {arguments[k]: v for k, v in config.items() if k in arguments}
    if "cell_cls" in config:
        used["cell"] = config["cell_cls"].removesuffix("Cell").lower()
    return registry.rule(name, **used)


def other_weights(file):
    """{package name: array [out, in]}."""
    found = {}
    for key in file.files:
        if not key.startswith("meta/"):
            continue
        *cell, name = key.removeprefix("meta/LOL/").split("/")
        array = np.asarray(file[key])
        # Vectors are columns; matrices and initial rows are transposed.
        array = array.reshape(-1, 1) if array.ndim < 2 else array.T
        if cell:
            kind = {"kernel": "gates", "bias": "gates_bias"}[name]
            found[f"{cell[1]}/{kind}"] = array
        else:
            found[_OTHER_WEIGHTS[name]] = array
    return found


def other_state(file, prefix, num_tensors, step=None):
    """The package's flat state; see `state`."""
    found = {}
    start = f"{prefix}state/0/"
    for key in (k for k in file.files if k.startswith(start)):
        name = key.removeprefix(start)
        rows = [file[f"{prefix}state/{i}/{name}"] for i in range(num_tensors)]
        if step is not None:
            rows = [row[step] for row in rows]
        if name in ("t", "itr"):
            (count,) = {float(n) for row in rows for n in np.ravel(row)}
            found["step"] = np.full((1, 1), count, "float32")
            continue
        array = np.concatenate(rows).T
        array = np.log(array) if name == "learning_rate" else array
        found[_OTHER_STATES[name]] = array
    return found
