"""Several processes that do one thing together: what ends one of them ends all."""

import json
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

MESSAGE_BYTES = 4096  # of what a process tells the others at once; of more, a power of two
LENGTH_BYTES = 8  # of these, for how long it is
MOST_CHARACTERS = 500  # of an error in it

# How JAX's errors begin that are of one process alone, such as a device without enough memory.
OF_ONE_PROCESS = ("RESOURCE_EXHAUSTED", "INVALID_ARGUMENT", "UNIMPLEMENTED")


class LostProcessError(RuntimeError):
    """A process that this one waits for is gone, or does not answer."""


class OtherProcessError(RuntimeError):
    """Another process could not go on, so that none does: the message says which, and why."""


@dataclass(frozen=True)
class Processes:
    """Those that do one thing together: all of the job, or this one alone."""

    are_several: bool

    @property
    def is_first(self) -> bool:
        """Whether this is the one that writes the files and prints."""
        return not self.are_several or jax.process_index() == 0

    def told(self, mine: Any) -> list[Any]:
        """What each process has to tell, of JSON's types, in their order. Each waits for all of
        them, however long that takes.
        """
        if not self.are_several:
            return [mine]
        text = json.dumps(mine).encode()
        try:
            texts = _exchanged(text)
        except Exception as error:
            raise _lost("start all of them again", error) from error
        return [json.loads(text) for text in texts]

    @contextmanager
    def together(self) -> Iterator[None]:
        """Work that each process does on its own. It ends when all have ended theirs: where one
        fails, it raises its error, and the others an OtherProcessError, so that none waits for it.
        """
        if not self.are_several:
            yield
            return
        mine = None
        try:
            yield
        except BaseException as error:
            mine = error
        errors = self.told(None if mine is None else _said_of(mine))
        if mine is not None:
            raise mine
        for number, said in enumerate(errors):
            if said is not None:
                raise OtherProcessError(f"process {number} of {len(errors)} ended all: {said}")

    @contextmanager
    def by_first(self, context: AbstractContextManager) -> Iterator[None]:
        """Within a context that the first process alone enters. Where that fails, none goes on."""
        with ExitStack() as stack:
            with self.together():
                if self.is_first:
                    stack.enter_context(context)
            yield

    def lost(self, error: BaseException, saved: int | None) -> LostProcessError | None:
        """What an error of JAX means among several processes, where it means that one is gone. What
        was computed since the checkpoint `saved` cannot be saved: that too takes all of them.
        """
        if not self.are_several or not _is_of_others(error):
            return None
        if saved is None:
            return _lost("give checkpoints=, to go on from", error)
        return _lost(f"start all of them with resume=True: they go on from step {saved}", error)


ALONE, ALL = Processes(False), Processes(True)


def processes_of(mesh: Mesh | None) -> Processes:
    """Those whose devices are in a mesh. ValueError for a mesh of several, but not all: what the
    processes tell each other goes to all of them.
    """
    members = set() if mesh is None else {device.process_index for device in mesh.devices.flat}
    if len(members) <= 1:
        return ALONE
    if len(members) < jax.process_count():
        raise ValueError(
            f"the mesh has devices of {len(members)} of {jax.process_count()} processes; give one"
            ' of all, such as mesh=jax.make_mesh((jax.device_count(),), ("data",))'
        )
    return ALL


def join_others() -> None:
    """Finds the other processes of this job, by `jax.distributed.initialize()`; before anything
    runs on a device. ValueError where none are found.
    """
    if jax.distributed.is_initialized():
        return
    # JAX would take note of a SIGTERM and do nothing; `fit` answers it, and ends all processes.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize()
    except (ValueError, jax.errors.JaxRuntimeError) as error:
        raise ValueError(
            f"the other processes of this job are not found ({_said_of(error)}): start all of them"
            " by srun or mpirun, in Kubernetes or on a TPU pod, or leave out --distributed"
        ) from None


def _exchanged(text: bytes) -> list[bytes]:
    """The texts of all processes, in their order: in one message where all are short, in a second
    where one is not.
    """
    message = len(text).to_bytes(LENGTH_BYTES) + text
    rows = _first_bytes(message, MESSAGE_BYTES)
    lengths = [int.from_bytes(row[:LENGTH_BYTES]) for row in rows]
    longest = LENGTH_BYTES + max(lengths)
    if longest > MESSAGE_BYTES:  # by powers of two, since each size is a program of its own
        rows = _first_bytes(message, 1 << (longest - 1).bit_length())
    return [
        row[LENGTH_BYTES : LENGTH_BYTES + length] for row, length in zip(rows, lengths, strict=True)
    ]


def _first_bytes(message: bytes, count: int) -> list[bytes]:
    """So many of each process's message, filled up with zeros."""
    row = np.frombuffer(message[:count].ljust(count, b"\0"), np.uint8)
    return [row.tobytes() for row in np.asarray(multihost_utils.process_allgather(row))]


def _lost(remedy: str, error: BaseException) -> LostProcessError:
    line = (str(error.__cause__ or error).splitlines() or [""])[0][:200]
    return LostProcessError(
        f"process {jax.process_index()} of {jax.process_count()} waits for another that is gone or"
        f" does not answer; {remedy} ({line})"
    )


def _said_of(error: BaseException) -> str:
    """In one line: what kind of error it is, and its message."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text if len(text) <= MOST_CHARACTERS else f"{text[:MOST_CHARACTERS]} ..."


def _is_of_others(error: BaseException) -> bool:
    """Whether another process is its cause: a collective operation raises a RuntimeError of JAX or,
    where its result is read, a ValueError.
    """
    if isinstance(error, LostProcessError):
        return True
    if isinstance(error, jax.errors.JaxRuntimeError):
        return not str(error).startswith(OF_ONE_PROCESS)
    return isinstance(error, ValueError) and "Gloo" in str(error)
