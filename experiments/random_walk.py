"""The command `python -m experiments.random_walk`."""

from experiments.latent_oddity.random_walk import PRESETS, run
from experiments.runtime.cli import main

if __name__ == "__main__":
    raise SystemExit(main(run, PRESETS))
