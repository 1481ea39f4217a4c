"""The map of the house, from the first sentence of every module. Prints docs/architecture.md.

    python scripts/architecture.py > docs/architecture.md

A test holds the page against the code.
"""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

HEAD = """# The house

One picture:

    data ──> model ──> bound ──> estimator ──> objective ──> fit ──> evaluate
                                     └───────────> gradient variance

A **model** is three pure functions of one example. A **bound** turns K log-weights into one number
in nats. An **estimator** is a function whose value is a bound and whose gradient is the estimator.
An **objective** is what training maximises, of a batch. `jax.vmap` makes batches, samples and
seeds; `jax.jit` is applied once, at the edge. Everything else is a component, swapped as a value.

What one part may ask of another is declared in a base class, in the `base.py` of its wing, whose
docstring is the recipe for one of your own:

| contract | what the library reads of it |
|---|---|
| `Distribution` | `reparameterised`, `sample`, `log_prob`, `mean`, `states`, `from_uniform` |
| `Prior`, `Conditional` | `support`, `init`, the call |
| `Model` | `support`, `latent_support`, `init`, `p_z`, `p_x_given_z`, `posterior` |
| `Estimator` | the call, `terms`, `schedules`, `init` |
| `Objective` | the call, `model`, `schedules`, `support`, `bound` |
| `Callback` | `start`, the call, `finish` |
| `Source` | `len`, rows |

A user's density, model or objective comes in through one door each (`as_distribution`,
`posterior_of` and its kin, `terms_of`), where it is checked as ours are.

## The wings

Each imports those above it alone; `tests/test_house.py` reads the imports.
"""


def first_sentence(path: Path) -> str:
    """Of a module's docstring."""
    docstring = ast.get_docstring(ast.parse(path.read_text())) or ""
    paragraph = " ".join(docstring.split("\n\n")[0].split())
    return re.split(r"(?<=\w)\.(?= [A-Z`]|$)", paragraph)[0].rstrip(".:") + "."


def wings() -> list[str]:
    """The wings in their order, as the test of imports has it."""
    tree = ast.parse((ROOT / "tests" / "test_house.py").read_text())
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "WINGS":
            return list(ast.literal_eval(node.value))
    raise ValueError("tests/test_house.py has no WINGS")


def section(wing: str) -> list[str]:
    """The heading of a wing, its sentence, and a line for each module."""
    folder = ROOT / "vaejax" / wing
    if not folder.is_dir():
        path = folder.with_suffix(".py")
        return [f"### {path.name}", "", first_sentence(path), ""]
    lines = [f"### {wing}/", "", first_sentence(folder / "__init__.py"), ""]
    for path in sorted(folder.rglob("*.py"), key=lambda path: (path.name != "base.py", path)):
        if path.name != "__init__.py":
            lines.append(f"- `{path.relative_to(folder)}`: {first_sentence(path)}")
    return [*lines, ""]


def document() -> str:
    return HEAD + "\n" + "\n".join(line for wing in wings() for line in section(wing))


if __name__ == "__main__":
    print(document(), end="")
