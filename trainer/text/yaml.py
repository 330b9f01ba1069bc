"""YAML 1.2 as plain values, with limits that protect against hostile files."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ruamel.yaml.nodes import Node

MAX_DEPTH = 50
"""Levels of nesting."""
MAX_VALUES = 50_000
"""Number of values with every alias expanded. Aliases of aliases grow exponentially: a small file
could take hours, or all memory."""


class YamlError(Exception):
    """A text that is not readable YAML."""

    def __init__(self, problem: str, kind: str = "", line: int | None = None) -> None:
        super().__init__(problem)
        self.problem = problem
        """What is wrong; it may quote the text."""
        self.kind = kind or problem
        """What is wrong, without any word of the text."""
        self.line = line
        """Line of the problem, from 1."""


def load_yaml(text: str, key_of_texts: str | None = None) -> Any:
    """Load numbers, texts, lists and dicts. No code in the text is run.

    Args:
        text: A YAML document.
        key_of_texts: A key of the outermost mapping whose values are all texts, also those that
            YAML takes for something else: `007` and `true` stay as written.

    Raises:
        YamlError: If the text is not YAML, or beyond MAX_DEPTH or MAX_VALUES.
    """
    from ruamel.yaml import YAML  # slow to import, and needed for YAML only
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        _check_bounds(text)
        yaml = YAML(typ="safe", pure=True)
        node = yaml.compose(text)
        _keep_texts(node, key_of_texts)
        return None if node is None else yaml.constructor.construct_document(node)
    except MarkedYAMLError as error:
        problem, kind = str(error.problem).splitlines()[0], error.context or "is no YAML"
        problem = problem.partition(" with value ")[0]  # of a repeated key: it may be a secret
        line = error.problem_mark.line + 1 if error.problem_mark else None
        raise YamlError(problem, kind, line) from None
    except YAMLError as error:
        raise YamlError(str(error).splitlines()[0]) from None
    except ValueError:  # an impossible date, or a number of thousands of digits
        raise YamlError("has a number or date that cannot be read") from None


def _keep_texts(document: "Node | None", key: str | None) -> None:
    """Have the scalars below a key of the outermost mapping read as texts, except empty ones.

    The keys of mappings below it stay what they are.
    """
    from ruamel.yaml.nodes import MappingNode, ScalarNode
    from ruamel.yaml.resolver import BaseResolver

    pairs = document.value if isinstance(document, MappingNode) else []
    rest = [value for name, value in pairs if name.value == key]
    seen = set()  # an alias may stand inside what it refers to
    while rest:
        node = rest.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, ScalarNode):
            if node.value and not node.style:  # no style: without quotes
                node.tag = BaseResolver.DEFAULT_SCALAR_TAG
        elif isinstance(node, MappingNode):
            rest += [value for _, value in node.value]
        else:
            rest += node.value


def _check_bounds(text: str) -> None:
    from ruamel.yaml import YAML, events

    total = 0
    opened: list[tuple[str | None, int]] = []
    sizes: dict[str | None, int] = {}
    for event in YAML(typ="safe", pure=True).parse(text):
        if isinstance(event, events.CollectionStartEvent):
            opened.append((event.anchor, total))
            total += 1
        elif isinstance(event, events.CollectionEndEvent):
            anchor, before = opened.pop()
            sizes[anchor] = total - before
        elif isinstance(event, events.ScalarEvent):
            sizes[event.anchor] = 1
            total += 1
        elif isinstance(event, events.AliasEvent):
            total += sizes.get(event.anchor, 1)
        if len(opened) > MAX_DEPTH:
            raise YamlError(f"is nested more than {MAX_DEPTH} deep")
        if total > MAX_VALUES:
            raise YamlError(f"holds more than {MAX_VALUES} values, each alias counted")
