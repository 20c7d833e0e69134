"""The command `python -m experiments.supervised_flows`."""

from experiments.runtime.cli import main
from experiments.supervised_flows.train import PRESETS, run

if __name__ == "__main__":
    raise SystemExit(main(run, PRESETS))
