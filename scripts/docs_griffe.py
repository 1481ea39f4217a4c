"""What griffe is told of the library: docstrings are Markdown, and `@component` and `@pytree` make
dataclasses, whose fields are the arguments of a call.
"""

from typing import Any

import griffe
from docs_markdown import in_markdown

COMPONENTS = ("component", "pytree", "vaejax.component", "vaejax.pytree")


class Docstrings(griffe.Extension):
    """What mkdocs.yml names as an extension of griffe."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring:
            obj.docstring.value = in_markdown(obj.docstring.value)

    def on_class_instance(self, *, cls: griffe.Class, **_: Any) -> None:
        for decorator in cls.decorators:
            if str(decorator.value) in COMPONENTS:
                decorator.value = griffe.ExprName("dataclass", parent="dataclasses")  # pyright: ignore
