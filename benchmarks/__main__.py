"""The command `python -m benchmarks`."""

import tyro

from benchmarks import suite
from benchmarks.suite import Settings, main

if __name__ == "__main__":
    raise SystemExit(main(tyro.cli(Settings, description=suite.__doc__)))
