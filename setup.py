"""Packaging of lopt-tf. The version ranges are those that were tested."""

import pathlib
import re

import setuptools

_HERE = pathlib.Path(__file__).parent
_INIT = (_HERE / "lopt_tf" / "__init__.py").read_text()

_PLOTS = ["matplotlib>=3.8,<4"]
_JAX = ["jax>=0.4.30,<0.11"]
_TRANSLATION = [
    "tokenizers>=0.20,<0.24",
    "sacrebleu>=2.4,<3",
    "seqeval>=1.2,<2",
]

setuptools.setup(
    name="lopt-tf",
    version=re.search(r'__version__ = "(.*)"', _INIT).group(1),
    description="Learned optimizers and learned schedules for Keras",
    long_description=(_HERE / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11,<3.13",
    packages=setuptools.find_packages(
        include=[
            "lopt_tf",
            "lopt_tf.*",
            "problems",
            "problems.*",
            "train_scripts",
            "train_scripts.*",
        ]
    ),
    package_data={"lopt_tf.optimizers.pretrained": ["*.npz", "*.md"]},
    install_requires=[
        "tensorflow>=2.21,<2.22",
        "keras>=3.15,<3.16",
        "tf-keras>=2.21,<2.22",
        "tensorflow-probability>=0.25,<0.26",
        "tensorflow-datasets>=4.9.9,<4.10",
        "importlib_resources>=6",
        "absl-py>=2.1,<3",
        "numpy>=1.26,<3",
        "scikit-learn>=1.5,<2",
        "scipy>=1.15,<2",
        "tensorboard>=2.20,<2.22",
    ],
    extras_require={
        "plots": _PLOTS,
        "jax": _JAX,
        "translation": _TRANSLATION,
        "dev": [
            *_PLOTS,
            *_JAX,
            *_TRANSLATION,
            "pytest>=8",
            "pytest-xdist>=3.5,<4",
            "hypothesis>=6",
            "ruff>=0.9",
        ],
    },
)
