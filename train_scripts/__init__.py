"""Programs: `python -m train_scripts.<name> --help`."""
