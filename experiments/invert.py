"""The command `python -m experiments.invert`."""

from experiments.inversion.invert import Config, run
from experiments.runtime.cli import main

if __name__ == "__main__":
    raise SystemExit(main(run, Config))
