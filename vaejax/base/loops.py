"""A loop whose length the compiler does not know.

Before each turn of such a loop a GPU asks the host whether there is one more, and stands still
until it hears. Of a loop of known length it asks nothing. So the turns are run in blocks of a known
length, and those that are left over one by one: a GPU waits once a block.

Each of the two loops has a copy of the body in the program, which takes half as long again to
compile on a CPU. There a question costs nothing, so there is one loop.
"""

from collections.abc import Callable
from typing import TypeVar

import jax

Carry = TypeVar("Carry")
ON_ACCELERATORS = 32  # turns to a block: the wait, some 20 us, is then below 1 us a turn


def block_length() -> int:
    """The number of turns in a block, on the platform of this process; 1 is one loop alone."""
    return 1 if jax.default_backend() == "cpu" else ON_ACCELERATORS


def repeat(
    count: jax.Array | int, body: Callable[[jax.Array, Carry], Carry], carry: Carry, block: int
) -> Carry:
    """body(count - 1, ... body(1, body(0, carry))), in blocks of so many turns."""
    if block == 1:
        return jax.lax.fori_loop(0, count, body, carry)

    def turns(number, carry):
        return jax.lax.fori_loop(0, block, lambda i, carry: body(number * block + i, carry), carry)

    num_blocks = count // block
    carry = jax.lax.fori_loop(0, num_blocks, turns, carry)
    return jax.lax.fori_loop(num_blocks * block, count, body, carry)
