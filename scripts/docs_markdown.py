"""Docstrings as Markdown. They are written for readers of the source; two forms need a word:

examples   lines of >>> become a block of code, as does indented code that is Python
columns    a name, two spaces or more, what it is: a list of definitions
"""

import ast
import re
import textwrap

COLUMNS = re.compile(r"(\S+(?: \S+)*) {2,}(\S.*)")


def in_markdown(text: str) -> str:
    """A docstring as Markdown."""
    return "\n\n".join(paragraph_in_markdown(part) for part in paragraphs(text))


def paragraphs(text: str) -> list[str]:
    """The parts between empty lines; neighbours that are both indented are one part."""
    parts: list[str] = []
    for part in re.split(r"\n\s*\n", text.strip("\n")):
        if parts and part.startswith("    ") and parts[-1].startswith("    "):
            parts[-1] += "\n\n" + part
        else:
            parts.append(part)
    return parts


def paragraph_in_markdown(part: str) -> str:
    inner = textwrap.dedent(part)
    if inner.startswith(">>>"):
        return indented_as(part, f"```pycon\n{inner}\n```")
    if part.startswith("    ") and is_python(inner):
        return f"```python\n{inner}\n```"
    return part if part.startswith("    ") else indexed(definitions(part) or part)


def indexed(text: str) -> str:
    """The same, where table[row][column] is no link of Markdown."""
    return re.sub(r"(`[^`]*`)|\]\[", lambda match: match[1] or r"]\[", text)


def indented_as(part: str, block: str) -> str:
    return textwrap.indent(block, part[: len(part) - len(part.lstrip())])


def is_python(code: str) -> bool:
    """Whether it is Python that does something; a formula or a table may parse, and does not."""
    try:
        body = ast.parse(code).body
    except SyntaxError:
        return False
    return any(
        isinstance(node, ast.ClassDef | ast.FunctionDef | ast.Try | ast.Import | ast.ImportFrom)
        for node in body
    )


def definitions(part: str) -> str | None:
    """A list of definitions of lines in two columns, where all lines are such or go on with the
    second column.
    """
    entries: list[tuple[str, str]] = []
    for line in part.splitlines():
        columns = COLUMNS.fullmatch(line)
        if columns:
            entries.append((columns[1], columns[2]))
        elif entries and line.startswith("    "):
            entries[-1] = (entries[-1][0], f"{entries[-1][1]} {line.strip()}")
        else:
            return None
    if len(entries) < 2:
        return None
    # An empty line between, else Markdown makes each a part of the one before.
    return "\n\n".join(f"`{name}`\n:   {meaning}" for name, meaning in entries)
