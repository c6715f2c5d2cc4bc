"""Meta-gradients that truncation biases, and those that it does not."""

import influence_balancing
import numpy as np
import pytest

from lopt_tf import metatraining


class TestInfluenceBalancing:
    """Truncation is known to bias here; see influence_balancing.py."""

    STEPS = 200
    THETAS = np.linspace(-1, 1, 2001)

    def train(self, estimator, meta_updates, **kwargs):
        """Theta after meta-training from 0."""
        options = metatraining.TrainingOptions(
            meta_updates=meta_updates,
            estimator=estimator,
            instances=32,
            segment_length=5,
            parallel_tasks=1,
            meta_learning_rate=1e-2,
            meta_learning_rate_decay=0.05,
            perturbation=0.05,
            use_log_objective=False,
            curriculum=metatraining.Curriculum(
                min_partials=1,
                mean_partials=0,
                min_length=self.STEPS,
                mean_length=0,
            ),
            **kwargs,
        )
        problems = {"balance": influence_balancing.Balance()}
        rule = influence_balancing.BalanceRule()
        return metatraining.train(problems, rule, options)["theta"].item()

    @property
    def optimum(self):
        losses = [
            influence_balancing.loss(theta, self.STEPS) for theta in self.THETAS
        ]
        return self.THETAS[np.argmin(losses)]

    @pytest.mark.slow
    def test_persistent_evolution_finds_the_optimum(self):
        assert abs(self.train("pes", 1500) - self.optimum) < 0.01

    @pytest.mark.parametrize("estimator", ["es", "bptt"])
    def test_truncation_goes_astray(self, estimator):
        # The optimum is below 0.
        assert self.train(estimator, 200, truncation=5) > 0.5

    @pytest.mark.parametrize(
        "estimator, options",
        [
            ("es", {"truncation": 200}),
            pytest.param("full", {}, marks=pytest.mark.slow),
        ],
    )
    def test_whole_runs_find_the_optimum(self, estimator, options):
        assert abs(self.train(estimator, 80, **options) - self.optimum) < 0.01
