"""The command `python -m experiments.export`."""

from experiments.export.export import Config, run
from experiments.runtime.cli import main

if __name__ == "__main__":
    raise SystemExit(main(run, Config))
