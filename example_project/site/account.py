"""The login, and the private pages that only a signed-in session sees."""

from __future__ import annotations

from html import escape

from catalog import Catalog
from exchange import Call, Groups, Page, Reply, Route, html, redirect
from pages import frame, link, listing, not_found, page_count, page_of, pager
from sessions import COOKIE, Sessions

USERNAME = "reader"
PASSWORD = "books"
#: Orders on a page.
PAGE_SIZE = 10


def _set_cookie(session: str) -> tuple[tuple[str, str], ...]:
    return (("Set-Cookie", f"{COOKIE}={session}; Path=/; HttpOnly"),)


class Account:
    """The pages ``/login`` and ``/logout``, and those under ``/account/``."""

    def __init__(self, catalog: Catalog, sessions: Sessions) -> None:
        self._catalog = catalog
        self._sessions = sessions
        self._orders = tuple(catalog.orders.values())

    def routes(self) -> list[Route]:
        """List the account's pages."""
        return [
            (r"/login", self._login),
            (r"/logout", self._logout),
            (r"/account/", self._private(self._overview)),
            (r"/account/orders/", self._private(self._order_list)),
            (r"/account/orders/(?P<number>\d+)/", self._private(self._order)),
        ]

    def _private(self, page: Page) -> Page:
        def guarded(call: Call, groups: Groups) -> Reply:
            if not self._sessions.is_signed_in(call.session):
                return redirect("/login")
            return page(call, groups)

        return guarded

    def _form(self, call: Call, message: str, status: int = 200) -> Reply:
        headers: tuple[tuple[str, str], ...] = ()
        session = call.session
        if session is None or not self._sessions.is_known(session):
            session = self._sessions.open()
            headers = _set_cookie(session)
        token = self._sessions.token(session)
        page = frame(
            "Login",
            f'<p class="message">{escape(message)}</p>',
            '<form action="/login" method="post">',
            f'<input type="hidden" name="csrf_token" value="{token}">',
            '<input type="text" name="username"> <input type="password" name="password">',
            '<input type="submit" value="Sign in"></form>',
        )
        return Reply(page.encode(), status, headers=headers)

    def _login(self, call: Call, groups: Groups) -> Reply:
        if call.method != "POST":
            return self._form(call, "Please sign in.")
        if not self._sessions.accepts(call.session, call.form.get("csrf_token", "")):
            return self._form(call, "The form has expired.", 403)
        if (call.form.get("username"), call.form.get("password")) != (USERNAME, PASSWORD):
            return self._form(call, "Wrong name or password.")
        self._sessions.close(call.session)
        session = self._sessions.open(is_signed_in=True)
        return redirect("/account/", headers=_set_cookie(session))

    def _logout(self, call: Call, groups: Groups) -> Reply:
        self._sessions.close(call.session)
        expired = (("Set-Cookie", f"{COOKIE}=; Path=/; Max-Age=0"),)
        return redirect("/", headers=expired)

    def _overview(self, call: Call, groups: Groups) -> Reply:
        return html(
            frame(
                "Your account",
                f'<p class="name">{USERNAME}</p>',
                f'<p class="order-count">{len(self._orders)}</p>',
                link("/account/orders/", "Your orders", css_class="orders"),
            )
        )

    def _order_list(self, call: Call, groups: Groups) -> Reply:
        page = call.number("page", 1)
        pages = page_count(len(self._orders), PAGE_SIZE)
        if not 1 <= page <= pages:
            return not_found("page")
        links = (
            link(f"/account/orders/{order.number}/", f"Order {order.number}")
            for order in page_of(self._orders, page, PAGE_SIZE)
        )
        return html(
            frame(
                "Your orders",
                listing(links, css_class="orders"),
                pager(page, pages, "/account/orders/?page={page}"),
            )
        )

    def _order(self, call: Call, groups: Groups) -> Reply:
        order = self._catalog.orders.get(int(groups["number"]))
        if order is None:
            return not_found("order")
        title = self._catalog.products[order.product].title
        facts = (
            f'<span class="number">{order.number}</span>',
            f'<span class="title">{escape(title)}</span>',
            f'<span class="quantity">{order.quantity}</span>',
            f'<span class="total">{escape(order.total)}</span>',
        )
        return html(frame(f"Order {order.number}", listing(facts, css_class="order")))
