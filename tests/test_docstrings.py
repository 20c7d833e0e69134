"""The dialect of the library's docstrings: what each has, and in which order."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SECTIONS = ("Args:", "Returns:", "Raises:", "References:")
HEADS = [
    "Args",
    "Returns",
    "Yields",
    "Raises",
    "References",
    "Attributes",
    "Example",
    "Examples",
    "Source",
]
SECTION = re.compile(rf"^({'|'.join(HEADS)}):$", re.MULTILINE)
# Parameter names of a section, at the first indentation under it.
PARAMETER = re.compile(r"^    \*{0,2}(\w+):", re.MULTILINE)
MODULES = sorted(
    path
    for path in (ROOT / "latent_flows").rglob("*.py")
    if not any(part.startswith("_") and part != "__init__.py" for part in path.parts)
)


def name(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def exported(tree):
    """The names in `__all__`, or None."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return set(ast.literal_eval(node.value))
    return None


def sections(text):
    """The sections of a docstring, in their order, each with what is under it."""
    parts = SECTION.split(text)
    return {f"{parts[i]}:": parts[i + 1] for i in range(1, len(parts), 2)}


def parameters(function):
    given = function.args
    every = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
    return [each.arg for each in every if each and each.arg not in ("self", "cls", "_")]


def of_text(owner, text):
    """What is wrong with a docstring of any kind."""
    if text is None:
        return [f"{owner} has no docstring"]
    wrong = []
    first, _, rest = text.partition("\n")
    if not first.endswith((".", "?", ":")):
        wrong.append(f"{owner}: the first line is no sentence of its own")
    if rest and not rest.startswith("\n"):
        wrong.append(f"{owner}: no empty line after the first")
    there = list(sections(text))
    strange = [section for section in there if section not in SECTIONS]
    if strange:
        wrong.append(f"{owner} has {', '.join(strange)}")
    known = [SECTIONS.index(section) for section in there if section in SECTIONS]
    if known != sorted(known):
        wrong.append(f"{owner} has its sections in the order {', '.join(there)}")
    doctest = text.find("\n>>> ")
    if 0 <= doctest < max((match.start() for match in SECTION.finditer(text)), default=0):
        wrong.append(f"{owner} has a doctest before its last section")
    return wrong


def of_function(owner, function):
    text = ast.get_docstring(function)
    wrong = of_text(owner, text)
    if text is None:
        return wrong
    there = sections(text)
    wanted, named = parameters(function), PARAMETER.findall(there.get("Args:", ""))
    if wanted != named:
        wrong.append(f"{owner} takes {wanted} and Args has {named}")
    returns = ast.unparse(function.returns) if function.returns else "None"
    if returns != "None" and "Returns:" not in there:
        wrong.append(f"{owner} has no Returns")
    return wrong


def of_class(owner, node):
    wrong = of_text(owner, ast.get_docstring(node))
    kinds = {ast.unparse(base) for base in node.bases}
    kinds |= {ast.unparse(d).partition("(")[0] for d in node.decorator_list}
    if any(kind.endswith(("NamedTuple", "dataclass", "nn.Module")) for kind in kinds):
        above = PARAMETER.findall(sections(ast.get_docstring(node) or "").get("Args:", ""))
        for field, after in zip(node.body, [*node.body[1:], None], strict=True):
            if not isinstance(field, ast.AnnAssign) or ast.unparse(field.target).startswith("_"):
                continue
            told = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
            if not told and ast.unparse(field.target) not in above:
                wrong.append(f"{owner}.{ast.unparse(field.target)} has no docstring below it")
    return wrong


def complaints(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    wrong = [] if ast.get_docstring(tree) else ["the module has no docstring"]
    public = exported(tree)
    offers = [
        node
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
    ]
    if public is None and offers:
        wrong.append("the module has no __all__")
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            if public is not None and node.name not in public:
                wrong.append(f"{node.name} is public and not in __all__")
            check = of_class if isinstance(node, ast.ClassDef) else of_function
            wrong += check(node.name, node)
    return wrong


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_public_docstrings_are_of_one_dialect(path):
    assert not complaints(path)
