"""
State that a class, or its module, keeps while the crawl runs: each crawl process has its own.

What is named was changed while the crawl runs, is used elsewhere or later, and is neither a value that one
callback makes for itself before it uses it, nor something that is made once where it is not there yet.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from vscrapy.preflight.scan import Access, Kind, Name, Place
from vscrapy.preflight.source import Module
from vscrapy.preflight.subject import Method, Subject


@dataclass(frozen=True)
class State:
    """One attribute, or one name of a module, with state."""

    name: Name
    #: The method that changes it first.
    method: Method
    line: int
    #: It is counted, not collected.
    is_count: bool
    #: Something is decided by it.
    is_tested: bool
    #: It is emptied or set back while the crawl runs.
    is_reset: bool
    #: It is set once, by the first who needs it.
    is_first: bool
    #: It keeps results of work, to do it once.
    is_memo: bool
    #: It is only ever set to constants.
    is_flag: bool
    #: What runs at the end reads it.
    is_read_at_end: bool


def find_state(subject: Subject, *, read_outside: frozenset[str] = frozenset()) -> Iterator[State]:
    """
    Find the state of a class.

    Args:
        read_outside: Attributes that other classes read.
    """
    uses: dict[tuple[Name, Module | None], list[tuple[Method, Access]]] = {}
    for method in subject.methods:
        if method.name in subject.running | subject.ending:
            for access in method.scan.accesses:
                place = method.module if access.name.is_global else None
                uses.setdefault((access.name, place), []).append((method, access))
    made = {
        (access.name, access.value)
        for method in subject.methods
        if method.name in subject.making
        for access in method.scan.accesses
        if access.value
    }
    for (name, _), found in uses.items():
        # What is made anew as it was made at first, such as a browser, is no state.
        found = [use for use in found if (use[1].name, use[1].value) not in made]
        state = _judge(subject, name, found, is_read_outside=not name.is_global and name.name in read_outside)
        if state is not None:
            yield state


def find_start_state(subject: Subject) -> Iterator[State]:
    """Find what ``start()`` leaves on the spider for callbacks: it runs on one crawl process only."""
    elsewhere = subject.running | subject.ending
    own = subject.starting - elsewhere - subject.making
    made: dict[Name, tuple[Method, Access]] = {}
    for method in subject.methods:
        for access in method.scan.accesses if method.name in own else ():
            if access.is_reset and subject.has(access.name.name):
                continue  # set back to what it was at first, or nearly
            is_sure = not access.needs_container or subject.is_container(access.name, method.module)
            is_change = access.kind is not Kind.READ and is_sure and not access.name.is_global
            if is_change and not method.module.is_suppressed(access.line):
                made.setdefault(access.name, (method, access))
    for name, (method, access) in made.items():
        uses = [
            (user, use)
            for user in subject.methods
            if user.name in elsewhere
            for use in user.scan.accesses
            if use.name == name
        ]
        reads = [(user, use) for user, use in uses if use.kind is Kind.READ]
        if reads and not _is_scratch(subject, uses):
            is_read_at_end = any(user.name in subject.ending for user, _ in reads)
            yield State(
                name,
                method,
                access.line,
                is_count=False,
                is_tested=False,
                is_reset=False,
                is_first=False,
                is_memo=False,
                is_flag=False,
                is_read_at_end=is_read_at_end,
            )


def _judge(subject: Subject, name: Name, uses: list[tuple[Method, Access]], *, is_read_outside: bool) -> State | None:
    changes = [
        (method, access)
        for method, access in uses
        if access.kind is not Kind.READ
        and method.name in subject.running
        and not access.is_lazy
        and not (access.needs_container and not subject.is_container(name, method.module))
    ]
    named = [(method, access) for method, access in changes if not method.module.is_suppressed(access.line)]
    reads = [(method, access) for method, access in uses if access.kind is Kind.READ and not access.is_cleanup]
    if not named or not (is_read_outside or any(not access.is_own for _, access in reads)):
        return None
    if not is_read_outside and _is_scratch(subject, uses):
        return None
    method, access = min(named, key=lambda found: (str(found[0].module.path), found[1].line))
    return State(
        name,
        method,
        access.line,
        is_count=all(
            change.kind in (Kind.CHANGE, Kind.ASSIGN) and not change.needs_container for _, change in changes
        )
        and any(read.is_own for _, read in reads),
        is_tested=any(read.is_test for _, read in reads),
        is_reset=any(change.is_reset or change.is_clear for _, change in changes)
        and any(not (change.is_reset or change.is_clear) for _, change in changes),
        is_first=all(change.is_first for _, change in changes),
        is_memo=all(change.is_memo for _, change in changes),
        is_flag=all(change.is_reset for _, change in changes),
        is_read_at_end=any(method.name in subject.ending for method, _ in reads),
    )


def _is_scratch(subject: Subject, uses: list[tuple[Method, Access]]) -> bool:
    """Is each read, as far as can be seen, of a value that the same callback has made before?"""
    writes: dict[str, list[Place]] = {}
    for method, access in uses:
        if access.kind in (Kind.ASSIGN, Kind.KEY) and access.place:
            writes.setdefault(method.name, []).append(access.place)
    return all(
        _is_after(access.place, writes.get(method.name, ())) or _is_called_after(subject, method.name, writes, set())
        for method, access in uses
        if access.kind in (Kind.READ, Kind.CHANGE) and not access.is_cleanup
    )


def _is_called_after(subject: Subject, name: str, writes: dict[str, list[Place]], seen: set[str]) -> bool:
    """Is a method called only where the value has been made already?"""
    if name in subject.roots or name in subject.ending or name in seen:
        return False
    seen.add(name)
    callers = list(subject.callers(name))
    return bool(callers) and all(
        _is_after(place, writes.get(caller.name, ())) or _is_called_after(subject, caller.name, writes, seen)
        for caller, place in callers
    )


def _is_after(place: Place, writes: list[Place] | tuple[()]) -> bool:
    """Does a write stand before it, in a block that is around it or its own?"""
    for write in writes:
        block, index = write[-1]
        if any(around == block and at > index for around, at in place):
            return True
    return False
