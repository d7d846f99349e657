"""Cookies: what one crawl process gets, all of them send."""

from __future__ import annotations

from typing import Final

from tests.parity.case import Case, Unequal
from tests.parity.run import Run


def _is_one_session(run: Run) -> list[str]:
    """The private pages were fetched with the session of the login, by more than the process that logged in."""
    private = [entry for entry in run.site_log if entry["path"].startswith("/account/orders/")]
    sessions = {entry["session"] for entry in private}
    problems = [] if len(sessions) == 1 else [f"private pages were fetched with {len(sessions)} sessions"]
    login = {number for url, number in run.crawled if url.endswith("/login")}
    others = {number for url, number in run.crawled if "/account/orders/" in url} - login
    if run.way == "3 processes" and not others:
        problems.append("no other process than the one that logged in fetched a private page")
    return problems


#: Pages show the cookies that came, so they are longer where more pages were crawled before.
_LENGTH: Final = Unequal("stats", "^downloader/response_bytes$", "pages show which other cookies were there before")

CASES: Final = [
    Case(
        name="login",
        group="cookies",
        is_fast=True,
        shows="log in on one process, fetch private pages on the others",
        also=_is_one_session,
        source="""
            from scrapy import FormRequest, Request, Spider

            class Case(Spider):
                name = "case"
                start_urls = ["http://demo.test/login"]

                def parse(self, response):
                    yield FormRequest.from_response(
                        response, formdata={"username": "reader", "password": "books"}, callback=self.parse_account
                    )

                def parse_account(self, response):
                    yield {"name": response.css(".name::text").get()}
                    for number in range(1001, 1046):
                        yield response.follow(f"/account/orders/{number}/", self.parse_order)

                def parse_order(self, response):
                    yield {"url": response.url, "title": response.css(".title::text").get()}
        """,
    ),
    Case(
        name="login-in-start",
        group="cookies",
        shows="a login that `start()` awaits before it yields the private pages",
        also=_is_one_session,
        source="""
            from scrapy import FormRequest, Request, Spider
            from scrapy.utils.defer import maybe_deferred_to_future

            class Case(Spider):
                name = "case"

                def download(self, request):
                    engine = self.crawler.engine
                    if hasattr(engine, "download_async"):
                        return engine.download_async(request)
                    return maybe_deferred_to_future(engine.download(request))

                async def start(self):
                    form = await self.download(Request("http://demo.test/login"))
                    data = {"username": "reader", "password": "books"}
                    account = await self.download(FormRequest.from_response(form, formdata=data))
                    yield {"name": account.css(".name::text").get()}
                    for number in range(1001, 1046):
                        yield Request(f"http://demo.test/account/orders/{number}/")

                def parse(self, response):
                    yield {"url": response.url, "title": response.css(".title::text").get()}
        """,
    ),
    Case(
        name="cookie-jars",
        group="cookies",
        unequal=(_LENGTH,),
        shows="several `cookiejar`s, named by numbers, strings and tuples, side by side",
        source="""
            from scrapy import Request, Spider

            class Case(Spider):
                name = "case"
                jars = (0, 1, "two", ("three", 3), None, 2.5)

                async def start(self):
                    for index, jar in enumerate(self.jars):
                        yield Request(
                            f"http://demo.test/mirror/cookies/0?jar=is{index}",
                            meta={"cookiejar": jar},
                            cb_kwargs={"index": index},
                            dont_filter=True,
                        )

                def parse(self, response, index):
                    for number in range(1, 8):
                        yield Request(
                            f"http://demo.test/mirror/cookies/{number}?own{index}=v{number}",
                            self.parse_last,
                            meta={"cookiejar": response.meta["cookiejar"]},
                            cb_kwargs={"index": index},
                        )

                def parse_last(self, response, index):
                    data = response.json()
                    # Which of the others came before is a matter of order; whose they are is not.
                    names = {name for name in data["cookies"] if not name.startswith("own")}
                    foreign = {n for n in data["cookies"] if n.startswith("own") and n != f"own{index}"}
                    yield {
                        "index": index,
                        "number": data["number"],
                        "jar": data["cookies"].get("jar"),
                        "others": sorted(names),
                        "foreign": sorted(foreign),
                    }
        """,
    ),
    Case(
        name="cookies-on-any-page",
        group="cookies",
        unequal=(_LENGTH,),
        shows="cookies that any page sets, changes and deletes: the pages that come of it send them",
        source="""
            from scrapy import Request, Spider

            class Case(Spider):
                name = "case"

                async def start(self):
                    for number in range(12):
                        yield Request(
                            f"http://demo.test/mirror/cookies/1?a{number}=1&b{number}=1", cb_kwargs={"branch": number}
                        )

                def parse(self, response, branch):
                    yield Request(
                        f"http://demo.test/mirror/cookies/2?a{branch}=2&c{branch}=1",
                        self.parse_second,
                        cb_kwargs={"branch": branch},
                    )

                def parse_second(self, response, branch):
                    yield self.own(response, branch)
                    yield Request(
                        f"http://demo.test/mirror/cookies/3?b{branch}=",
                        self.parse_third,
                        cb_kwargs={"branch": branch},
                    )

                def parse_third(self, response, branch):
                    yield self.own(response, branch)
                    for number in range(4, 8):
                        yield Request(
                            f"http://demo.test/mirror/cookies/{number}?branch{branch}=1",
                            self.parse_last,
                            cb_kwargs={"branch": branch},
                        )

                def parse_last(self, response, branch):
                    yield self.own(response, branch)

                def own(self, response, branch):
                    data = response.json()
                    names = (f"a{branch}", f"b{branch}", f"c{branch}")
                    cookies = {name: value for name, value in data["cookies"].items() if name in names}
                    return {"branch": branch, "number": data["number"], "cookies": cookies}
        """,
    ),
    Case(
        name="cookies-of-requests",
        group="cookies",
        shows="`Request(cookies=...)`, as a dict and with domains and paths, and `dont_merge_cookies`",
        source="""
            from scrapy import Request, Spider

            class Case(Spider):
                name = "case"

                async def start(self):
                    for number in range(12):
                        yield Request(
                            f"http://demo.test/mirror/cookies/{number}",
                            cookies={"currency": "CHF", "n": f"{number}"},
                            meta={"cookiejar": number},
                        )
                        yield Request(
                            f"http://demo.test/mirror/cookies/{100 + number}?set=1",
                            cookies=[{"name": "lang", "value": "rm", "domain": "127.0.0.1", "path": "/mirror"}],
                            meta={"cookiejar": f"list {number}"},
                        )
                        yield Request(
                            f"http://demo.test/mirror/cookies/{200 + number}?never=1",
                            cookies={"not": "sent"},
                            headers={"Cookie": "own=header"},
                            meta={"cookiejar": f"none {number}", "dont_merge_cookies": True},
                        )

                def parse(self, response):
                    data = response.json()
                    yield data
                    if data["number"] < 1000:
                        yield response.follow(
                            f"/mirror/cookies/{1000 + data['number']}",
                            meta={"cookiejar": response.meta["cookiejar"]},
                        )
        """,
    ),
    Case(
        name="cookies-own-subclass",
        group="cookies",
        shows="a project's own subclass of `CookiesMiddleware`",
        settings="""
        DOWNLOADER_MIDDLEWARES = {
            "scrapy.downloadermiddlewares.cookies.CookiesMiddleware": None,
            "shop.cookies.Counted": 700,
        }
        """,
        files={
            "shop/cookies.py": """
                from scrapy.downloadermiddlewares.cookies import CookiesMiddleware

                class Counted(CookiesMiddleware):
                    def process_request(self, request, *args, **kwargs):
                        request.cookies.setdefault("consent", "yes")
                        return super().process_request(request, *args, **kwargs)
            """
        },
        source="""
            from scrapy import Request, Spider

            class Case(Spider):
                name = "case"
                start_urls = ["http://demo.test/mirror/cookies/0?session=s1"]

                def parse(self, response):
                    for number in range(1, 40):
                        yield response.follow(f"/mirror/cookies/{number}", self.parse_last)

                def parse_last(self, response):
                    yield response.json()
        """,
    ),
    Case(
        name="cookies-own",
        group="cookies",
        shows="a project's own cookies middleware, from a session in the request's `meta`",
        settings="""
        COOKIES_ENABLED = False
        DOWNLOADER_MIDDLEWARES = {"shop.cookies.Own": 700}
        """,
        files={
            "shop/cookies.py": """
                class Own:
                    def process_request(self, request, spider=None):
                        session = request.meta.get("session")
                        if session:
                            request.headers["Cookie"] = f"session={session}"
            """
        },
        source="""
            from scrapy import Request, Spider

            class Case(Spider):
                name = "case"
                start_urls = ["http://demo.test/mirror/cookies/0?session=s1"]

                def parse(self, response):
                    session = response.headers["Set-Cookie"].decode().partition("=")[2].partition(";")[0]
                    for number in range(1, 40):
                        yield response.follow(
                            f"/mirror/cookies/{number}", self.parse_last, meta={"session": session}
                        )

                def parse_last(self, response):
                    yield response.json()
        """,
    ),
    Case(
        name="cookies-off",
        group="cookies",
        shows="`COOKIES_ENABLED = False`: nothing is sent back",
        settings="COOKIES_ENABLED = False\n",
        source="""
            from scrapy import Request, Spider

            class Case(Spider):
                name = "case"

                async def start(self):
                    for number in range(20):
                        yield Request(f"http://demo.test/mirror/cookies/{number}?a=1")

                def parse(self, response):
                    data = response.json()
                    yield data
                    if data["number"] < 100:
                        yield response.follow(f"/mirror/cookies/{100 + data['number']}?a=2")
        """,
    ),
    Case(
        name="logout",
        group="cookies",
        shows="a sign-out on one process ends the session on all",
        source="""
            from scrapy import FormRequest, Request, Spider

            class Case(Spider):
                name = "case"
                start_urls = ["http://demo.test/login"]

                def parse(self, response):
                    yield FormRequest.from_response(
                        response, formdata={"username": "reader", "password": "books"}, callback=self.parse_account
                    )

                def parse_account(self, response):
                    for number in range(1001, 1031):
                        yield response.follow(f"/account/orders/{number}/", self.parse_order)
                    # Behind all of them, and slow, so that none of them is under way.
                    yield response.follow("/slow/1?ms=1500", self.parse_slow, priority=-1)

                def parse_order(self, response):
                    yield {"url": response.url, "title": response.css(".title::text").get()}

                def parse_slow(self, response):
                    yield response.follow("/logout", self.parse_logout)

                def parse_logout(self, response):
                    for number in range(1001, 1031):
                        yield response.follow(
                            f"/account/orders/{number}/?again", self.parse_last, meta={"dont_redirect": True},
                            errback=self.failed,
                        )

                def parse_last(self, response):
                    yield {"still": response.url}

                def failed(self, failure):
                    yield {"gone": failure.request.url, "status": failure.value.response.status}
        """,
    ),
]
