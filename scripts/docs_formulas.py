"""Formulas become MathML when the site is built: a browser needs no script for them, and no net.

arithmatex leaves \\(...\\) and \\[...\\] in the page, and latex2mathml converts them. What it does
not know, and what browsers draw otherwise than TeX, is put right here; a formula that cannot be
read is a warning, which ends a strict build.
"""

import html
import itertools
import logging
import re
import unicodedata
from xml.etree import ElementTree as ET

from latex2mathml.converter import convert

LOG = logging.getLogger("mkdocs.formulas")
FORMULA = re.compile(r'<(span|div) class="arithmatex">\s*\\[(\[](.*?)\\[)\]]\s*</\1>', re.DOTALL)
# What latex2mathml does not know, as what it knows.
REWRITTEN = (
    (r"(?<![a-zA-Z\\])(?<!rm\{)(?<!name\{)(?<!text\{)KL(?![a-zA-Z])", r"\\operatorname{KL}"),
    (r"\\begin\{(aligned|split|align)\}", r"\\begin{align*}"),
    (r"\\end\{(aligned|split|align)\}", r"\\end{align*}"),
    (r"\\operatorname\*\{arg\s*(?:\\[,;! ])?\s*(max|min)\}", r"\\operatorname{arg\1}"),
    (r"\\operatorname\*\{", r"\\operatorname{"),
    (r"\\(arg|argmax|argmin)(?![a-zA-Z])", r"\\operatorname{\1}"),
    (r"\\(mathbb|mathcal|mathrm|mathbf|mathsf) +([a-zA-Z])", r"\\\1{\2}"),
)
LIMITS = {"max", "min", "sup", "inf", "lim", "argmax", "argmin"}  # names with what is below them


ENVIRONMENTS = {"align*", "cases", "matrix", "pmatrix", "bmatrix", "vmatrix", "array"}
PARTS = {"mfrac": 2, "msub": 2, "msup": 2, "munder": 2, "mover": 2, "msubsup": 3, "munderover": 3}
MATHML = "http://www.w3.org/1998/Math/MathML"
ET.register_namespace("", MATHML)


def rendered(page: str, name: str) -> str:
    """The HTML of a page with every formula as MathML."""

    def mathml(match: re.Match) -> str:
        latex = html.unescape(match[2]).strip()
        try:
            return formula(latex, "inline" if match[1] == "span" else "block")
        except ValueError as error:
            LOG.warning(f"{name}: the formula {latex!r} cannot be read: {error}")
            return match[0]

    return FORMULA.sub(mathml, page)


def formula(latex: str, display: str) -> str:
    """The MathML of a formula. ValueError: it has a command that is not known."""
    rewritten = latex
    for pattern, replacement in REWRITTEN:
        rewritten = re.sub(pattern, replacement, rewritten)
    try:
        tree = ET.fromstring(convert(rewritten, display=display))  # noqa: S314 (it is our own)
    except Exception as error:  # whatever its parser meets
        raise ValueError(repr(error)) from error
    check(rewritten, tree)
    for element in list(tree.iter()):
        put_right(element)
    return ET.tostring(tree, encoding="unicode")


def check(latex: str, tree: ET.Element) -> None:
    """ValueError: a command that is not known, or a part that is not there. latex2mathml takes
    both.
    """
    for environment in re.findall(r"\\(?:begin|end)\{(.*?)\}", latex):
        if environment not in ENVIRONMENTS:
            raise ValueError(f"the environment {environment} is not known")
    braces = re.sub(r"\\[{}]", "", latex)
    if braces.count("{") != braces.count("}"):
        raise ValueError("a brace is open")
    for element in tree.iter():
        if (element.text or "").startswith("\\"):
            raise ValueError(f"{element.text} is not known")
        if len(element) != PARTS.get(kind(element), len(element)):
            raise ValueError(f"a part of {kind(element)} is not there")


def kind(element: ET.Element) -> str:
    return element.tag.rpartition("}")[2]


def put_right(element: ET.Element) -> None:
    """Writes an element, in place, as browsers draw what TeX draws."""
    variant = element.get("mathvariant", "normal")
    if variant != "normal":  # browsers have a letter for each
        element.text = "".join(styled(letter, variant) for letter in element.text or "")
        del element.attrib["mathvariant"]
    match kind(element):
        case "mo" if is_name(element) and element.text not in LIMITS:
            element.tag = f"{{{MATHML}}}mi"  # a name has no space before it
        case "mi" if element.text == "~":
            element.tag, element.text = f"{{{MATHML}}}mo", "\N{TILDE OPERATOR}"
        case "msub" if kind(element[0]) == "mo" and element[0].text in LIMITS:
            element.tag = f"{{{MATHML}}}munder"
            element[0].set("movablelimits", "true")
        case "mover" if kind(element[1]) == "mo":
            element.set("accent", "true")
        case "mtd":  # browsers know no columnalign, and a column of an equation has no gap
            side = element.get("columnalign", "center")
            gap = {"right": "padding-right: 0", "left": "padding-left: 0"}.get(side, "")
            element.set("style", f"text-align: {side}; {gap}")
    children = list(element) if kind(element) in ("math", "mrow", "mtd", "mstyle") else []
    for name, follower in reversed(list(itertools.pairwise(children))):
        if is_name(name) and kind(follower) in ("mi", "mn", "msub", "msup", "mfrac", "msubsup"):
            space = ET.Element(f"{{{MATHML}}}mspace", width="0.167em")
            element.insert(children.index(follower), space)


def is_name(element: ET.Element) -> bool:
    """Whether it is a word, such as log."""
    text = element.text or ""
    return kind(element) in ("mi", "mo") and text.isalpha() and text.isascii() and len(text) > 1


def styled(letter: str, variant: str) -> str:
    """The letter in a style of mathematics: 'a' in bold-italic is U+1D482."""
    name = unicodedata.name(letter).removeprefix("LATIN ").removeprefix("GREEK ")
    style = variant.upper().replace("BOLD-", "BOLD ")
    try:
        return unicodedata.lookup(f"MATHEMATICAL {style} {name.replace('LETTER ', '')}")
    except KeyError:
        return letter
