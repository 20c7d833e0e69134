"""The command `python -m experiments.import_weights`."""

from experiments.generators.import_weights import PRESETS, run
from experiments.runtime.cli import main

if __name__ == "__main__":
    raise SystemExit(main(run, PRESETS))
