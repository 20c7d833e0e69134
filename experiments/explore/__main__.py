"""Explore a latent space in the browser: a map, the image, a slider for all that was learnt.

RUN is the folder of any finished run; or give a --generator alone. The page is served on the
loopback address and needs no network. docs/explorer.md shows what is on it.
"""

from dataclasses import replace
from pathlib import Path

from experiments.explore.config import Config
from experiments.runtime.announcements import announced
from experiments.runtime.cli import UsageError, main
from latent_flows._extras import extra
from latent_flows.generators import load_generator


def run(config: Config) -> int | None:
    """Load, make ready, serve."""
    with extra("explore"):
        import panel  # noqa: F401
    if not (config.run or config.generator or config.source.path):
        raise UsageError(
            "nothing is named to explore: give a run folder, or --generator and a run folder, "
            "package.module:function or file.py:function"
        )
    from experiments.explore.explored import load_explored
    from experiments.explore.server import claimed, serve

    port = claimed(config.host, config.port)
    path = config.run or config.generator or config.source.path
    spec = replace(config.source, path=path)
    with announced(f"loading the generator of {path}"):
        generator = load_generator(spec, seed=config.seed)
    run = config.run or (path if (Path(path).expanduser() / "config.json").is_file() else "")
    name = Path(path).expanduser().absolute().name.rpartition(":")[2]
    explored = load_explored(name, run, generator, spec, codes=config.codes, seed=config.seed)
    with announced("compiling what the page needs first"):
        explored.warm()
    serve(config, explored, port)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(run, Config))
