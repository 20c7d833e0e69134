"""The command `python -m experiments.steer`."""

from experiments.runtime.cli import main
from experiments.steer.train import PRESETS, run

if __name__ == "__main__":
    raise SystemExit(main(run, PRESETS))
