"""The command `python -m experiments.potential_flows`."""

from experiments.potential_flows.config import PRESETS
from experiments.potential_flows.train import run
from experiments.runtime.cli import main

if __name__ == "__main__":
    raise SystemExit(main(run, PRESETS))
