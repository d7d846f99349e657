"""
A class of the project with its own bases: its methods, and when each of them runs.

A method runs as the object is made, in ``start()`` (on one crawl process), while the crawl runs, or at its end;
a helper runs when those run that call it.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from vscrapy.preflight.scan import Function, Kind, Name, Place, Scan, scan
from vscrapy.preflight.source import Module, Part, assigned, is_container

#: As the object is made; in each crawl process, and of spiders and pipelines at home, too.
_MAKING: Final = frozenset(
    [
        "__init__",
        "__new__",
        "__init_subclass__",
        "from_crawler",
        "from_settings",
        "update_settings",
        "_set_crawler",
        "open_spider",
    ]
)
_START: Final = frozenset({"start", "start_requests"})
_END: Final = frozenset({"closed", "close_spider", "close"})
_MAKING_SIGNALS: Final = frozenset({"spider_opened", "engine_started"})
_END_SIGNALS: Final = frozenset({"spider_closed", "engine_stopped"})
#: Methods that Scrapy calls by their names while the crawl runs.
_HOOKS: Final = frozenset(
    [
        "parse",
        "_parse",
        "parse_start_url",
        "process_results",
        "adapt_response",
        "parse_node",
        "parse_nodes",
        "parse_row",
        "parse_rows",
        "sitemap_filter",
        "process_item",
        "process_request",
        "process_response",
        "process_exception",
        "process_spider_input",
        "process_spider_output",
        "process_spider_output_async",
        "process_spider_exception",
    ]
)
#: What the second parameter of a callback is called; nobody has to name a method to make it one.
_CALLBACK_PARAMETERS: Final = frozenset({"response", "failure"})


@dataclass(frozen=True)
class Method:
    """One method, as one class has it."""

    owner: str
    name: str
    module: Module
    node: Function
    scan: Scan


class Subject:
    """
    One class.

    Args:
        parts: The class and its own bases, in the order of their methods.
        cls: The class itself, if it was imported: it knows its attributes that installed bases make.
    """

    def __init__(self, parts: Collection[Part], cls: type | None = None) -> None:
        self.parts = list(parts)
        self._attributes: dict[str, Any] = {}
        for base in reversed(cls.__mro__ if cls is not None else ()):
            self._attributes.update(vars(base))
        defined = [
            (part, [child for child in _statements(part.node.body) if isinstance(child, Function)])
            for part in self.parts
        ]
        names = frozenset(function.name for _, functions in defined for function in functions)
        classes = [part.node.name for part in self.parts]
        self.methods: list[Method] = []
        hidden: set[str] = set()
        for part, functions in defined:
            made = [
                Method(
                    part.node.name, function.name, part.module, function, scan(function, part.module, classes, names)
                )
                for function in functions
                if function.name not in hidden
            ]
            self.methods.extend(made)
            extended = {name for method in made for name in method.scan.supers}
            hidden |= {method.name for method in made} - extended
        self._by_name: dict[str, list[Method]] = {}
        for method in self.methods:
            self._by_name.setdefault(method.name, []).append(method)

    # When methods run.

    @cached_property
    def making(self) -> frozenset[str]:
        """Run as the object is made."""
        return self._reached(_MAKING | self._connected(_MAKING_SIGNALS))

    @cached_property
    def starting(self) -> frozenset[str]:
        """Run in ``start()``: on one crawl process."""
        return self._reached(_START)

    @cached_property
    def ending(self) -> frozenset[str]:
        """Run at the end."""
        return self._reached(self._ends)

    @cached_property
    def running(self) -> frozenset[str]:
        """Run while the crawl runs: callbacks, what Scrapy calls, handlers of signals, and what those call."""
        return self._reached(self.roots)

    @cached_property
    def roots(self) -> frozenset[str]:
        """Those of them that others call than the class itself."""
        ends = self._ends | _MAKING | _START | self._connected(_MAKING_SIGNALS)
        named = self._strings | {name for method in self.methods for name in method.scan.references}
        called = {name for method in self.methods for name, _ in method.scan.calls}
        properties = {method.name for method in self.methods if _is_property(method.node)}
        found = {name for name in self._by_name if name in _HOOKS or name in named - properties}
        found |= self._connected(None)
        found |= {
            method.name
            for method in self.methods
            if method.name not in called and _parameters(method.node) & _CALLBACK_PARAMETERS
        }
        return frozenset(found & set(self._by_name) - ends)

    @cached_property
    def _ends(self) -> frozenset[str]:
        return _END | self._connected(_END_SIGNALS)

    def _connected(self, signals: Collection[str] | None) -> frozenset[str]:
        """Methods that are connected to one of some signals; None: to any other."""
        others = _MAKING_SIGNALS | _END_SIGNALS
        return frozenset(
            name
            for method in self.methods
            for name, signal in method.scan.connected.items()
            if (signal not in others if signals is None else signal in signals)
        )

    def _reached(self, names: Iterable[str]) -> frozenset[str]:
        """The methods of these names, and those that they call."""
        found: set[str] = set()
        left = [name for name in names if name in self._by_name]
        while left:
            name = left.pop()
            if name not in found:
                found.add(name)
                left.extend(
                    called
                    for method in self._by_name[name]
                    for called, _ in method.scan.calls
                    if called in self._by_name
                    # A method that is only handed on is called by others; a property's name is its call.
                    and (called not in method.scan.references or self._is_property(called))
                )
        return frozenset(found)

    def _is_property(self, name: str) -> bool:
        return any(_is_property(method.node) for method in self._by_name[name])

    def callers(self, name: str) -> Iterator[tuple[Method, Place]]:
        """Who calls a method, and where in it."""
        for method in self.methods:
            for called, place in method.scan.calls:
                if called == name:
                    yield method, place

    # What attributes are.

    @cached_property
    def _strings(self) -> frozenset[str]:
        """Texts in the class's body that may name a method, as in ``Rule(callback="parse_item")``."""
        return frozenset(
            node.value
            for part in self.parts
            for statement in _statements(part.node.body)
            if not isinstance(statement, Function)
            for node in ast.walk(statement)
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in self._by_name
        )

    @cached_property
    def containers(self) -> frozenset[str]:
        """Attributes that are surely lists, sets, dictionaries or the like."""
        found: set[str] = set()
        for part in self.parts:
            for statement in _statements(part.node.body):
                found.update(name for name, value in assigned(statement) if value and is_container(value))
        for method in self.methods:
            found |= method.scan.containers
        return frozenset(found)

    def has(self, name: str) -> bool:
        """Does the class, or its making, give an attribute a value?"""
        return (
            name in self._attributes
            or any(
                name == each
                for part in self.parts
                for node in _statements(part.node.body)
                for each, _ in assigned(node)
            )
            or any(
                access.name == Name(name) and access.kind is Kind.ASSIGN
                for method in self.methods
                if method.name in self.making
                for access in method.scan.accesses
            )
        )

    def is_container(self, name: Name, module: Module) -> bool:
        """Is an attribute, or a name of a module, surely one of those?"""
        if name.is_global:
            return name.name in module.containers
        return name.name in self.containers or isinstance(self._attributes.get(name.name), list | set | dict)


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements of a class; those below an ``if`` or ``try``, too."""
    for node in body:
        if isinstance(node, ast.If | ast.Try):
            yield from _statements([*node.body, *node.orelse])
        else:
            yield node


def _parameters(function: Function) -> set[str]:
    return {argument.arg for argument in (*function.args.posonlyargs, *function.args.args)}


def _is_property(function: Function) -> bool:
    return any("property" in ast.unparse(decorator) for decorator in function.decorator_list)
