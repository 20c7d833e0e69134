"""The command `python -m experiments.directions`."""

from experiments.directions.train import PRESETS, run
from experiments.runtime.cli import main

if __name__ == "__main__":
    raise SystemExit(main(run, PRESETS))
