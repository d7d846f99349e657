"""What a spider does that several crawl processes do otherwise."""

from __future__ import annotations

from collections.abc import Iterator

from vscrapy.preflight.finding import Finding, Where
from vscrapy.preflight.scan import Line
from vscrapy.preflight.sharing import check_sharing
from vscrapy.preflight.state import State, find_start_state, find_state
from vscrapy.preflight.subject import Method, Subject


def check_spider(subject: Subject, *, read_outside: frozenset[str], is_attached: bool) -> Iterator[Finding]:
    """
    Look at the spider's class and its own bases.

    Args:
        read_outside: Attributes of the spider that pipelines, middlewares and extensions read.
    """
    kept: set[str] = set()
    for state in find_state(subject, read_outside=read_outside):
        if not state.name.is_global:
            kept.add(state.name.name)
        yield _of_state(state)
    for state in find_start_state(subject):
        if state.name.name not in kept:
            yield _of_start_state(state)
    yield from check_sharing(subject)
    yield from _callbacks(subject)
    yield from _files(subject, is_attached=is_attached)
    yield from at_end(subject, is_attached=is_attached)


def _of_state(state: State) -> Finding:
    name, method = state.name.name, state.method
    if state.name.is_global:
        what, code = f"{method.owner}.{method.name}() changes {name}, a variable of the module", "state-in-module"
    else:
        what, code = f"{method.owner}.{method.name}() changes self.{name}", "state-on-self"
    why = "each crawl process has its own, which the others do not see"
    if state.is_read_at_end:
        why += "; what runs at the end, runs in each of them and sees its part"
    if state.is_count:
        do = "count in self.crawler.stats, which are added up, and hand page numbers on in cb_kwargs; or --workers 1"
    else:
        do = "hand it on in cb_kwargs, or collect items in a pipeline, which sees them all; or --workers 1"
    return Finding(code, Where(method.module.path, state.line), what, why, do)


def _of_start_state(state: State) -> Finding:
    name, method = state.name.name, state.method
    return Finding(
        "state-in-start",
        Where(method.module.path, state.line),
        f"{method.owner}.{method.name}() sets self.{name}, which is used after the start",
        "start() runs on one crawl process; on the others, self has what __init__() gave it",
        f"set self.{name} in __init__() or from_crawler(), or hand it on in cb_kwargs; or --workers 1",
    )


def _callbacks(subject: Subject) -> Iterator[Finding]:
    for method in subject.methods:
        for line in _not_suppressed(method, method.scan.callbacks):
            yield Finding(
                "local-callback",
                Where(method.module.path, line.line),
                f"{method.owner}.{method.name}() has {line.words}, as callback",
                "such a request cannot travel: it is done on the crawl process that made it, and is not spread",
                "use a method of the spider, with cb_kwargs",
            )


def _files(subject: Subject, *, is_attached: bool) -> Iterator[Finding]:
    for method in subject.methods:
        if method.name not in subject.making | subject.running:
            continue
        for line in _not_suppressed(method, method.scan.files):
            if is_attached and line.is_added:
                continue  # what several processes add comes together here
            yield Finding(
                "one-file",
                Where(method.module.path, line.line),
                f"{method.owner}.{method.name}() writes to {line.words}",
                "each crawl process writes one of its own; here, the later ones get .process-N in their names"
                if is_attached
                else "each crawl process writes one of its own on its worker, where it is removed",
                "yield items, and write them with -o, FEEDS or a pipeline"
                + ("; or open it with 'a'; or --workers 1" if is_attached else ""),
                is_void_alone=is_attached,
            )


def at_end(subject: Subject, *, is_attached: bool) -> Iterator[Finding]:
    """What it does beyond its process at the end of the crawl: as often as there are processes."""
    for method in subject.methods:
        if method.name not in subject.ending - subject.running:
            continue
        files = [line for line in _not_suppressed(method, method.scan.files) if not (is_attached and line.is_added)]
        effects = _not_suppressed(method, method.scan.effects)
        # One for each method is enough to know.
        for line in [*effects, *files][:1]:
            is_file = not effects
            why = "it runs at the end of each crawl process"
            if is_attached and is_file:
                why += "; here, the later files get .process-N in their names"
            yield Finding(
                "at-each-end",
                Where(method.module.path, line.line),
                f"{method.owner}.{method.name}() {'writes to' if is_file else 'calls'} {line.words}",
                why,
                "do it in close_spider() of a pipeline, which runs once, here, or after vscrapy has ended"
                if is_attached
                else "do it in close_spider() of a pipeline when the crawl is not sent with --detach",
            )


def _not_suppressed(method: Method, lines: list[Line]) -> list[Line]:
    return [line for line in lines if not method.module.is_suppressed(line.line)]
