"""Compare optimizers: curves, tuned baselines, tables, plots."""
