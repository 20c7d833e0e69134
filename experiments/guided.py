"""The command `python -m experiments.guided`."""

from experiments.runtime.cli import main
from experiments.supervised_flows.train import PRESETS, run

if __name__ == "__main__":
    raise SystemExit(main(run, PRESETS, command="experiments.guided"))
