"""The same optimizer on the TensorFlow, JAX and PyTorch backends."""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import backend_run
import numpy as np
import pytest
import slow_cases

import lopt_tf


@pytest.mark.parametrize(
    "backend", slow_cases.marked(["jax", "torch"], "torch")
)
def test_losses_agree(backend, tmp_path):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    path = tmp_path / "weights.npz"
    optimizer = lopt_tf.HierarchicalRNN(init_lr_range=(1e-3, 1e-2), seed=1)
    optimizer.save_pretrained(path)
    # Weights of our own, and those that ship.
    expected = [backend_run.losses(path), backend_run.losses(None)]
    for losses in expected:
        assert len(losses) == backend_run.STEPS
        assert abs(losses[-1] - losses[0]) > 1e-3
    here = pathlib.Path(__file__)
    result = subprocess.run(
        [sys.executable, here.with_name("backend_run.py"), str(path)],
        env={
            **os.environ,
            "KERAS_BACKEND": backend,
            "PYTHONPATH": str(here.parent.parent),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    printed = json.loads(result.stdout.strip().splitlines()[-1])
    *losses, kinds, message = printed
    # Not of what comes after it.
    assert "of the user's own schedule" in message
    np.testing.assert_allclose(losses, expected, rtol=0, atol=1e-4)
    np.testing.assert_allclose(
        kinds, backend_run.losses_of_all_kinds(), rtol=1e-3
    )
