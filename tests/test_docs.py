"""The documentation: its Python runs as it is printed, its commands are taken by what they name."""

import ast
import contextlib
import doctest
import functools
import gc
import importlib
import importlib.util
import inspect
import io
import re
import shlex
import sys
from pathlib import Path

import jax
import pytest
import tyro

from latent_flows import _compiled

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"(?<!`)`((?:python -m|make) [^`]+)`(?!`)")
PLACEHOLDER = re.compile(r"(?:experiments\.)?[A-Z]+|\.\.\.")
ROOMS = sorted((ROOT / "experiments").rglob("README.md"))
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *ROOMS])
OURS = ("latent_flows", "experiments", "benchmarks")
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def name(path):
    return str(path.relative_to(ROOT))


def written(pages, pattern):
    return [page for page in pages if pattern.search(page.read_text(encoding="utf-8"))]


def distinct(pages):
    """Those whose blocks of Python are not the first of another page, nor all of one before."""
    blocks = {page: BLOCK.findall(page.read_text(encoding="utf-8")) for page in pages}

    def begins(page, other):
        """Whether `other` runs all of `page`, in its order."""
        mine, theirs = blocks[page], blocks[other]
        earlier = pages.index(other) < pages.index(page)
        return theirs[: len(mine)] == mine and (len(mine) < len(theirs) or earlier)

    return [page for page in pages if not any(begins(page, other) for other in pages)]


def commands(text):
    """The commands of a page, as lists of words without variables and comments."""
    lines = []
    for block in FENCE.finditer(text):
        if block[1] in ("", "bash", "sh"):
            lines += [(line, True) for line in block[2].replace("\\\n", " ").splitlines()]
    lines += [(match[1], False) for match in INLINE.finditer(FENCE.sub("", text))]
    for line, in_block in lines:
        words = shlex.split(line, comments=True)
        while words and re.match(r"\w+=", words[0]):
            words = words[1:]
        # In running text a command may stand for many: `python -m experiments.table run GROUP`.
        if words and (in_block or not any(PLACEHOLDER.fullmatch(word) for word in words)):
            yield words


