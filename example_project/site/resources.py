"""
The site as one Twisted resource: it parses, logs, waits, and writes what `Routes` answers.

Requests whose path begins with ``/_`` are neither logged nor delayed: they are the
observer's, not the crawler's.
"""

# Twisted annotates its HTTP classes in part only.
# mypy: disable-error-code=no-untyped-call

from __future__ import annotations

from urllib.parse import parse_qsl, unquote, urlsplit

from accesslog import AccessLog, Arrival
from exchange import Call, Reply
from latency import Latency
from routes import Routes
from sessions import COOKIE
from twisted.internet.base import DelayedCall, ReactorBase
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

_FORM = "application/x-www-form-urlencoded"


def _header(request: Request, name: str) -> str:
    return (request.getHeader(name) or "").strip()


def _call(request: Request) -> Call:
    url = urlsplit(request.uri.decode("latin-1"))
    is_form = _header(request, "content-type").partition(";")[0].strip() == _FORM
    body = b"" if request.content is None else request.content.read()
    cookie: bytes | None = request.getCookie(COOKIE.encode())
    return Call(
        method=request.method.decode("latin-1"),
        path=unquote(url.path),
        query=dict(parse_qsl(url.query, keep_blank_values=True)),
        form=dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True)) if is_form else {},
        body=body,
        headers={
            name.decode("latin-1").lower(): values[-1].decode("latin-1")
            for name, values in request.requestHeaders.getAllRawHeaders()
        },
        session=None if cookie is None else cookie.decode("latin-1"),
        origin=f"http://{_header(request, 'host')}",
    )


class Answer:
    """One request, from its arrival to its end, whoever ends it."""

    def __init__(self, request: Request, reply: Reply, log: AccessLog | None) -> None:
        self._request = request
        self._reply = reply
        self._log = log
        self._timer: DelayedCall | None = None
        self._arrival: Arrival | None = None

    def start(self, reactor: ReactorBase, delay_ms: int, call: Call) -> None:
        """Log the arrival, and send the reply when its time has come."""
        if self._log is not None:
            url = urlsplit(self._request.uri.decode("latin-1"))
            self._arrival = self._log.enter(
                method=call.method,
                path=url.path,
                query=url.query,
                connection=self._request.getClientAddress().port,
                session=call.session,
                user_agent=_header(self._request, "user-agent"),
            )
        self._request.notifyFinish().addCallbacks(self._finished, self._disconnected)
        wait_ms = delay_ms + self._reply.wait_ms
        if wait_ms:
            self._timer = reactor.callLater(wait_ms / 1000, self._send)
        else:
            self._send()

    def _send(self) -> None:
        self._timer = None
        request, reply = self._request, self._reply
        if reply.hangs_up:
            request.loseConnection()
            return
        request.setResponseCode(reply.status)
        request.setHeader("Content-Type", reply.content_type)
        request.setHeader("Content-Length", str(len(reply.body)))
        for name, value in reply.headers:
            request.responseHeaders.addRawHeader(name, value)
        request.write(reply.body)
        request.finish()

    def _leave(self, status: int, *, is_aborted: bool) -> None:
        if self._log is not None and self._arrival is not None:
            self._log.leave(self._arrival, status=status, is_aborted=is_aborted)

    def _finished(self, _: None) -> None:
        self._leave(self._reply.status, is_aborted=False)

    def _disconnected(self, _: Failure) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._leave(0, is_aborted=True)


class DemoSite(Resource):
    """The whole site; it has no children, `Routes` knows the paths."""

    isLeaf = True

    def __init__(self, routes: Routes, log: AccessLog, reactor: ReactorBase, latency: Latency) -> None:
        super().__init__()
        self._routes = routes
        self._log = log
        self._reactor = reactor
        self._latency = latency

    def render(self, request: Request) -> int:
        """Answer a request, now or later."""
        call = _call(request)
        is_observer = call.path.startswith("/_")
        answer = Answer(request, self._routes.answer(call), None if is_observer else self._log)
        answer.start(self._reactor, 0 if is_observer else self._latency.ms, call)
        return NOT_DONE_YET
