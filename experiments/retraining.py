"""The command `python -m experiments.retraining`."""

from experiments.latent_oddity.retraining import PRESETS, run
from experiments.runtime.cli import main

if __name__ == "__main__":
    raise SystemExit(main(run, PRESETS))
