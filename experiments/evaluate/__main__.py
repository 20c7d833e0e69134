"""The command `python -m experiments.evaluate`."""

from experiments.evaluate.evaluate import Config, run
from experiments.runtime.cli import main

if __name__ == "__main__":
    raise SystemExit(main(run, Config))
