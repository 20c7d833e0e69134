"""The command `python -m experiments.land`."""

from experiments.latent_oddity.land import PRESETS, run
from experiments.runtime.cli import main

if __name__ == "__main__":
    raise SystemExit(main(run, PRESETS))
