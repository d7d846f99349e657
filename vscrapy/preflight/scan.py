"""
One pass over one method: what it reads and changes on its object and in its module, and whom it calls.

Nothing is judged here. What is changed is noted only where it is sure: a list, set or dictionary that the class
or module makes itself, or an assignment.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Final, TypeAlias

from vscrapy.preflight.source import Module, assigned, dotted, is_container, tail

Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef
#: The statement, in each block around it: which block, and the how manieth there.
Place: TypeAlias = tuple[tuple[int, int], ...]

#: Methods of lists, sets, dictionaries and deques that change them; those that give something of them, too.
CHANGES: Final = frozenset(
    [
        "append",
        "appendleft",
        "extend",
        "extendleft",
        "insert",
        "add",
        "update",
        "remove",
        "discard",
        "clear",
        "sort",
        "reverse",
        "subtract",
        "difference_update",
        "intersection_update",
        "symmetric_difference_update",
    ]
)
_CHANGES_AND_READS: Final = frozenset({"pop", "popleft", "popitem", "setdefault"})
#: Methods that end what an object is for.
_CLEANUP: Final = frozenset({"close", "quit", "terminate", "kill", "cancel", "shutdown", "disconnect", "release"})
#: What makes a request, and takes a callback in the second place or by its name.
_MAKERS: Final = frozenset({"follow", "follow_all", "from_response", "from_curl"})
#: Calls that build a file's name of what is the same in each process.
_NAMING: Final = frozenset({"join", "format", "Path", "str", "abspath", "dirname", "resolve", "expanduser", "get"})
_OPENERS: Final = frozenset({"open", "io.open", "codecs.open", "gzip.open", "bz2.open", "lzma.open"})
_WRITERS: Final = frozenset({"write_text", "write_bytes", "to_csv", "to_json", "to_excel", "to_parquet"})
#: What reaches the world beyond this process.
_EFFECTS: Final = frozenset(
    [
        "requests.post",
        "requests.put",
        "requests.get",
        "requests.patch",
        "requests.delete",
        "requests.request",
        "httpx.post",
        "httpx.get",
        "urlopen",
        "urllib.request.urlopen",
        "smtplib.SMTP",
        "smtplib.SMTP_SSL",
        "MailSender",
        "os.system",
        "subprocess.run",
        "subprocess.call",
        "subprocess.check_call",
        "subprocess.check_output",
        "subprocess.Popen",
    ]
)


class Kind(StrEnum):
    """What is done to an attribute, or to a name of the module."""

    #: It gets a new value.
    ASSIGN = "assign"
    #: A fixed key of it gets a new value.
    KEY = "key"
    #: Any other change, which depends on what it was.
    CHANGE = "change"
    READ = "read"


@dataclass(frozen=True, slots=True)
class Name:
    """An attribute of the object, or a name of the module."""

    name: str
    is_global: bool = False


@dataclass(frozen=True, slots=True)
class Access:
    """One place that reads or changes it."""

    name: Name
    kind: Kind
    line: int
    place: Place
    #: A change that is one only if it is a list, set, dictionary or the like.
    needs_container: bool = False
    #: A read that is for nothing but a change of the same.
    is_own: bool = False
    #: A read that is compared with something; whether it is empty, or there, does not count.
    is_test: bool = False
    #: An assignment of what is made once, when it is not there yet, of nothing that differs between processes.
    is_lazy: bool = False
    #: A read to close it, or what is in it.
    is_cleanup: bool = False
    #: The text of a value that comes of nothing but what the object knows.
    value: str = ""
    #: An assignment where it is not there yet, of what may differ: the first response decides, or the first item.
    is_first: bool = False
    #: A key is set where it is not there yet: the result of some work, kept to do it once.
    is_memo: bool = False
    #: An assignment of a constant, or an empty list, set or dictionary.
    is_reset: bool = False
    #: A change that empties it.
    is_clear: bool = False


@dataclass(frozen=True, slots=True)
class Line:
    """Something that stands in a line, with its words."""

    line: int
    words: str
    #: Of a file: it is only added to (opened with ``"a"``).
    is_added: bool = False


@dataclass
class Scan:
    """What a method does."""

    accesses: list[Access] = field(default_factory=list)
    #: Methods of the object that it calls, and where.
    calls: list[tuple[str, Place]] = field(default_factory=list)
    #: Methods of the object that it hands on, without calling them, or names in a text.
    references: set[str] = field(default_factory=set)
    #: Methods that it overrides and calls.
    supers: set[str] = field(default_factory=set)
    #: Methods that it connects to a signal, with the signal's name.
    connected: dict[str, str] = field(default_factory=dict)
    #: Callbacks of requests that are no methods: the words are what they are.
    callbacks: list[Line] = field(default_factory=list)
    #: Files that it opens for writing under a name that is the same in each process: the words are the name.
    files: list[Line] = field(default_factory=list)
    #: What it does beyond this process.
    effects: list[Line] = field(default_factory=list)
    #: Calls that schedule a request.
    schedules: list[Line] = field(default_factory=list)
    #: Attributes that it makes lists, sets, dictionaries or the like.
    containers: set[str] = field(default_factory=set)
    #: It raises something.
    raises: bool = False
    #: Attributes of the spider that it reads or changes, in a class that is none.
    of_spider: dict[str, int] = field(default_factory=dict)


def scan(function: Function, module: Module, classes: Iterable[str], methods: frozenset[str]) -> Scan:
    """
    Look at one method.

    Args:
        classes: Names of its class and the bases, through which class attributes are reached.
        methods: The names of all their methods.

    Returns:
        Nothing found, for a method with an expression that is too deep (a sum of a thousand parts).
    """
    try:
        return _Scanner(function, module, frozenset(classes), methods).run()
    except RecursionError:
        return Scan()


class _Scanner:
    def __init__(self, function: Function, module: Module, classes: frozenset[str], methods: frozenset[str]) -> None:
        self._function = function
        self._module = module
        self._methods = methods
        self._found = Scan()
        arguments = [*function.args.posonlyargs, *function.args.args]
        decorators = {tail(decorator) for decorator in function.decorator_list}
        own = {arguments[0].arg} if arguments and "staticmethod" not in decorators else set()
        #: Names that stand for the object or its class.
        self._receivers = classes | own
        declared: set[str] = set()
        stored: set[str] = set()
        for node in ast.walk(function):  # once for all that needs no order
            if isinstance(node, ast.Name):
                if isinstance(node.ctx, ast.Store):
                    stored.add(node.id)
            elif isinstance(node, ast.Constant):
                if isinstance(node.value, str) and node.value in methods:
                    self._found.references.add(node.value)
            elif isinstance(node, ast.Global):
                declared.update(node.names)
            elif isinstance(node, ast.Assign | ast.AnnAssign) and node.value and is_container(node.value):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                self._found.containers.update(each.attr for each in targets if isinstance(each, ast.Attribute))
        self._declared = declared
        self._parameters = {argument.arg for argument in arguments} | {
            argument.arg
            for argument in (*function.args.kwonlyargs, function.args.vararg, function.args.kwarg)
            if argument is not None
        }
        self._locals = (self._parameters | stored) - declared

    def run(self) -> Scan:
        self._block(self._function.body, (), ())
        return self._found

    # Statements.

    def _block(self, body: list[ast.stmt], place: Place, guards: tuple[ast.expr, ...]) -> None:
        for index, node in enumerate(body):
            self._statement(node, (*place, (id(body), index)), guards)
            if isinstance(node, ast.If) and isinstance(node.body[-1], ast.Return | ast.Raise | ast.Continue):
                guards = (*guards, node.test)

    def _statement(self, node: ast.stmt, place: Place, guards: tuple[ast.expr, ...]) -> None:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            self._block(node.body, (), ())  # runs later, or never
        elif isinstance(node, ast.If | ast.While):
            self._expression(node.test, place)
            self._block(node.body, place, (*guards, node.test))
            self._block(node.orelse, place, (*guards, node.test))
        elif isinstance(node, ast.Assign):
            self._assignment(node.targets, node.value, place, guards)
        elif isinstance(node, ast.AnnAssign):
            if node.value is not None:
                self._assignment([node.target], node.value, place, guards)
        elif isinstance(node, ast.AugAssign):
            self._augment(node, place)
        elif isinstance(node, ast.Expr):
            self._expression(node.value, place, is_used=False)
        elif isinstance(node, ast.For) and _is_cleaning(node):
            self._cleanup(node.iter, place)
            self._block(node.body, place, guards)
        else:
            self._found.raises |= isinstance(node, ast.Raise)
            self._others(node, place, guards)

    def _others(self, node: ast.AST, place: Place, guards: tuple[ast.expr, ...]) -> None:
        """Go on into whatever has no rule of its own: loops, ``with``, ``try``, ``match``, ``return`` ..."""
        for _, value in ast.iter_fields(node):
            if isinstance(value, list) and value and isinstance(value[0], ast.stmt):
                self._block(value, place, guards)
                continue
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.expr):
                    self._expression(child, place)
                elif isinstance(child, ast.AST):
                    self._others(child, place, guards)

    def _assignment(
        self, targets: list[ast.expr], value: ast.expr, place: Place, guards: tuple[ast.expr, ...]
    ) -> None:
        own = {name for target in targets if (name := self._root(target)) is not None}
        self._expression(value, place, own=frozenset(own))
        for target in targets:
            name = self._direct(target)
            if name is not None and not (name.is_global and name.name not in self._declared):
                is_reset = isinstance(value, ast.Constant) or _is_empty(value)
                is_first = not is_reset and any(self._asks_whether_set(guard, name) for guard in guards)
                is_lazy = is_first and not _names(value) & self._tainted
                text = "" if is_reset or _names(value) & self._tainted else ast.unparse(value)
                self._add(
                    Access(
                        name,
                        Kind.ASSIGN,
                        target.lineno,
                        place,
                        is_lazy=is_lazy,
                        is_first=is_first,
                        is_reset=is_reset,
                        value=text,
                    )
                )
            elif isinstance(target, ast.Subscript) and (key := self._direct(target.value)) is not None:
                kind = Kind.KEY if isinstance(target.slice, ast.Constant) else Kind.CHANGE
                is_memo = not isinstance(value, ast.Constant) and any(
                    self._asks_whether_in(guard, key) for guard in guards
                )
                self._add(Access(key, kind, target.lineno, place, needs_container=True, is_memo=is_memo))
                self._expression(target.slice, place)
            else:
                self._expression(target, place)

    def _augment(self, node: ast.AugAssign, place: Place) -> None:
        name = self._direct(node.target)
        root = self._root(node.target)
        self._expression(node.value, place, own=frozenset({root} if root is not None else ()))
        if name is not None and not (name.is_global and name.name not in self._declared):
            self._add(Access(name, Kind.CHANGE, node.lineno, place))
            self._add(Access(name, Kind.READ, node.lineno, place, is_own=True))
        elif root is not None and isinstance(node.target, ast.Subscript):
            self._add(Access(root, Kind.CHANGE, node.lineno, place, needs_container=True))
            self._add(Access(root, Kind.READ, node.lineno, place, is_own=True))
            self._expression(node.target.slice, place)
        else:
            self._expression(node.target, place)

    # Expressions.

    def _expression(
        self,
        node: ast.AST,
        place: Place,
        *,
        is_test: bool = False,
        is_used: bool = True,
        own: frozenset[Name] = frozenset(),
    ) -> None:
        if isinstance(node, ast.Call):
            self._call(node, place, is_test=is_test, is_used=is_used, own=own)
            return
        if isinstance(node, ast.Lambda):
            self._expression(node.body, ())
            return
        if isinstance(node, ast.Compare):
            is_test = is_test or not _is_with_none(node)
        name = self._direct(node)
        if name is not None and isinstance(node, ast.Attribute | ast.Name):
            self._direct_access(name, node, place, is_test=is_test, own=own)
            return
        if isinstance(node, ast.Subscript) and not isinstance(node.ctx, ast.Load):
            root = self._root(node)
            if root is not None:
                self._add(Access(root, Kind.CHANGE, node.lineno, place, needs_container=True))
                self._expression(node.slice, place)
                return
        if isinstance(node, ast.Attribute):
            self._note_spider(node)
        for child in ast.iter_child_nodes(node):
            self._expression(child, place, is_test=is_test, own=own)

    def _direct_access(
        self, name: Name, node: ast.Attribute | ast.Name, place: Place, *, is_test: bool, own: frozenset[Name]
    ) -> None:
        if not name.is_global and name.name in self._methods:
            self._found.references.add(name.name)
            self._found.calls.append((name.name, place))  # it may be a property
        elif isinstance(node.ctx, ast.Load):
            self._add(Access(name, Kind.READ, node.lineno, place, is_test=is_test, is_own=name in own))
        elif not name.is_global or name.name in self._declared:
            kind = Kind.ASSIGN if isinstance(node.ctx, ast.Store) else Kind.CHANGE
            self._add(Access(name, kind, node.lineno, place))

    def _call(self, node: ast.Call, place: Place, *, is_test: bool, is_used: bool, own: frozenset[Name]) -> None:
        self._note_callbacks(node)
        self._note_file(node)
        self._note_effects(node)
        self._note_signal(node)
        function = node.func
        if isinstance(function, ast.Attribute):
            base = function.value
            name = self._direct(function)
            root = self._root(base)
            if name is not None and not name.is_global and name.name in self._methods:
                self._found.calls.append((name.name, place))
            elif isinstance(base, ast.Call) and tail(base.func) == "super":
                self._found.supers.add(function.attr)
            elif function.attr in _CLEANUP and isinstance(base, ast.expr) and self._direct(base) is not None:
                self._cleanup(base, place)
            elif root is not None and function.attr in CHANGES | _CHANGES_AND_READS:
                line = function.end_lineno or node.lineno
                is_clear = function.attr in ("clear", "pop", "popleft", "popitem")
                self._add(Access(root, Kind.CHANGE, line, place, needs_container=True, is_clear=is_clear))
                if function.attr in _CHANGES_AND_READS and is_used:
                    self._add(Access(root, Kind.READ, line, place, is_test=is_test, is_own=root in own))
                self._indexes(base, place)
            else:
                self._expression(function, place, is_test=is_test, own=own)
        elif not (isinstance(function, ast.Name) and function.id in ("hasattr", "super")):
            self._expression(function, place)
        if isinstance(function, ast.Name) and function.id == "hasattr":
            return
        name = self._by_getattr(node)
        if name is not None and function_name(node) == "getattr":
            self._add(Access(name, Kind.READ, node.lineno, place, is_test=is_test, is_own=name in own))
        for argument in node.args:
            self._expression(argument, place, is_test=is_test, own=own)
        for keyword in node.keywords:
            self._expression(keyword.value, place, is_test=is_test, own=own)

    def _cleanup(self, node: ast.expr, place: Place) -> None:
        """``self.x.close()``, or ``for x in self.x.values(): x.close()``: what is read there."""
        for child in ast.walk(node):
            name = self._direct(child)
            if name is not None:
                self._add(Access(name, Kind.READ, node.lineno, place, is_cleanup=True))

    def _indexes(self, base: ast.expr, place: Place) -> None:
        """What stands in the brackets of ``self.x[...]``, and in the parentheses of ``self.x.setdefault(...)``."""
        while isinstance(base, ast.Subscript | ast.Call):
            if isinstance(base, ast.Subscript):
                self._expression(base.slice, place)
                base = base.value
            else:
                for argument in base.args:
                    self._expression(argument, place)
                base = base.func.value if isinstance(base.func, ast.Attribute) else base.func

    # What an expression stands for.

    def _is_receiver(self, node: ast.expr) -> bool:
        if isinstance(node, ast.Name):
            return node.id in self._receivers
        if isinstance(node, ast.Attribute):
            return node.attr == "__class__" and self._is_receiver(node.value)
        return (
            isinstance(node, ast.Call)
            and tail(node.func) == "type"
            and len(node.args) == 1
            and self._is_receiver(node.args[0])
        )

    def _direct(self, node: ast.AST) -> Name | None:
        """The attribute, or the name of the module, that an expression is."""
        if isinstance(node, ast.Attribute) and self._is_receiver(node.value):
            return Name(node.attr)
        if (
            isinstance(node, ast.Name)
            and node.id in self._module.names
            and node.id not in self._locals | self._receivers
        ):
            return Name(node.id, is_global=True)
        return None

    def _root(self, node: ast.expr) -> Name | None:
        """The attribute or name that an expression is, or is a part of."""
        while True:
            if isinstance(node, ast.Subscript):
                node = node.value
            elif (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in ("setdefault", "get")
            ):
                node = node.func.value
            else:
                return self._direct(node)

    def _by_getattr(self, node: ast.Call) -> Name | None:
        """The attribute that ``getattr(self, "x")``, or ``hasattr``, names."""
        if len(node.args) >= 2 and self._is_receiver(node.args[0]):
            name = node.args[1]
            if isinstance(name, ast.Constant) and isinstance(name.value, str):
                return Name(name.value)
        return None

    # Notes.

    def _add(self, access: Access) -> None:
        self._found.accesses.append(access)

    def _note_callbacks(self, node: ast.Call) -> None:
        if not is_maker(node):
            return
        maker = tail(node.func)
        given = [keyword.value for keyword in node.keywords if keyword.arg in ("callback", "errback")]
        if len(node.args) > 1 and maker not in ("from_response", "from_curl"):
            given.append(node.args[1])
        for value in given:
            words = self._not_a_method(value)
            if words:
                self._found.callbacks.append(Line(value.lineno, words))

    def _not_a_method(self, value: ast.expr) -> str:
        if isinstance(value, ast.Lambda):
            return "a lambda"
        if isinstance(value, ast.Call) and dotted(value.func) in ("partial", "functools.partial"):
            return "a partial"
        if isinstance(value, ast.Name):
            if value.id in self._nested:
                return f"{value.id}(), a function in a function"
            if value.id in self._module.functions and value.id not in self._locals:
                return f"{value.id}(), no method of the spider"
        return ""

    def _note_file(self, node: ast.Call) -> None:
        name = self._written(node)
        if name is not None and self._is_fixed(name, depth=0):
            self._found.files.append(Line(node.lineno, _words(name), is_added=_is_adding(node)))

    def _written(self, node: ast.Call) -> ast.expr | None:
        """The name of the file that a call opens for writing."""
        called = dotted(node.func)
        if called in _OPENERS:
            mode = node.args[1] if len(node.args) > 1 else _keyword(node, "mode")
            return node.args[0] if node.args and _is_writing(mode) else None
        if called == "sqlite3.connect" and node.args:
            name = node.args[0]
            return None if isinstance(name, ast.Constant) and name.value in (":memory:", "") else name
        if isinstance(node.func, ast.Attribute):
            base = node.func.value
            if node.func.attr in ("write_text", "write_bytes") and not self._is_receiver(base):
                return base if self._is_path(base) else None
            if node.func.attr in _WRITERS and node.args and not self._is_path(base):
                return node.args[0] if isinstance(node.args[0], ast.Constant | ast.JoinedStr | ast.BinOp) else None
            if node.func.attr == "open" and self._is_path(base):
                mode = node.args[0] if node.args else _keyword(node, "mode")
                return base if _is_writing(mode) else None
        return None

    def _is_path(self, node: ast.expr) -> bool:
        """Is it surely a Path: made here, or put together with ``/``?"""
        if isinstance(node, ast.Name) and node.id in self._values:
            node = self._values[node.id]
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
            return True
        return isinstance(node, ast.Call) and tail(node.func) == "Path"

    def _is_fixed(self, node: ast.expr, depth: int) -> bool:
        """Is it the same in each crawl process and for each response?"""
        if depth > 8:
            return False
        if isinstance(node, ast.Constant):
            return True
        if isinstance(node, ast.Name):
            if node.id in self._values:
                return self._is_fixed(self._values[node.id], depth + 1)
            return node.id in self._receivers or node.id in ("__file__", "spider") or node.id not in self._locals
        if isinstance(node, ast.Attribute):
            return self._is_fixed(node.value, depth + 1)
        if isinstance(node, ast.Call):
            if tail(node.func) not in _NAMING or (tail(node.func) == "get" and "settings" not in dotted(node.func)):
                return False
            parts = [*node.args, *(keyword.value for keyword in node.keywords)]
            if isinstance(node.func, ast.Attribute):
                parts.append(node.func.value)
            return all(self._is_fixed(part, depth + 1) for part in parts)
        if isinstance(node, ast.JoinedStr | ast.FormattedValue | ast.BinOp | ast.Tuple | ast.Subscript):
            return all(
                self._is_fixed(child, depth + 1)
                for child in ast.iter_child_nodes(node)
                if isinstance(child, ast.expr)
            )
        return False

    def _note_effects(self, node: ast.Call) -> None:
        called = dotted(node.func)
        if called in _EFFECTS or (
            isinstance(node.func, ast.Attribute) and node.func.attr == "send" and "mail" in called.lower()
        ):
            self._found.effects.append(Line(node.lineno, f"{called}()"))
        elif called.endswith("engine.crawl"):
            self._found.schedules.append(Line(node.lineno, f"{called}()"))

    def _note_signal(self, node: ast.Call) -> None:
        if not (isinstance(node.func, ast.Attribute) and node.func.attr == "connect"):
            return
        given = {keyword.arg: keyword.value for keyword in node.keywords}
        given |= dict(zip(("receiver", "signal"), node.args, strict=False))
        receiver, signal = given.get("receiver"), given.get("signal")
        if isinstance(receiver, ast.Attribute) and receiver.attr in self._methods:
            self._found.connected[receiver.attr] = tail(signal) if signal is not None else ""

    def _note_spider(self, node: ast.Attribute) -> None:
        """``spider.x``, ``self.spider.x``, ``crawler.spider.x``."""
        base = node.value
        if tail(base) == "spider" and not self._is_receiver(base):
            self._found.of_spider.setdefault(node.attr, node.lineno)

    # Where values come from.

    @cached_property
    def _nested(self) -> set[str]:
        """Functions that are made in this one."""
        found = {
            node.name
            for node in ast.walk(self._function)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node is not self._function
        }
        return found | {name for name, value in self._values.items() if isinstance(value, ast.Lambda)}

    @cached_property
    def _values(self) -> dict[str, ast.expr]:
        """Local names that get one value, with it."""
        found: dict[str, ast.expr | None] = {}
        for name, value in self._assignments():
            found[name] = None if name in found else value
        return {name: value for name, value in found.items() if value is not None and name not in self._parameters}

    def _assignments(self) -> Iterator[tuple[str, ast.expr | None]]:
        for node in ast.walk(self._function):
            if isinstance(node, ast.Assign | ast.AnnAssign):
                yield from assigned(node)
            elif isinstance(node, ast.NamedExpr):
                yield node.target.id, node.value
            elif isinstance(node, ast.For | ast.AsyncFor | ast.comprehension | ast.AugAssign):
                yield from ((name, None) for name in _names(node.target))
            elif isinstance(node, ast.withitem) and node.optional_vars is not None:
                yield from ((name, None) for name in _names(node.optional_vars))

    @cached_property
    def _tainted(self) -> set[str]:
        """Local names whose values may differ from call to call: parameters, and what comes of them."""
        tainted = self._parameters - self._receivers - {"spider", "crawler"}
        pairs: list[tuple[set[str], set[str]]] = []
        for node in ast.walk(self._function):
            if isinstance(node, ast.Assign):
                pairs.append(({name for target in node.targets for name in _stored(target)}, _names(node.value)))
            elif isinstance(node, ast.AnnAssign | ast.AugAssign | ast.NamedExpr) and node.value is not None:
                pairs.append((_stored(node.target), _names(node.value)))
            elif isinstance(node, ast.For | ast.AsyncFor | ast.comprehension):
                pairs.append((_stored(node.target), _names(node.iter)))
            elif isinstance(node, ast.withitem) and node.optional_vars is not None:
                pairs.append((_stored(node.optional_vars), _names(node.context_expr)))
        n_before = -1
        while len(tainted) != n_before:
            n_before = len(tainted)
            for targets, values in pairs:
                if values & tainted:
                    tainted |= targets
        return tainted

    def _asks_whether_set(self, test: ast.expr, name: Name) -> bool:
        """``not self.x``, ``self.x is None``, ``hasattr(self, "x")`` and the like."""
        if isinstance(test, ast.BoolOp):
            return any(self._asks_whether_set(value, name) for value in test.values)
        if isinstance(test, ast.UnaryOp):
            return self._asks_whether_set(test.operand, name)
        if isinstance(test, ast.Compare):
            return _is_with_none(test) and self._asks_whether_set(test.left, name)
        if isinstance(test, ast.Call):
            return self._by_getattr(test) == name
        return self._direct(test) == name

    def _asks_whether_in(self, test: ast.expr, name: Name) -> bool:
        """``key not in self.x``, ``self.x.get(key) is None`` and the like, somewhere in a condition."""
        for node in ast.walk(test):
            if isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.In | ast.NotIn):
                side = node.comparators[0]
                if isinstance(side, ast.Call) and isinstance(side.func, ast.Attribute) and side.func.attr == "keys":
                    side = side.func.value
                if self._root(side) == name:
                    return True
            if isinstance(node, ast.Call) and self._root(node) == name:
                return True
        return False


def is_maker(node: ast.Call) -> bool:
    """Does a call make a request, or several?"""
    maker = tail(node.func)
    return maker in _MAKERS or maker.endswith("Request")


def function_name(node: ast.Call) -> str:
    """The plain name that is called, or ""."""
    return node.func.id if isinstance(node.func, ast.Name) else ""


def _stored(node: ast.AST) -> set[str]:
    """The names that a target binds; not those whose attributes it sets."""
    return {child.id for child in ast.walk(node) if isinstance(child, ast.Name) and isinstance(child.ctx, ast.Store)}


def _names(node: ast.AST) -> set[str]:
    return {child.id for child in ast.walk(node) if isinstance(child, ast.Name)}


def _is_with_none(node: ast.Compare) -> bool:
    return all(isinstance(value, ast.Constant) and value.value is None for value in node.comparators)


def _is_cleaning(loop: ast.For) -> bool:
    """Does a loop close each thing that it gets?"""
    names = _names(loop.target)
    return any(
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in _CLEANUP
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id in names
        for statement in loop.body
        for node in ast.walk(statement)
    )


def _keyword(node: ast.Call, name: str) -> ast.expr | None:
    return next((keyword.value for keyword in node.keywords if keyword.arg == name), None)


def _is_writing(mode: ast.expr | None) -> bool:
    return isinstance(mode, ast.Constant) and isinstance(mode.value, str) and bool(set(mode.value) & set("wax+"))


def _is_adding(node: ast.Call) -> bool:
    modes = [*node.args[:2], _keyword(node, "mode")]
    return any(isinstance(mode, ast.Constant) and mode.value in ("a", "ab", "at") for mode in modes)


def _is_empty(value: ast.expr) -> bool:
    if isinstance(value, ast.List | ast.Set | ast.Tuple):
        return not value.elts
    if isinstance(value, ast.Dict):
        return not value.keys
    return isinstance(value, ast.Call) and tail(value.func) in ("list", "set", "dict", "deque") and not value.args


def _words(node: ast.expr, most: int = 40) -> str:
    words = ast.unparse(node)
    return words if len(words) <= most else f"{words[: most - 1]}…"
