"""What pipelines, middlewares and extensions of the project do that several crawl processes do otherwise."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from vscrapy.preflight.finding import Finding, Where
from vscrapy.preflight.spiders import at_end
from vscrapy.preflight.state import State, find_state
from vscrapy.preflight.subject import Subject


def check_pipeline(subject: Subject, *, is_at_home: bool, spider_state: frozenset[str]) -> Iterator[Finding]:
    """
    Look at a pipeline.

    Args:
        is_at_home: It runs once, at the sender; there its own state and files are right.
        spider_state: Attributes of the spider that its callbacks change.
    """
    if is_at_home:
        yield from _away_from_crawl(subject, spider_state)
        return
    raises = any(method.scan.raises for method in subject.methods if method.name in subject.running)
    for state in find_state(subject):
        is_used = (state.is_tested and raises and not state.is_flag) or state.is_count
        if state.is_read_at_end or (is_used and not _is_harmless(state)):
            yield _of_state(
                state, "pipeline-state", "each crawl process has this pipeline, which sees its own items only"
            )
    for method in subject.methods:
        for line in method.scan.files:
            if not method.module.is_suppressed(line.line):
                yield Finding(
                    "pipeline-file",
                    Where(method.module.path, line.line),
                    f"{method.owner}.{method.name}() writes to {line.words}",
                    "this pipeline runs in each crawl process, on a worker: each writes a file of its own there",
                    'let pipelines run at home (VSCRAPY_PIPELINES = "home", not --detach), or write to a server',
                    is_void_alone=False,
                )


def _away_from_crawl(subject: Subject, spider_state: frozenset[str]) -> Iterator[Finding]:
    for method in subject.methods:
        for line in method.scan.schedules:
            if not method.module.is_suppressed(line.line):
                yield Finding(
                    "pipeline-requests",
                    Where(method.module.path, line.line),
                    f"{method.owner}.{method.name}() schedules a request: {line.words}",
                    "pipelines run here, at home, where nothing is crawled",
                    'let them run in the crawl processes: VSCRAPY_PIPELINES = "worker"',
                    is_void_alone=False,
                )
        for name, line_number in method.scan.of_spider.items():
            if name in spider_state and not method.module.is_suppressed(line_number):
                yield Finding(
                    "pipeline-spider",
                    Where(method.module.path, line_number),
                    f"{method.owner}.{method.name}() uses spider.{name}, which callbacks change",
                    "pipelines run here, at home, with a spider of their own, whose callbacks never run",
                    'put it into the items, or let pipelines run with the spider: VSCRAPY_PIPELINES = "worker"',
                    is_void_alone=False,
                )


def check_component(subject: Subject, *, is_attached: bool) -> Iterator[Finding]:
    """Look at a middleware or an extension: what it counts and decides by, and what it does at the end."""
    is_told_at_end = False
    for state in find_state(subject):
        is_used = state.is_tested and not state.is_flag and not _is_harmless(state)
        if state.is_read_at_end or is_used:
            is_told_at_end |= state.is_read_at_end
            yield _of_state(state, "component-state", "each crawl process has its own, which counts for itself")
    if not is_told_at_end:
        yield from at_end(subject, is_attached=is_attached)


def _is_harmless(state: State) -> bool:
    """Is it a buffer that is emptied, a round that begins anew, or work that is done once?"""
    return state.is_reset or state.is_first or state.is_memo


def _of_state(state: State, code: str, why: str) -> Finding:
    what = state.name.name if state.name.is_global else f"self.{state.name.name}"
    method = state.method
    do = (
        'let pipelines run at home (VSCRAPY_PIPELINES = "home", not --detach); or --workers 1'
        if code == "pipeline-state"
        else "divide its limits by the number of processes, or keep it on a server; or --workers 1"
    )
    return Finding(
        code, Where(method.module.path, state.line), f"{method.owner}.{method.name}() changes {what}", why, do
    )


def spider_attributes(subjects: Sequence[Subject]) -> frozenset[str]:
    """The attributes of the spider that some classes use."""
    return frozenset(name for subject in subjects for method in subject.methods for name in method.scan.of_spider)
