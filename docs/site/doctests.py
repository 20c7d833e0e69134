"""Doctests of docstrings as blocks of code, which Markdown takes for quotations of quotations."""

import re

import griffe

# From the first prompt of a block to the next empty line.
BLOCK = re.compile(r"^(?P<indent>[ ]*)>>> .*?(?=\n[ ]*\n|\Z)", re.MULTILINE | re.DOTALL)


def fenced(text: str) -> str:
    """A docstring whose doctests stand in fences.

    >>> fenced("One line.\\n\\n>>> 1 + 1\\n2").splitlines()
    ['One line.', '', '```pycon', '>>> 1 + 1', '2', '```']
    """

    def fence(block: re.Match[str]) -> str:
        indent = block["indent"]
        lines = block[0].replace("<BLANKLINE>", "").splitlines()
        return "\n".join(
            indent + line for line in ["```pycon", *(x[len(indent) :] for x in lines), "```"]
        )

    return BLOCK.sub(fence, text)


class Doctests(griffe.Extension):
    """Puts the doctests of everything that is loaded into fences."""

    def on_instance(self, *, obj, **_):
        """Called for each module, class, function and attribute with its docstring."""
        if obj.docstring is not None:
            obj.docstring.value = fenced(obj.docstring.value)
