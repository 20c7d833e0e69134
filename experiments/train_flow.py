"""The command `python -m experiments.train_flow`."""

from experiments.generators.train_flow import PRESETS, run
from experiments.runtime.cli import main

if __name__ == "__main__":
    raise SystemExit(main(run, PRESETS))