@functools.cache
def entrance(module):
    """What `python -m module` calls, and the configuration or the presets that it takes."""
    spec = importlib.util.find_spec(module)
    assert spec is not None, f"there is no {module}"
    if spec.submodule_search_locations is not None:
        return entrance(f"{module}.__main__")
    loaded = importlib.import_module(module)
    calls = [
        node
        for node in ast.walk(ast.parse(Path(spec.origin).read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("main", "tyro.cli", "command")
    ]
    last = max(calls, key=lambda node: node.lineno)
    if ast.unparse(last.func) == "main" and ast.unparse(last.args[0]).startswith("tyro.cli"):
        last = last.args[0]
    call = "tyro.cli" if ast.unparse(last.func) == "command" else ast.unparse(last.func)
    return loaded, call, getattr(loaded, ast.unparse(last.args[-1]))


def complaint(words):
    """Why a command would not start, or None; nothing is run."""
    if words[0] == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        return None if words[1] in targets else f"the Makefile has no {words[1]}"
    if not words[0].endswith("python") or words[1] != "-m":
        return None
    module, *arguments = words[2:]
    if module.partition(".")[0] not in ("experiments", "benchmarks"):
        return None
    loaded, call, taken = entrance(module)
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        try:
            if call == "tyro.cli":
                tyro.cli(taken, args=arguments)
                return None
            code = loaded.main(lambda config: None, taken, arguments)
        except SystemExit as stopped:
            code = stopped.code
    return said.getvalue() if code else None


@pytest.fixture
def forget_programs():
    """Those of one page are of no use to the next, and all of them would fill the memory."""
    yield
    _compiled._kept.clear()
    jax.clear_caches()
    gc.collect()


def imported(tree):
    """What a page imports from the project, by the names that it has there."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module.partition(".")[0] in OURS:
            module = importlib.import_module(node.module)
            for alias in node.names:
                if not hasattr(module, alias.name):
                    importlib.import_module(f"{node.module}.{alias.name}")
                yield alias.asname or alias.name, getattr(module, alias.name)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.partition(".")[0] in OURS:
                    module = importlib.import_module(alias.name)
                    root = sys.modules[alias.name.partition(".")[0]]
                    yield alias.asname or root.__name__, module if alias.asname else root


def named(node, known):
    """What `name.of.something` is, where the name is known; None where it is not."""
    if isinstance(node, ast.Attribute):
        of = named(node.value, known)
        return None if of is None else getattr(of, node.attr)
    return known.get(node.id) if isinstance(node, ast.Name) else None


@pytest.mark.parametrize("page", written(PAGES, BLOCK), ids=name)
def test_what_a_page_imports_is_there_and_takes_the_arguments_that_it_names(page):
    blocks = BLOCK.findall(page.read_text(encoding="utf-8"))
    tree = ast.parse("\n".join(blocks))
    known = dict(imported(tree))
    for call in ast.walk(tree):
        if not isinstance(call, ast.Call) or (function := named(call.func, known)) is None:
            continue
        taken = inspect.signature(function).parameters.values()
        if any(each.kind is each.VAR_KEYWORD for each in taken):
            continue
        given = {keyword.arg for keyword in call.keywords if keyword.arg is not None}
        assert given <= {each.name for each in taken}, ast.unparse(call)


LONG = [
    f"docs/{page}.md"
    for page in (
        *("generators", "steering", "likelihoods", "geodesic_solvers"),
        *("new_loss_term", "new_metric", "new_pde", "table", "data", "export"),
        *("evaluation", "inversion"),
    )
]


@pytest.mark.usefixtures("forget_programs")
@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, id=name(page), marks=[pytest.mark.slow] * (name(page) in LONG))
        for page in distinct(written(PAGES, BLOCK))
    ],
)
def test_the_blocks_of_a_page_run_in_their_order(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # what a page saves is not left in the checkout
    text = page.read_text(encoding="utf-8")
    if "import torch\n" in text:
        pytest.importorskip("torch", reason="PyTorch is not installed: the extra `torch`")
    if "import onnxruntime\n" in text:
        pytest.importorskip("jax2onnx", reason="the extra `onnx` is not installed")
    names = {"__name__": "__main__"}
    for block in BLOCK.finditer(text):
        # Blank lines in front, so that an error names the line of the page.
        lines = "\n" * text.count("\n", 0, block.start(1))
        exec(compile(lines + block[1], str(page), "exec"), names)


@pytest.mark.parametrize(
    "page", [p for p in PAGES if any(commands(p.read_text(encoding="utf-8")))], ids=name
)
def test_the_commands_of_a_page_are_taken_by_what_they_name(page):
    wrong = {}
    for words in commands(page.read_text(encoding="utf-8")):
        if trouble := complaint(words):
            wrong[shlex.join(words)] = trouble
    assert not wrong


def test_a_wrong_flag_or_name_on_a_page_would_be_seen():
    assert "did you mean" in complaint(
        ["python", "-m", "experiments.potential_flows", "--flows.pd"]
    )
    assert "no mistake" in complaint(["make", "mistake"])
    with pytest.raises(AssertionError, match=r"there is no experiments\.mistake"):
        complaint(["python", "-m", "experiments.mistake"])


def test_the_site_puts_doctests_into_fences():
    pytest.importorskip("griffe")
    spec = importlib.util.spec_from_file_location("doctests", ROOT / "docs/site/doctests.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert doctest.testmod(module) == (0, 1)


def test_the_readme_is_short_and_its_links_lead_somewhere():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.encode()) <= 6000
    for target in re.findall(r"\]\(([^)#]+)", text):
        assert target.startswith("https://") or (ROOT / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_to_files_of_the_repository_lead_somewhere(page):
    # Some pages of the site are made from the source, and are none here.
    made = ("examples/", "contributing.md", "changelog.md", "api/")
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
        if not target.startswith(("https://", *made)):
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("room", ROOMS, ids=name)
def test_a_room_with_a_claim_says_what_does_not_reproduce(room):
    text = room.read_text(encoding="utf-8")
    if "| claim | command | verdict |" in text:
        assert "not reproduce" in text


@pytest.mark.parametrize("script", EXAMPLES, ids=name)
def test_an_example_is_short_and_uses_the_library_alone(script):
    text = script.read_text(encoding="utf-8")
    assert text.count("\n") <= 150
    assert text.startswith("# %% [markdown]\n# # ")
    tree = ast.parse(text)
    imported = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    modules = {}
    for node in imported:
        source = node.module if isinstance(node, ast.ImportFrom) else ""
        for each in node.names:
            full = f"{source}.{each.name}" if source else each.name
            assert not re.search(r"\b_|experiments|benchmarks|tests", full), full
            if full.startswith("latent_flows"):
                modules[each.asname or each.name] = importlib.import_module(full)
    used = {
        (node.value.id, node.attr)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    }
    for module, attribute in used:
        if module in modules:
            assert hasattr(modules[module], attribute), f"{module}.{attribute}"
