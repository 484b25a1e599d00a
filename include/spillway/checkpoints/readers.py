"""Who reads a task's checkpoints now, so that none is removed under them.

A reader leaves a mark below `readers/` before it looks which checkpoints there are. Whoever removes looks for marks before
it looks which checkpoints count, removes manifests first, and looks again before it removes parts. So, whatever the order
of events, either the mark is seen in time, or the reader looks late enough to find what has been kept:

```
prune    marks?  ·  what counts?  ·  remove manifests  ·  marks?  ·  remove parts
reader   mark  ·  what counts?  ·  read  ·  (a lease: claim)  ·  take the mark away
```

A reader that dies leaves its mark. A lease's is over once it, or a newer one, has begun, and so is what it still has to
read of the checkpoint it began from once the next one has; anybody else's is over at the instant it names.
"""

from __future__ import annotations

import logging
import uuid
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from spillway.checkpoints.layout import CheckpointName, claimed_tokens
from spillway.errors import SpecError, StoreError
from spillway.model.codec import decode_json, encode_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from spillway.checkpoints.find import Found
    from spillway.checkpoints.store import ObjectStore

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """Somebody reads, or is about to.

    Attributes:
        by: Who, for people.
        token: The lease whose beginning ends it, if no newer one's does; None for anybody else.
        until: When it is over in any case; None for a lease.
        checkpoint: The one that is read; None for any.
    """

    by: str
    token: int | None = None
    until: datetime | None = None
    checkpoint: str | None = None

    def holds(self, name: CheckpointName) -> bool:
        """Whether `name` may not be removed."""
        return self.checkpoint is None or self.checkpoint == str(name)


@contextmanager
def reading(
    store: ObjectStore,
    prefix: str,
    *,
    by: str,
    until: datetime,
    checkpoint: CheckpointName | None = None,
) -> Iterator[None]:
    """Keep checkpoints where they are while they are read, until `until` at the latest; all of them or just one.

    For an export, an evaluation, a copy: look inside the block for what to read. One that was removed before the block
    began is found missing there; one that is found stays until its end.

    Raises:
        StoreError: The mark could not be written; nothing is held.
    """
    name = str(checkpoint) if checkpoint is not None else None
    with _marked(store, prefix, Mark(by=by, until=until, checkpoint=name)):
        yield


@contextmanager
def beginning(store: ObjectStore, prefix: str, token: int) -> Iterator[None]:
    """Keep every checkpoint where it is while lease `token` looks for the one to begin from, until it has claimed."""
    with _marked(store, prefix, Mark(by=f"lease {token}", token=token)):
        yield


def hold(
    store: ObjectStore, prefix: str, found: Found, *, token: int, gang: bool
) -> Callable[[], None]:
    """Keep a checkpoint with files, which are read later, until what is returned is called or lease `token` is replaced.

    Only the latter ends it for a `gang`, each member of which reads them.

    Raises:
        StoreError: The mark could not be written; nothing is held.
    """
    if not found.parts.is_read_later:
        return nothing
    mark = Mark(by=f"lease {token}", token=token + 1, checkpoint=str(found.name))
    path = _place(store, prefix, mark)

    def let_go() -> None:
        with suppress(StoreError):  # the next lease ends it in any case
            store.delete(path)

    return nothing if gang else let_go


def nothing() -> None:
    """Do nothing: what is called when nothing is held."""


def marks(store: ObjectStore, prefix: str, *, now: datetime | None) -> list[Mark]:
    """Return the marks that are not over; without `now` none is over by time."""
    # Marks before claims: a lease takes its mark away after its claim is written, so one of the two is seen.
    found = [_read(store, path) for path in store.list(f"{prefix}/readers")]
    newest = max(claimed_tokens(store, prefix), default=-1)
    return [mark for mark in found if mark is not None and not _is_over(mark, newest, now)]


@contextmanager
def _marked(store: ObjectStore, prefix: str, mark: Mark) -> Iterator[None]:
    path = _place(store, prefix, mark)
    try:
        yield
    finally:
        store.delete(path)


def _place(store: ObjectStore, prefix: str, mark: Mark) -> str:
    path = f"{prefix}/readers/{uuid.uuid4().hex}.json"
    store.put(path, encode_json(mark))
    return path


def _is_over(mark: Mark, newest: int, now: datetime | None) -> bool:
    if mark.token is not None:
        return mark.token <= newest
    return mark.until is not None and now is not None and mark.until <= now


def _read(store: ObjectStore, path: str) -> Mark | None:
    data = store.get(path)
    if data is None:
        return None  # taken away since it was listed
    try:
        return decode_json(data, Mark)
    except SpecError as error:
        log.warning("%s is no reader's mark, so nothing is removed; remove it: %s", path, error)
        return Mark(by=f"the unreadable {path}")
