"""Parts of the library that need packages which composing functions does not."""

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["MissingExtra", "extra"]

_PACKAGES = {
    "PIL": "pillow",
    "orbax": "orbax-checkpoint",
    "sklearn": "scikit-learn",
    "tensorflow_datasets": "tensorflow-datasets",
}


class MissingExtra(ImportError):
    """A package is not installed that an extra of this library brings."""


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Names the extra to install where an import in this block fails.

    Args:
        name: of the extra, as in `pip install 'latent-flows[NAME]'`.

    Raises:
        MissingExtra: a package that is imported in the block is not installed.

    >>> with extra("plots"):
    ...     import no_such_package
    Traceback (most recent call last):
    ...
    latent_flows._extras.MissingExtra: this needs no_such_package: pip install 'latent-flows[plots]'
    """
    try:
        yield
    except ModuleNotFoundError as error:
        module = (error.name or "a package").partition(".")[0]
        package = _PACKAGES.get(module, module)
        raise MissingExtra(
            f"this needs {package}: pip install 'latent-flows[{name}]'", name=module
        ) from None
