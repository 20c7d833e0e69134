"""What can go wrong in a run, each in one line: the wish, the machine, or the experiment itself."""

import errno
import linecache
import re
import traceback

_DISK = {
    errno.ENOSPC: "no space left on the device",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file is larger than the system allows",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "no permission to write or read",
    errno.EPERM: "no permission to write or read",
}
# What the C++ libraries below orbax say when they wrap one of the errors above.
_DISK_TEXTS = {
    "No space left on device": errno.ENOSPC,
    "Disk quota exceeded": errno.EDQUOT,
    "File too large": errno.EFBIG,
    "Read-only file system": errno.EROFS,
    "Permission denied": errno.EACCES,
}
_SHORT = "RESOURCE_EXHAUSTED|bad_alloc|[Oo]ut of memory|array is too big|Unable to allocate"
"""What XLA and NumPy say when there is too little memory."""
GOES_ON = "goes on from the last checkpoint"


class UsageError(Exception):
    """What was asked for cannot be done: one line on stderr and exit code 2."""

    exit_code = 2


class Failure(Exception):
    """What was asked for was tried and failed: one line on stderr and exit code 1."""

    exit_code = 1


def is_refusal(error: BaseException, module: str) -> bool:
    """Whether it is the word of the library or the experiments on a value that they do not take.

    They say it by `raise ValueError`. Any other that comes out of them is a mistake in the code:
    of a function of Python's own, or of a library below.

    Args:
        error: what was raised.
        module: of the experiment.
    """
    frames = [*traceback.walk_tb(error.__traceback__)]
    if not isinstance(error, ValueError) or not frames:
        return False
    frame, line = frames[-1]
    package = frame.f_globals.get("__name__", "").partition(".")[0]
    ours = ("latent_flows", "experiments", "__main__", module.partition(".")[0])
    source = linecache.getline(frame.f_code.co_filename, line, frame.f_globals)
    return package in ours and source.lstrip().startswith("raise ")


def machine_trouble(error: BaseException) -> str | None:
    """What the machine lacks, when that is what the error is about, else None."""
    return disk_trouble(error) or memory_trouble(error) or file_trouble(error)


def disk_trouble(error: BaseException) -> str | None:
    """What is wrong with the disk when that is what the error is about, else None."""
    for cause in _causes(error):
        if isinstance(cause, OSError) and cause.errno in _DISK:
            where = f": {cause.filename}" if cause.filename else ""
            return _DISK[cause.errno] + where
        for text, code in _DISK_TEXTS.items():
            if text in str(cause):
                path = re.search(r'"(/[^"]*|[A-Za-z]:[^"]*)"', str(cause))
                return _DISK[code] + (f": {path[1]}" if path else "")
    return None


def memory_trouble(error: BaseException) -> str | None:
    """How much memory was asked for and what to do, when an error says that it ran out, else None.

    >>> memory_trouble(MemoryError("Unable to allocate 1.5 TiB for an array with shape (3,)"))
    'out of memory: 1.5 TiB asked for; lower what is large: ...'
    >>> memory_trouble(RuntimeError("Out of memory allocating 4294967296 bytes."))
    'out of memory: 4 GiB asked for; lower what is large: ...'
    >>> memory_trouble(RuntimeError("no memory of that"))
    """
    for cause in _causes(error):
        if isinstance(cause, MemoryError) or re.search(_SHORT, str(cause)):
            return (
                f"out of memory{_asked(str(cause))}; lower what is large: batches, --image-size, "
                "latents, or what is measured and drawn at once"
            )
    return None


def file_trouble(error: BaseException) -> str | None:
    """Which file cannot be used and why, when that is what the error is about, else None."""
    if not isinstance(error, OSError) or not error.filename:
        return None
    names = [str(name) for name in (error.filename, error.filename2) if name]
    return f"{' -> '.join(names)} cannot be used: {error.strerror}"


def is_of_the_disk(line: str) -> bool:
    """Whether the last line of a run says that it stopped for want of disk: it did not fail.

    >>> is_of_the_disk("error: no space left on the device: runs/a"), is_of_the_disk("error: NaN")
    (True, False)
    """
    return any(text in line for text in (*_DISK.values(), GOES_ON))


def _causes(error: BaseException | None) -> list[BaseException]:
    found: list[BaseException] = []
    while error is not None:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found


def _asked(text: str) -> str:
    """The number of bytes in the words of XLA or NumPy."""
    if found := re.search(r"allocat\w+ ([\d.]+) ?([KMGTPEZY]i?B)", text):
        return f": {float(found[1]):g} {found[2]} asked for"
    if found := re.search(r"allocat\w+ (\d+)(?: bytes)?", text):
        from latent_flows import _memory

        return f": {_memory.text(int(found[1]))} asked for"
    return ""
