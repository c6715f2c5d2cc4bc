"""What the benchmark measures: each suite yields rows."""
