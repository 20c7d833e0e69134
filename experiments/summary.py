"""The command `python -m experiments.summary`."""

from experiments.results.summary import Config, run
from experiments.runtime.cli import main

if __name__ == "__main__":
    raise SystemExit(main(run, Config))
