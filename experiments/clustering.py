"""The command `python -m experiments.clustering`."""

from experiments.latent_oddity.clustering import PRESETS, run
from experiments.runtime.cli import main

if __name__ == "__main__":
    raise SystemExit(main(run, PRESETS))
