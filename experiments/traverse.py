"""The command `python -m experiments.traverse`."""

from experiments.potential_flows.traverse import Drawing, run
from experiments.runtime.cli import main

if __name__ == "__main__":
    raise SystemExit(main(run, Drawing))
