"""
Cookie sessions and the tokens that guard their forms.

| session  | after                      | then      |
| -------- | -------------------------- | --------- |
| none     | the login page             | anonymous |
| anonymous| the right form             | signed in, under a new id |
| signed in| sign-out                   | none      |

Ids come from the seed and a counter, so that two runs of one crawl can be compared.
"""

from __future__ import annotations

import hashlib
import hmac

#: The name of the session cookie.
COOKIE = "session"


class Sessions:
    """All sessions since the site started."""

    def __init__(self, seed: int) -> None:
        self._key = f"sessions {seed}".encode()
        self._count = 0
        self._is_signed_in: dict[str, bool] = {}

    def _digest(self, text: str) -> str:
        return hmac.new(self._key, text.encode(), hashlib.sha256).hexdigest()[:32]

    def open(self, *, is_signed_in: bool = False) -> str:
        """Start a session and return its id."""
        self._count += 1
        session = self._digest(f"id {self._count}")
        self._is_signed_in[session] = is_signed_in
        return session

    def close(self, session: str | None) -> None:
        """End a session; an unknown one is no error."""
        if session is not None:
            self._is_signed_in.pop(session, None)

    def is_known(self, session: str | None) -> bool:
        """Tell whether the site started this session and it has not ended."""
        return session in self._is_signed_in

    def is_signed_in(self, session: str | None) -> bool:
        """Tell whether this session may see private pages."""
        return session is not None and self._is_signed_in.get(session, False)

    def token(self, session: str) -> str:
        """Make the token that forms of this session must carry."""
        return self._digest(f"token {session}")

    def accepts(self, session: str | None, token: str) -> bool:
        """Tell whether *token* belongs to *session*."""
        if session is None or not self.is_known(session):
            return False
        return hmac.compare_digest(self.token(session).encode(), token.encode())
