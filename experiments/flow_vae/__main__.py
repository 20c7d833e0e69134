"""The command `python -m experiments.flow_vae`."""

from experiments.flow_vae.train import PRESETS, run
from experiments.runtime.cli import main

if __name__ == "__main__":
    raise SystemExit(main(run, PRESETS))
