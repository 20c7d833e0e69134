"""What the site shows of the source: the API, examples, rooms, changelog; formulae as MathML.

Nothing here names a module or an example, so that a new or renamed one needs no edit.
"""

import html
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import griffe
from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
PICTURES = ROOT / "build" / "examples"  # where `make docs` has them drawn
FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)
# What the converter does not know, and what it does.
REWRITTEN = {r"\arg\min": r"\operatorname{arg\,min}", r"\Big\|": r"\|", r"\big\|": r"\|"}
CELL = re.compile(r"^# %%(?P<markdown> \[markdown\])?\n(?P<body>.*?)(?=^# %%|\Z)", re.M | re.S)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Fill the parts of the navigation that follow the source."""
    pages = {
        "Examples": [{title(path): f"examples/{path.stem}.md"} for path in examples()],
        "API": ["api/index.md", *grouped([name for name, _, _ in modules()])],
    }
    for entry in config.nav or []:
        for name in entry.keys() & pages.keys():
            entry[name] = pages[name]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made from the source."""
    made = {f"api/{name}.md": text for name, _, text in modules()}
    rows = [f"| [{name}]({name}.md) | {about} |" for name, about, _ in modules()]
    made["api/index.md"] = "\n".join(["# API", "", "| module | |", "|---|---|", *rows])
    for path in examples():
        made[f"examples/{path.stem}.md"] = tutorial(path)
        picture = PICTURES / f"{path.stem}.png"
        if not picture.exists():
            raise PluginError(f"{picture} does not exist: `make docs` draws it, from {path}")
        source = File.generated(config, f"examples/{picture.name}", abs_src_path=str(picture))
        files.append(source)
    for name in ("CONTRIBUTING", "CHANGELOG"):
        # In the repository these are beside docs/, on the site inside it.
        text = (ROOT / f"{name}.md").read_text(encoding="utf-8").replace("](docs/", "](")
        made[f"{name.lower()}.md"] = text
    made |= dict(rooms())
    for name, text in made.items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, **_) -> str:
    """Links from a page to a room of the experiments, which on the site is a page as well."""
    markdown = markdown.replace("../experiments/README.md", "experiments/index.md")
    return re.sub(r"(?:\.\./)?(experiments/\w+)/README\.md", r"\1.md", markdown)


def on_page_content(content: str, page: Page, **_) -> str:
    """Formulae as MathML, which browsers draw without a script.

    Raises:
        PluginError: a formula that cannot be read; it names the page.
    """

    def mathml(formula: re.Match[str]) -> str:
        block = formula[1] == "div"
        source = html.unescape(formula[2]).strip()
        for unknown, known in REWRITTEN.items():
            source = source.replace(unknown, known)
        try:
            drawn = convert(source, display="block" if block else "inline")
        except Exception as error:
            raise PluginError(f"{page.file.src_uri}: {source}: {error!r}") from error
        if "\\" in drawn:
            raise PluginError(f"{page.file.src_uri}: {source}: a command that is not known")
        return f'<{formula[1]} class="arithmatex">{drawn}</{formula[1]}>'

    return FORMULA.sub(mathml, content)


def examples() -> list[Path]:
    """The scripts of examples/, in the order in which a reader should meet them."""
    first = ["potential_flow", "geodesic", "direction", "composed"]
    found = sorted((ROOT / "examples").glob("[!_]*.py"))
    return sorted(found, key=lambda path: [*first, path.stem].index(path.stem))


def title(path: Path) -> str:
    """The heading of an example."""
    return re.search(r"^# # (.*)$", path.read_text(encoding="utf-8"), re.M)[1]


def tutorial(path: Path) -> str:
    """An example as a page: its text, its code and the picture it draws."""
    parts = []
    for cell in CELL.finditer(path.read_text(encoding="utf-8")):
        if cell["markdown"]:
            parts.append(re.sub(r"^# ?", "", cell["body"], flags=re.M).strip())
        else:
            parts.append(f"```python\n{cell['body'].strip()}\n```")
    picture = f"![What the script draws]({path.stem}.png)"
    heading, rest = parts[0].partition("\n")[::2]
    return "\n\n".join(
        [
            heading,
            rest.strip(),
            picture,
            f"`python examples/{path.name}` runs it, and saves the picture.",
            *parts[1:],
        ]
    )


def rooms() -> Iterator[tuple[str, str]]:
    """What each room of the experiments says of itself, as a page."""
    home = ROOT / "experiments"
    overview = (home / "README.md").read_text(encoding="utf-8").replace("](../docs/", "](../")
    yield "experiments/index.md", overview.replace("/README.md)", ".md)")
    for path in sorted(home.glob("*/README.md")):
        text = path.read_text(encoding="utf-8").replace("](../../docs/", "](../")
        yield f"experiments/{path.parent.name}.md", re.sub(r"\]\(\.\./(\w+)/README", r"](\1", text)


@cache
def modules() -> list[tuple[str, str, str]]:
    """Every public module or package that offers something, its first line and its page."""
    doctests = griffe.load_extensions(str(Path(__file__).with_name("doctests.py")))
    package = griffe.load("latent_flows", search_paths=[ROOT], extensions=doctests)
    found = []
    for module in sorted(public(package), key=lambda module: module.path):
        if names := list(offered(module)):
            about = module.docstring.value if module.docstring else ""
            path = module.path.partition(".")[2] or module.path
            found.append((path, about.partition("\n")[0], page(module, about, names)))
    return found


def grouped(names: list[str]) -> list[dict[str, Any]]:
    """The navigation of modules: those of a package below it."""
    packages = dict.fromkeys(name.partition(".")[0] for name in names)
    entries: list[dict[str, Any]] = []
    for package in packages:
        inside = [name for name in names if name.partition(".")[0] == package]
        pages = [{name: f"api/{name}.md"} for name in inside]
        entries += pages if len(pages) == 1 else [{package: pages}]
    return entries


def public(module: griffe.Module) -> Iterator[griffe.Module]:
    """A module and those below it that have no underscore."""
    yield module
    for child in module.modules.values():
        if not child.name.startswith("_") and not child.is_alias:
            yield from public(child)


def offered(module: griffe.Module) -> Iterator[str]:
    """The paths of what a module offers, less what the package that it is in offers already."""
    above = exports(module.parent) if isinstance(module.parent, griffe.Module) else set()
    for name in exports(module):
        member = module.members.get(name)
        if member is None or member.is_module or name in above:
            continue
        try:
            documented = member.has_docstring
        except griffe.AliasResolutionError:
            continue  # of another library
        if documented:
            yield f"{module.path}.{name}"


def exports(module: griffe.Module) -> list[str]:
    """The names in `__all__`, or the public ones that a module defines."""
    if module.exports is not None:
        return [str(name) for name in module.exports]
    return [
        name
        for name, member in module.members.items()
        if not name.startswith("_") and (not member.is_alias or module.is_init_module)
    ]


def page(module: griffe.Module, about: str, names: list[str]) -> str:
    """A page of the API: what the module says of itself, then each name."""
    return "\n\n".join([f"# {module.path}", about, *(f"::: {name}" for name in names)])
