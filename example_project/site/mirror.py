"""Pages that answer with what they were sent, set the cookies that they are told to, or are as large as asked for."""

from __future__ import annotations

import hashlib
from http.cookies import SimpleCookie

from exchange import Call, Groups, Reply, Route, json_reply
from pages import frame

#: Headers that say something of the request itself, and not of the client's version.
_SHOWN = ("accept", "accept-language", "authorization", "content-type", "cookie", "referer", "x-requested-with")
MAX_LARGE_KB = 64 * 1024


class Mirror:
    """The pages under ``/mirror/``."""

    def routes(self) -> list[Route]:
        """List the mirrors."""
        return [
            (r"/mirror/echo", self._echo),
            (r"/mirror/cookies/(?P<number>\d+)", self._cookies),
            (r"/mirror/large/(?P<number>\d+)", self._large),
            (r"/mirror/refresh/(?P<number>\d+)", self._refresh),
            (r"/mirror/refreshed/(?P<number>\d+)", self._refreshed),
        ]

    def _echo(self, call: Call, groups: Groups) -> Reply:
        """Show the request; a large body by its digest."""
        return json_reply(
            {
                "method": call.method,
                "query": dict(call.query),
                "form": dict(call.form),
                "body_bytes": len(call.body),
                "body_sha256": hashlib.sha256(call.body).hexdigest(),
                "headers": {name: call.headers[name] for name in _SHOWN if name in call.headers},
            }
        )

    def _cookies(self, call: Call, groups: Groups) -> Reply:
        """Show the cookies that came; set those of the query, and delete those that it gives no value."""
        sent = {name: morsel.value for name, morsel in SimpleCookie(call.headers.get("cookie", "")).items()}
        headers = tuple(
            ("Set-Cookie", f"{name}={value}; Path=/" if value else f"{name}=; Path=/; Max-Age=0")
            for name, value in call.query.items()
        )
        reply = json_reply({"number": int(groups["number"]), "cookies": sent})
        return Reply(reply.body, content_type=reply.content_type, headers=headers)

    def _large(self, call: Call, groups: Groups) -> Reply:
        """Answer with so many kilobytes of text, the same for the same number."""
        size = min(call.number("kb", 1), MAX_LARGE_KB) * 1024
        line = f"{groups['number']} {hashlib.sha256(groups['number'].encode()).hexdigest()}\n"
        return Reply((line * (size // len(line) + 1))[:size].encode(), content_type="text/plain; charset=utf-8")

    def _refresh(self, call: Call, groups: Groups) -> Reply:
        number = groups["number"]
        page = frame(f"Refresh {number}").replace(
            "<head>", f'<head><meta http-equiv="refresh" content="0; url=/mirror/refreshed/{number}">'
        )
        return Reply(page.encode())

    def _refreshed(self, call: Call, groups: Groups) -> Reply:
        return Reply(frame(f"Refreshed {groups['number']}").encode())
