"""The command `python -m experiments.geodesics`."""

from experiments.latent_oddity.geodesics import PRESETS, run
from experiments.runtime.cli import main

if __name__ == "__main__":
    raise SystemExit(main(run, PRESETS))
