"""
Objects that several requests carry in ``meta`` or ``cb_kwargs``, and that their callbacks change.

Each request that travels carries a copy. An object is named where it is surely shared, because it was made
outside the loop that makes the requests, or is an attribute of the spider, and where a callback surely changes it by
what it was: setting a fixed key of it anew is no such change.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias

from vscrapy.preflight.finding import Finding, Where
from vscrapy.preflight.scan import CHANGES, Function, is_maker
from vscrapy.preflight.source import tail
from vscrapy.preflight.subject import Method, Subject

_Loop: TypeAlias = ast.For | ast.AsyncFor | ast.While | ast.ListComp | ast.GeneratorExp | ast.SetComp
#: The callback of requests that name none.
_DEFAULT_CALLBACK: Final = "parse"


@dataclass(frozen=True, slots=True)
class _Carried:
    """What one call puts into the requests that it makes."""

    #: ``meta`` or ``cb_kwargs``.
    by: str
    key: str
    callback: str


def check_sharing(subject: Subject) -> Iterator[Finding]:
    """Look at the requests that a spider's methods make, and at the callbacks that get them."""
    methods = {method.name: method for method in reversed(subject.methods)}
    found: set[_Carried] = set()
    for method in subject.methods:
        if method.name in subject.starting | subject.running:
            found.update(_shared(method.node))
    for carried in sorted(found, key=lambda each: (each.callback, each.by, each.key)):
        callback = methods.get(carried.callback)
        line = _changed(callback.node, carried) if callback is not None else None
        if callback is not None and line is not None and not callback.module.is_suppressed(line):
            yield _finding(callback, carried, line)


def _finding(callback: Method, carried: _Carried, line: int) -> Finding:
    name = f"meta[{carried.key!r}]" if carried.by == "meta" else carried.key
    return Finding(
        "shared-object",
        Where(callback.module.path, line),
        f"{callback.owner}.{callback.name}() changes {name}, which several requests have in common",
        "each request carries a copy: what one callback changes in it, the others do not see",
        "collect in a pipeline, or hand the object on from one request to the next; or --workers 1",
    )


# What requests carry.


def _shared(function: Function) -> Iterator[_Carried]:
    receiver = function.args.args[0].arg if function.args.args else ""
    bound = _bindings(function)
    for call, loops in _calls(function):
        callback = _callback(call, receiver)
        for keyword in call.keywords:
            if keyword.arg not in ("meta", "cb_kwargs") or not callback:
                continue
            for key, value in _entries(keyword.value):
                is_own = isinstance(value, ast.Attribute) and tail(value.value) == receiver
                if is_own or (isinstance(value, ast.Name) and _is_outside(call, value.id, loops, bound)):
                    yield _Carried(keyword.arg, key, callback)


def _entries(value: ast.expr) -> Iterator[tuple[str, ast.expr]]:
    """Keys and values of ``{"key": value}`` and ``dict(key=value)``."""
    if isinstance(value, ast.Dict):
        for key, each in zip(value.keys, value.values, strict=True):
            if isinstance(key, ast.Constant) and isinstance(key.value, str):
                yield key.value, each
    elif isinstance(value, ast.Call) and tail(value.func) == "dict":
        yield from ((keyword.arg, keyword.value) for keyword in value.keywords if keyword.arg)


def _callback(call: ast.Call, receiver: str) -> str:
    """The method that gets the response, or ""."""
    given = next((keyword.value for keyword in call.keywords if keyword.arg == "callback"), None)
    if given is None and len(call.args) > 1 and tail(call.func) not in ("from_response", "from_curl"):
        given = call.args[1]
    if given is None:
        return _DEFAULT_CALLBACK
    return given.attr if isinstance(given, ast.Attribute) and tail(given.value) == receiver else ""


def _calls(function: Function) -> Iterator[tuple[ast.Call, tuple[_Loop, ...]]]:
    """The calls that make requests, and the loops around each that may make more than one."""

    left: list[tuple[ast.AST, tuple[_Loop, ...]]] = [(statement, ()) for statement in function.body]
    while left:
        node, loops = left.pop()
        if isinstance(node, ast.Call) and is_maker(node):
            yield node, loops
        if isinstance(node, _Loop):
            loops = (*loops, node)
        for _, value in ast.iter_fields(node):
            children = value if isinstance(value, list) else [value]
            # After "return" or "break" in the same block, there is no second round.
            is_once = any(isinstance(child, ast.Return | ast.Break) for child in children)
            left += [
                (child, () if is_once else loops)
                for child in children
                if isinstance(child, ast.AST) and not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
            ]


def _bindings(function: Function) -> dict[str, list[ast.AST]]:
    """Local names, and the nodes that bind them; of parameters, the function."""
    arguments = (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)
    found: dict[str, list[ast.AST]] = {argument.arg: [function] for argument in arguments}
    for node in ast.walk(function):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.setdefault(node.id, []).append(node)
    return found


def _is_outside(call: ast.Call, name: str, loops: tuple[_Loop, ...], bound: dict[str, list[ast.AST]]) -> bool:
    """Do requests get the same object: is there a loop around the call in which its name is not bound anew?"""
    if name not in bound:
        return False
    if tail(call.func) == "follow_all":
        return True
    return any(not any(node in bound[name] for node in ast.walk(loop)) for loop in loops)


# What callbacks do with it.


def _changed(function: Function, carried: _Carried) -> int | None:
    """The first line that changes the object, if any surely does."""
    names = {carried.key} if carried.by == "cb_kwargs" else set()
    for node in ast.walk(function):
        if isinstance(node, ast.Assign) and _is_got(node.value, carried):
            names.update(target.id for target in node.targets if isinstance(target, ast.Name))
    return min(
        (
            node.lineno
            for node in ast.walk(function)
            if isinstance(node, ast.stmt | ast.Call)
            and any(_root(target, names, carried) for target in _targets(node))
        ),
        default=None,
    )


def _targets(node: ast.AST) -> list[ast.expr]:
    """What a statement or a call changes by what it was."""
    if isinstance(node, ast.AugAssign):
        return [node.target] if isinstance(node.target, ast.Subscript | ast.Attribute) else []
    if isinstance(node, ast.Assign):
        return [
            target
            for target in node.targets
            if isinstance(target, ast.Subscript) and not isinstance(target.slice, ast.Constant)
        ]
    if isinstance(node, ast.Delete):
        return [target for target in node.targets if isinstance(target, ast.Subscript)]
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in CHANGES:
        return [node.func.value]
    return []


def _root(node: ast.expr, names: set[str], carried: _Carried) -> bool:
    """Is an expression the object, or a part of it?"""
    while not _is_got(node, carried):
        if not isinstance(node, ast.Subscript | ast.Attribute):
            return isinstance(node, ast.Name) and node.id in names
        node = node.value
    return True


def _is_got(node: ast.expr, carried: _Carried) -> bool:
    """``response.meta["key"]``, ``response.meta.get("key")``, and the same of ``cb_kwargs``."""
    if isinstance(node, ast.Subscript):
        base, key = node.value, node.slice
    elif (
        isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "get" and node.args
    ):
        base, key = node.func.value, node.args[0]
    else:
        return False
    return (
        isinstance(base, ast.Attribute)
        and base.attr == carried.by
        and isinstance(key, ast.Constant)
        and key.value == carried.key
    )
