"""The defaults of a command line: they follow what is given, and --quick makes them small.

A configuration may say in `QUICK` what a short run is made with: the most of a number, or another
value of anything else; and in a static method `follow` what its defaults become beside flags that
they would not fit.
"""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias, TypeVar, cast, get_args, get_type_hints

FLAG = "--quick"
SUFFIX = "-quick"
"""Of the run folder of a short run."""
ABOUT = (
    "--quick makes small whatever other flags do not name, in a run folder of its own: the first "
    "picture in about a minute on a CPU. The generator of a preset is that of a quick run as well."
)

Config = TypeVar("Config")
Quick: TypeAlias = Mapping[str, Any]
"""Settings of a short run, by their dotted names."""


class Settings:
    """The settings of a run before they are checked, of which those that were given are fixed."""

    def __init__(
        self,
        values: Mapping[str, Any],
        given: Mapping[str, Any],
        usual: Mapping[str, Any] | None = None,
    ) -> None:
        self._values, self._given, self._usual = {**values, **given}, given, usual or values

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def is_given(self, name: str) -> bool:
        """Whether a flag has fixed it."""
        return name in self._given

    def put(self, name: str, value: Any) -> None:
        """Sets what is not fixed."""
        if name not in self._given:
            self._values[name] = value

    def at_most(self, name: str, most: int) -> None:
        """Lowers what is not fixed."""
        self.put(name, min(self[name], most))

    def at_least(self, name: str, least: int) -> None:
        """Raises what is not fixed, but not above what is usual: more may be a slip of the pen."""
        self.put(name, max(self[name], min(least, self._usual[name])))

    def divisor_of(self, name: str, number: int, least: int = 1) -> None:
        """Lowers what is not fixed to a divisor of a number, unless there is none from `least` on.

        >>> settings = Settings({"count": 4}, {})
        >>> settings.divisor_of("count", 63)
        >>> settings["count"]
        3
        """
        candidates = range(self[name], least - 1, -1)
        self.put(name, next((n for n in candidates if number % n == 0), self[name]))

    def multiple_of(self, name: str, number: int, most: int | None = None) -> None:
        """Lowers what is not fixed to a multiple of a number; the least one is the number itself.

        >>> settings = Settings({"batch": 64}, {"count": 10})
        >>> settings.multiple_of("batch", 10)
        >>> settings["batch"]
        60
        """
        if number > 0:
            wanted = self[name] if most is None else min(self[name], most)
            self.put(name, max(wanted // number, 1) * number)

    def changed(self, config: Config) -> Config:
        """A configuration with these settings.

        Raises:
            ValueError: they do not fit each other.
        """
        return cast(Config, _changed(config, self._values))


def fitting(config: Config, arguments: Sequence[str]) -> Config:
    """The configuration of a preset, as far as flags that are not given follow those that are.

    Args:
        config: the preset's.
        arguments: the flags; --quick among them makes what they do not name small.

    Returns:
        Defaults for these flags. They are the preset's own where that cannot be: reading the flags
        will say what is wrong.

    Raises:
        ValueError: the small settings do not fit the flags.
    """
    known = dict(leaves(config))
    words = words_after(arguments)
    given = {
        setting.name: _read(setting, words[setting.flag])
        for setting in settings(config)
        if setting.flag in words
    }
    small = known
    if FLAG in arguments:
        quick: Quick = getattr(config, "QUICK", {})
        small = known | {name: _smaller(known[name], to) for name, to in quick.items()}
        small["run"] = f"{known['run']}{SUFFIX}"
        # What was made by another command is made by its short run.
        small |= {k: v.quick() for k, v in known.items() if hasattr(v, "quick")}
    fitted = Settings(small, given, known)
    for name in known:
        outer, _, last = name.rpartition(".")
        if last == "warmup" and f"{outer}.steps" in known:
            fitted.at_most(name, fitted[f"{outer}.steps"])
    getattr(type(config), "follow", lambda _: None)(fitted)
    try:
        return fitted.changed(config)
    except ValueError:
        if FLAG in arguments:
            raise
        return config


def is_quick(config: Any) -> bool:
    """Whether there are small settings for runs of a configuration, or of its class."""
    return hasattr(config, "QUICK")


class Setting(NamedTuple):
    """A setting of a nested dataclass."""

    name: str
    """Its dotted name."""
    flag: str
    """That sets it."""
    value: Any
    kind: Any
    """Its type."""


def settings(config: Any, outer: str = "", prefix: str = "--") -> Iterator[Setting]:
    """Every setting of a nested dataclass, or of its class, which has defaults alone.

    >>> @dataclasses.dataclass(frozen=True)
    ... class Config:
    ...     batch_size: int = 3
    >>> list(settings(Config()))
    [Setting(name='batch_size', flag='--batch-size', value=3, kind=<class 'int'>)]
    """
    owner = config if isinstance(config, type) else type(config)
    types, plain = get_type_hints(owner, include_extras=True), get_type_hints(owner)
    for field in dataclasses.fields(config):
        value = getattr(config, field.name, None)
        given = [getattr(extra, "name", None) for extra in get_args(types[field.name])[1:]]
        flag = f"{prefix}{next(filter(None, given), field.name)}".replace("_", "-")
        if dataclasses.is_dataclass(value):
            yield from settings(value, f"{outer}{field.name}.", f"{flag}.")
        else:
            yield Setting(f"{outer}{field.name}", flag, value, plain[field.name])


def leaves(config: Any) -> list[tuple[str, Any]]:
    """Every setting of a nested dataclass by its dotted name."""
    return [(setting.name, setting.value) for setting in settings(config)]


def words_after(arguments: Sequence[str]) -> dict[str, list[str]]:
    """The words after each flag.

    >>> words_after(["--steps", "3", "--batch_size=7"])
    {'--steps': ['3'], '--batch-size': ['7']}
    """
    found: dict[str, list[str]] = {}
    words: list[str] = []
    for argument in arguments:
        if argument.startswith("--"):
            flag, equals, value = argument.partition("=")
            words = found[flag.replace("_", "-")] = [value] if equals else []
        else:
            words.append(argument)
    return found


def _read(setting: Setting, words: Sequence[str]) -> Any:
    """What the words after a flag mean, as far as its default tells; else the default itself.

    >>> number, rates = Setting("", "", 64, int), Setting("", "", (0.1, 0.2), tuple[float, ...])
    >>> _read(number, ["7"]), _read(number, ["few"]), _read(rates, ["3"]), _read(rates, [])
    (7, 64, (3.0,), ())
    """
    default = setting.value
    several = isinstance(default, tuple)
    if several and ... not in get_args(setting.kind) and len(words) != len(default):
        return default
    like: Any = type(next(iter(default), None)) if several else type(default)
    # A single word may be none of a few valid ones, which is for others to say.
    kinds: tuple[Any, ...] = (int, float, str) if several else (int, float)
    convert = like if like in kinds else None
    with contextlib.suppress(ValueError):
        read = tuple(convert(word) for word in words) if convert else ()
        if several and len(read) == len(words):
            return read
        if not several and len(read) == 1:
            return read[0]
    return default


def _smaller(value: Any, to: Any) -> Any:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return min(value, to) if is_number else to


def _changed(config: Any, values: Mapping[str, Any], outer: str = "") -> Any:
    changes = {}
    for field in dataclasses.fields(config):
        value, name = getattr(config, field.name), f"{outer}{field.name}"
        if dataclasses.is_dataclass(value):
            changes[field.name] = _changed(value, values, f"{name}.")
        elif values[name] != value:
            changes[field.name] = values[name]
    return dataclasses.replace(config, **changes)
