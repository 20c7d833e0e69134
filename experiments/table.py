"""The command `python -m experiments.table`."""

from experiments.results.table import PRESETS, run
from experiments.runtime.cli import main

if __name__ == "__main__":
    raise SystemExit(main(run, PRESETS))
