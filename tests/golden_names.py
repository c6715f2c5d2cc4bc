"""Golden files' names of meta-parameters and states in this package's terms."""

import numpy as np

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
