r"""Published weights: state dicts of PyTorch read from files and put where a flax module has them.

An architecture says where each of its keys belongs with a table, `key_names(net)`, of `Target`s.
Only NumPy and safetensors read the files; nothing that a file holds is run.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors import SafetensorError, safe_open

from latent_flows._validation import choose
from latent_flows.generators import pytorch_file

__all__ = [
    "HARMLESS",
    "LINES",
    "Checkpoint",
    "Path_",
    "State",
    "Target",
    "from_state_dict",
    "read_checkpoint",
    "read_state_dict",
    "variable_shapes",
]

Path_ = tuple[str, ...]
State = Mapping[str, np.ndarray]

LINES = 10
"""Lines of a message about keys that do not fit."""

HARMLESS = ("num_batches_tracked", "accumulation_counter", "sv0")
"""Last parts of keys that no network needs: counters, and a singular value kept for logs."""

# From PyTorch's axes to ours. 1 is an axis of length one that is dropped.
_LAYOUTS = {
    "conv": ("o i h w", "h w i o"),
    "modulated_conv": ("1 o i h w", "h w i o"),
    "transposed_conv": ("i o h w", "h w i o"),
    "dense": ("o i", "i o"),
    "map": ("c h w", "h w c"),
    "image": ("1 c h w", "h w c"),
    "plane": ("1 1 h w", "h w"),
}
_RESHAPED = {"same", "flat"}


class Target(NamedTuple):
    """Where a key of a state dict belongs."""

    path: Path_
    """Into the flax variables, such as `("params", "conv", "kernel")`."""
    layout: str = "same"
    """How its axes are laid out: `"conv"` (OIHW to HWIO), `"modulated_conv"` (1OIHW to HWIO),
    `"transposed_conv"` (IOHW to HWIO, mirrored in H and W, as `flax.linen.ConvTranspose` and
    `jax.lax.conv_transpose` take it), `"dense"` (OI to IO), `"map"` (CHW to HWC), `"image"` (1CHW
    to HWC), `"plane"` (11HW to HW), `"same"`, or `"flat"` (any shape with as many numbers)."""
    scale: float = 1.0
    """What it is multiplied with."""
    normalise: str | tuple[str, str] | None = None
    r"""For weights that are divided by an estimate of their largest singular value. The key of `u`,
    from which one step of the power iteration leads to it (BigGAN), or the keys of `u` and `v`,
    which it is $u^\top W v$ of (`torch.nn.utils.spectral_norm`); both as those do it in evaluation
    mode."""
    optional: bool = False
    """The value of `init` is kept where the key is missing."""


class Checkpoint(NamedTuple):
    """What a file holds of one network."""

    state: dict[str, np.ndarray]
    """The tensors by name."""
    settings: Mapping[str, Any] = MappingProxyType({})
    """Numbers and texts that its modules were made with, by name, where they were pickled whole."""


def read_state_dict(
    path: str | Path, *, key: str | None = None, names: Iterable[str] = ()
) -> dict[str, np.ndarray]:
    """Reads the weights in a file, without running its code; see `read_checkpoint`.

    Args:
        path: the file: .pt, .pth, .pkl or .safetensors.
        key: which of several mappings of tensors in the file, such as `"g_ema"`; nested ones are
            joined by dots. By default the one whose names agree best with `names`, and of equally
            good ones that of averaged weights (`ema` in its name); without `names`, all of them.
        names: the keys that are looked for. Tensors of these names that lie beside the mapping,
            such as `latent_avg` beside `g_ema`, come along.

    Returns:
        The tensors by name; half precision becomes float32.

    Raises:
        ValueError: no such file, truncated or corrupt, of another kind, a pickle that asks for
            anything but tensors and containers (which is not run), or no single mapping of tensors.
    """
    return read_checkpoint(path, key=key, names=[names]).state


def read_checkpoint(
    path: str | Path, *, key: str | None = None, names: Iterable[Iterable[str]] = ((),)
) -> Checkpoint:
    """Reads what a file holds of one network, without running its code.

    Args:
        path: the file: .pt, .pth or .pkl, of tensors or of modules that were pickled with their
            source text (which is not looked at); or .safetensors.
        key: as of `read_state_dict`.
        names: the keys that are looked for; where a network has several sets of names, each of
            them. The one that agrees best with the file is taken.

    Returns:
        The tensors, and the settings of modules.

    Raises:
        ValueError: as `read_state_dict`.
    """
    path = Path(path).expanduser()
    sets = [set(several) for several in names]
    if path.suffix == ".safetensors":
        return Checkpoint(_read_safetensors(path, key, sets))
    with pytorch_file.open_tensors(path) as (tree, read):
        found = pytorch_file.tensors(tree)
        chosen, prefix, trouble = _select(list(found), key, sets)
        state = {name: _single(read(found[full])) for name, full in chosen.items()}
        settings = pytorch_file.settings(tree)
    if trouble:
        raise ValueError(f"{path} {trouble}")
    own = {k.removeprefix(prefix): v for k, v in settings.items() if k.startswith(prefix)}
    return Checkpoint(state, own)


def _read_safetensors(
    path: Path, key: str | None, sets: Sequence[set[str]]
) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise ValueError(f"{path} {'is a folder' if path.is_dir() else 'does not exist'}")
    try:
        # As flax's arrays, since NumPy itself has no bfloat16.
        with safe_open(path, framework="flax") as file:
            chosen, _, trouble = _select(list(file.keys()), key, sets)
            state = {name: _single(file.get_tensor(full)) for name, full in chosen.items()}
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is truncated, corrupt or no safetensors file ({error})") from None
    if trouble:
        raise ValueError(f"{path} {trouble}")
    return state


def _single(array: Any) -> np.ndarray:
    half = array.dtype in (np.float16, jnp.bfloat16)
    return np.asarray(array, np.float32 if half else None)


def _select(
    full: Sequence[str], key: str | None, sets: Sequence[set[str]]
) -> tuple[dict[str, str], str, str | None]:
    """Short name -> full name in one mapping of the file, its prefix, or what the trouble is."""
    root = f"{key}." if key else ""
    below = [name for name in full if name.startswith(root)]
    if not below:
        listed = ", ".join(repr(part) for part in dict.fromkeys(n.partition(".")[0] for n in full))
        trouble = f"holds no tensors under {key!r}, only {listed}" if full else "holds no tensors"
        return {}, root, trouble
    counted = [(_counts(below, root, names), names) for names in sets]
    counts, names = max(counted, key=lambda pair: max(pair[0].values(), default=0))
    best = max(counts.values(), default=0)
    ties = [prefix for prefix, count in counts.items() if count == best]
    averaged = [prefix for prefix in ties if "ema" in prefix]
    if 2 * best <= len(names):
        # Mostly another model: the message about its keys shall name them as the file does.
        ties = [root]
    elif len(ties) > 1 and len(averaged) != 1:
        listed = ", ".join(repr(prefix.rstrip(".")) for prefix in ties)
        trouble = f"holds several mappings that fit ({listed}); choose one of them by its key"
        return {}, root, trouble
    prefix = (averaged if len(ties) > 1 else ties)[0]
    chosen = {name.removeprefix(prefix): name for name in below if name.startswith(prefix)}
    parts = prefix.split(".")[:-1]
    for above in ("".join(f"{part}." for part in parts[:i]) for i in range(len(parts))):
        beside = {name.removeprefix(above): name for name in full if name.startswith(above)}
        chosen = {short: name for short, name in beside.items() if short in names} | chosen
    return chosen, prefix, None


def _counts(below: Sequence[str], root: str, names: set[str]) -> dict[str, int]:
    """How many of the names there are under each prefix."""
    counts: dict[str, int] = {}
    for name in below:
        for prefix in _prefixes(name, names):
            if prefix.startswith(root):
                counts[prefix] = counts.get(prefix, 0) + 1
    return counts


def _prefixes(name: str, names: set[str]) -> list[str]:
    """What stands before one of the names in a full name: at most a few parts."""
    parts = name.split(".")
    return [
        "".join(f"{part}." for part in parts[:i])
        for i in range(len(parts))
        if ".".join(parts[i:]) in names
    ]


def from_state_dict(
    net: nn.Module,
    key_names: Mapping[str, Target],
    state: State,
    *,
    ignored: Sequence[str] = HARMLESS,
) -> Any:
    """The variables of a flax module out of a state dict.

    Args:
        net: the module. It is called with `net.example_inputs()` if it has this method, else with
            one latent of `net.latent_dim` zeros; only the shapes are computed.
        key_names: where each key belongs. Several keys may have one target, as parameters do that
            a PyTorch module knows under two names; one of them is enough, and they have to agree.
        state: the tensors by key, such as from `read_state_dict`.
        ignored: last parts of keys that may be there and are of no use.

    Returns:
        The variables, as `net.init` would make them, in NumPy arrays.

    Raises:
        ValueError: keys that are missing, left over, or of another shape, in at most ten lines.

    >>> import numpy as np
    >>> from flax import linen as nn
    >>> from latent_flows.generators.weights import Target, from_state_dict
    >>> class Net(nn.Module):
    ...     latent_dim: int = 3
    ...     @nn.compact
    ...     def __call__(self, z):
    ...         return nn.Dense(2, use_bias=False, name="dense")(z)
    >>> table = {"linear.weight": Target(("params", "dense", "kernel"), "dense")}
    >>> variables = from_state_dict(Net(), table, {"linear.weight": np.ones((2, 3))})
    >>> variables["params"]["dense"]["kernel"].shape
    (3, 2)
    >>> wrong = {"linear.weight": np.ones((5, 3)), "linear.bias": np.ones(5)}
    >>> from_state_dict(Net(), table, wrong)
    Traceback (most recent call last):
    ...
    ValueError: the weights are not those of Net: 1 key left over, 1 of another shape
      left over: linear.bias [5]
      another shape: linear.weight [5, 3], expected [2, 3]
    """
    like = flatten_dict(variable_shapes(net))
    if forgotten := set(like) - {target.path for target in key_names.values()}:
        raise ValueError(f"key_names leaves out {sorted(map('/'.join, forgotten))}")
    missing, odd = [], []
    leaves: dict[Path_, np.ndarray] = {}
    used = set()
    for name, target in key_names.items():
        needed = [name, *_vectors(target)]
        used |= set(needed)
        lacking = [n for n in needed if n not in state]
        if name in lacking:
            continue
        missing += lacking
        want = like[target.path]
        shape = _torch_shape(target.layout, want.shape)
        got = np.asarray(state[name])
        fits = got.size == want.size if target.layout == "flat" else got.shape == shape
        if not fits:
            odd.append(f"{name} {list(got.shape)}, expected {list(shape)}")
        elif not lacking:
            value = _place(target, state, got, want)
            if not np.array_equal(leaves.setdefault(target.path, value), value, equal_nan=True):
                odd.append(f"{name} differs from another key for the same weight")
    shapeless = {key_names[line.split(" ", 1)[0]].path for line in odd}
    kept = set()
    for name, target in key_names.items():
        if target.path not in leaves and target.path not in shapeless:
            if target.optional:
                kept.add(target.path)
            elif name not in state:
                missing.append(
                    f"{name} {list(_torch_shape(target.layout, like[target.path].shape))}"
                )
    extra = [
        f"{name} {list(np.shape(value))}"
        for name, value in state.items()
        if name not in used and name.rpartition(".")[2] not in ignored
    ]
    if missing or extra or odd:
        raise ValueError(_complaint(net, missing, extra, odd))
    if kept:
        leaves |= _initial(net, kept)
    return unflatten_dict(leaves)


def _inputs(net: Any) -> tuple[Any, ...]:
    if hasattr(net, "example_inputs"):
        return net.example_inputs()
    return (jnp.zeros(net.latent_dim),)


def variable_shapes(net: nn.Module) -> Any:
    """The variables that `net.init` would make, as shapes and dtypes; nothing is computed.

    Args:
        net: the module. It is called with `net.example_inputs()` if it has this method, else with
            one latent of `net.latent_dim` zeros.

    Returns:
        A pytree of `jax.ShapeDtypeStruct`.
    """
    return jax.eval_shape(net.init, jax.random.key(0), *_inputs(net))


def _initial(net: nn.Module, paths: set[Path_]) -> dict[Path_, np.ndarray]:
    """Some of what `init` makes, and nothing else: XLA drops the rest, and the network itself."""

    def some(key: Any) -> dict[Path_, Any]:
        initial = flatten_dict(net.init(key, *_inputs(net)))
        return {path: initial[path] for path in paths}

    return jax.tree.map(np.asarray, jax.jit(some)(jax.random.key(0)))


def _vectors(target: Target) -> tuple[str, ...]:
    return (target.normalise,) if isinstance(target.normalise, str) else target.normalise or ()


def _place(target: Target, state: State, got: np.ndarray, want: jax.ShapeDtypeStruct) -> np.ndarray:
    if target.normalise is not None:
        got = got / _largest_singular_value(got, *(state[n] for n in _vectors(target)))
    if target.layout not in _RESHAPED:
        axes = _axes(target.layout)
        got = got.reshape([n for n, axis in zip(got.shape, axes.torch, strict=True) if axis != "1"])
        got = got.transpose([axes.kept.index(axis) for axis in axes.ours])
        if target.layout == "transposed_conv":
            got = got[::-1, ::-1]
    return np.array(got.reshape(want.shape) * target.scale, want.dtype, order="C")


def _largest_singular_value(weight: np.ndarray, u: np.ndarray, v: np.ndarray | None = None) -> Any:
    matrix, u = weight.reshape(len(weight), -1), u.reshape(-1)
    if v is not None:
        return u @ matrix @ v.reshape(-1)
    v = u @ matrix
    v = v / max(np.linalg.norm(v), 1e-12)
    u = matrix @ v
    # v' W' u, with u the normalised W v.
    return u @ u / max(np.linalg.norm(u), 1e-12)


class _Axes(NamedTuple):
    torch: list[str]
    ours: list[str]

    @property
    def kept(self) -> list[str]:
        return [axis for axis in self.torch if axis != "1"]


def _axes(layout: str) -> _Axes:
    torch, ours = choose("layout", layout, _LAYOUTS)
    return _Axes(torch.split(), ours.split())


def _torch_shape(layout: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    if layout in _RESHAPED:
        return shape
    axes = _axes(layout)
    sizes = dict(zip(axes.ours, shape, strict=True)) | {"1": 1}
    return tuple(sizes[axis] for axis in axes.torch)


def _complaint(net: nn.Module, missing: list[str], extra: list[str], odd: list[str]) -> str:
    """What does not fit, in at most `LINES` lines."""
    groups = {"missing": missing, "left over": extra, "another shape": odd}
    groups = {what: lines for what, lines in groups.items() if lines}
    counts = [
        f"{len(missing)} missing" if missing else "",
        f"{len(extra)} left over" if extra else "",
        f"{len(odd)} of another shape" if odd else "",
    ]
    first, *others = [count for count in counts if count]
    number, what = first.split(" ", 1)
    plural = "" if number == "1" else "s"
    head = ", ".join([f"{number} key{plural} {what}", *others])
    size = f" of {net.resolution} pixels" if hasattr(net, "resolution") else ""
    text = [f"the weights are not those of {type(net).__name__}{size}: {head}"]
    room = (LINES - 1) // len(groups)
    for what, lines in groups.items():
        shown = lines if len(lines) <= room else lines[: room - 1]
        text += [f"  {what}: {line}" for line in shown]
        if len(shown) < len(lines):
            text.append(f"  {what}: and {len(lines) - len(shown)} more")
    return "\n".join(text)
