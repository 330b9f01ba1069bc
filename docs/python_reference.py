"""Writes the reference of the Python module from its source: signatures and docstrings."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCES = (ROOT / "unfreeze.py", ROOT / "search" / "exports" / "model.py")
"""The module, and the file of the classes that it passes on."""
WIDTH = 88
"""Columns of a signature on one line."""
SECTION = re.compile(r"^(Args|Returns|Raises):$", re.MULTILINE)


def reference() -> str:
    """Every public function and class of `import unfreeze`, in the order of its source."""
    text = (
        "# Python\n\nEverything that `import unfreeze` has; [Python](../python.md) shows its use.\n"
    )
    bodies = [node for file in SOURCES for node in ast.parse(file.read_text("utf-8")).body]
    for node in bodies:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            text += f"\n## unfreeze.{node.name}\n\n" + _function(node)
    for node in bodies:
        if isinstance(node, ast.ClassDef):
            text += f"\n## {node.name}\n\n{_docstring(node)}\n"
            text += "".join(_members(node))
    return text


def _members(node: ast.ClassDef) -> Iterator[str]:
    for member, after in zip(node.body, [*node.body[1:], None], strict=True):
        if isinstance(member, ast.AnnAssign) and isinstance(after, ast.Expr):
            kind, about = ast.unparse(member.annotation), ast.literal_eval(after.value)
            yield f"\n**`{ast.unparse(member.target)}`** (`{kind}`): {about}\n"
        if not isinstance(member, ast.FunctionDef) or member.name.startswith("_"):
            continue
        decorators = {ast.unparse(decorator) for decorator in member.decorator_list}
        if "overload" in decorators:
            continue
        if "property" in decorators:
            returns = ast.unparse(member.returns) if member.returns else ""
            kind = returns.strip("'\"")
            yield f"\n**`{member.name}`** (`{kind}`): {_docstring(member)}\n"
        else:
            yield f"\n### {node.name}.{member.name}\n\n" + _function(member)


def _function(node: ast.FunctionDef) -> str:
    return f"```python\n{_signature(node)}\n```\n\n{_docstring(node)}\n"


def _signature(node: ast.FunctionDef) -> str:
    """The signature as written, an argument a line where it is long; without `self`."""
    arguments = node.args
    plain = [argument for argument in arguments.args if argument.arg != "self"]
    defaults = [None] * (len(plain) - len(arguments.defaults)) + list(arguments.defaults)
    words = [_argument(a, d) for a, d in zip(plain, defaults, strict=True)]
    if arguments.kwonlyargs:
        words.append("*")
    keywords = zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    words += [_argument(argument, default) for argument, default in keywords]
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    line = f"{node.name}({', '.join(words)}){returns}"
    if len(line) <= WIDTH:
        return line
    return f"{node.name}(\n" + "".join(f"    {word},\n" for word in words) + f"){returns}"


def _argument(argument: ast.arg, default: ast.expr | None) -> str:
    kind = f": {ast.unparse(argument.annotation)}" if argument.annotation else ""
    return f"{argument.arg}{kind}" + ("" if default is None else f" = {ast.unparse(default)}")


def _docstring(node: ast.FunctionDef | ast.ClassDef) -> str:
    """The docstring as Markdown: its sections become lists."""
    about, *sections = SECTION.split(ast.get_docstring(node) or "")
    text = about.strip()
    for title, content in zip(sections[::2], sections[1::2], strict=True):
        items = re.sub(r"\n {8}", " ", content.strip("\n")).splitlines()
        lines = [item.strip() for item in items if item.strip()]
        if title == "Returns":
            text += f"\n\nReturns: {' '.join(lines)}"
            continue
        pairs = (line.partition(": ") for line in lines)
        text += f"\n\n{'Arguments' if title == 'Args' else title}:\n\n"
        text += "\n".join(f"- `{name}`: {meaning}" for name, _, meaning in pairs)
    return text
