"""What becomes of a request: its order, its copies, its failures, and all that it carries."""

from __future__ import annotations

from typing import Final

from tests.parity.case import Case, Unequal, Way

#: What a filter that has an opinion of its own is warned of.
_OWN_FILTER: Final = Unequal("log", r"decides in each crawl process by itself", "a warning names the filter")
_EACH_ITS_OWN: Final = "with several processes each has a filter of its own: use `--workers 1`"
_EQUAL_ADDRESSES: Final = "which of the equal addresses comes first is a matter of order"
_SEVERAL: Final[tuple[Way, ...]] = ("3 processes",)
#: A warning with an address in it, which Scrapy gives once.
_META_COPIED: Final = Unequal(
    "log", r"\[scrapy\.spidermiddlewares\.metacopy\]", "Scrapy says this once: here each process does", _SEVERAL
)


def _order(name: str, shows: str, settings: str = "") -> Case:
    """One request at a time: pages come in the very order of Scrapy's queues."""
    return Case(
        name=name,
        group="requests",
        shows=shows,
        concurrency=1,
        args=("-O", "order.jsonl"),
        exact=("order.jsonl",),
        least_processes=1,
        unequal=(
            Unequal("files", r"order\.jsonl", "several processes work side by side: order within one", _SEVERAL),
        ),
        settings=settings,
        source="""
            from scrapy import Request, Spider

            class Case(Spider):
                name = "case"
                start_urls = [f"http://demo.test/trouble/fine/{n}" for n in (1, 2, 3)]

                def parse(self, response):
                    number = int(response.url.rpartition("/")[2])
                    yield {"page": number}
                    if number < 100:
                        for child in range(number * 10, number * 10 + 4):
                            yield response.follow(f"/trouble/fine/{child}", priority=child % 10 % 3)
        """,
    )


CASES: Final = [
    _order("order-lifo", "one request at a time: priorities, then the newest first, as Scrapy's queues have it"),
    _order(
        "order-fifo",
        "one request at a time, breadth first: `DEPTH_PRIORITY` and FIFO queues",
        """
        DEPTH_PRIORITY = 1
        SCHEDULER_DISK_QUEUE = "scrapy.squeues.PickleFifoDiskQueue"
        SCHEDULER_MEMORY_QUEUE = "scrapy.squeues.FifoMemoryQueue"
        """,
    ),
    _order(
        "order-priority-queue",
        "one request at a time, with `ScrapyPriorityQueue`",
        'SCHEDULER_PRIORITY_QUEUE = "scrapy.pqueues.ScrapyPriorityQueue"',
    ),
    Case(
        name="duplicates",
        group="requests",
        is_fast=True,
        shows="equal requests are one, those with `dont_filter` are each done; both are counted",
        source="""
            from scrapy import Request, Spider

            class Case(Spider):
                name = "case"
                start_urls = [f"http://demo.test/trouble/fine/{n}" for n in range(20)]

                def parse(self, response):
                    for number in range(100, 104):
                        yield Request(f"http://demo.test/trouble/fine/{number}?a=1&b=2", self.parse_page)
                        yield Request(f"http://demo.test/trouble/fine/{number}?b=2&a=1", self.parse_page)
                    yield Request("http://demo.test/trouble/fine/200", self.parse_page, dont_filter=True)
                    yield Request("http://demo.test/trouble/fine/300", self.parse_page, method="HEAD")

                def parse_page(self, response):
                    yield {"page": response.url}
        """,
        unequal=(
            Unequal(
                "items",
                r"fine/10\d\?",
                _EQUAL_ADDRESSES,
            ),
            Unequal("requests", r"fine/10\d\?", _EQUAL_ADDRESSES),
        ),
    ),
    Case(
        name="redirects",
        group="requests",
        shows="redirects, chains of them, `dont_redirect`, meta refresh, and what `meta` tells of them",
        source="""
            from scrapy import Request, Spider

            class Case(Spider):
                name = "case"

                async def start(self):
                    for number in range(6):
                        for status in (301, 302, 303, 307, 308):
                            yield Request(f"http://demo.test/trouble/moved/{status}/{number}")
                        yield Request(f"http://demo.test/trouble/chain/5/{number}")
                        yield Request(f"http://demo.test/mirror/refresh/{number}")
                        yield Request(
                            f"http://demo.test/trouble/moved/302/{100 + number}",
                            meta={"dont_redirect": True, "handle_httpstatus_list": [302]},
                        )
                        yield Request(f"http://demo.test/trouble/moved/301/{200 + number}", method="POST", body=b"x")

                def parse(self, response):
                    yield {
                        "url": response.url,
                        "status": response.status,
                        "method": response.request.method,
                        "urls": response.meta.get("redirect_urls"),
                        "reasons": response.meta.get("redirect_reasons"),
                        "times": response.meta.get("redirect_times"),
                    }
        """,
    ),
    Case(
        name="redirects-too-many",
        group="requests",
        shows="`REDIRECT_MAX_TIMES`: the errback gets what was given up",
        settings="REDIRECT_MAX_TIMES = 2\nREDIRECT_PRIORITY_ADJUST = 5\n",
        source="""
            from scrapy import Request, Spider

            class Case(Spider):
                name = "case"

                async def start(self):
                    for number in range(30):
                        yield Request(f"http://demo.test/trouble/chain/{number % 5}/{number}", errback=self.failed)

                def parse(self, response):
                    yield {"url": response.url, "priority": response.request.priority}

                def failed(self, failure):
                    yield {"failed": failure.request.url, "type": failure.type.__name__}
        """,
    ),
    Case(
        name="retries",
        group="requests",
        unequal=(_META_COPIED,),
        shows="pages that heal after some tries, pages that never do, and `get_retry_request()`",
        settings="RETRY_TIMES = 3\n",
        source="""
            from scrapy import Request, Spider
            from scrapy.downloadermiddlewares.retry import get_retry_request

            class Case(Spider):
                name = "case"

                async def start(self):
                    for number in range(20):
                        yield Request(f"http://demo.test/trouble/heal/{number}?fails={number % 4}")
                        yield Request(f"http://demo.test/trouble/fine/{number}")
                    for number in range(3):
                        yield Request(f"http://demo.test/trouble/dead/{number}")
                        yield Request(f"http://demo.test/trouble/dead/{10 + number}", meta={"dont_retry": True})
                        yield Request(f"http://demo.test/trouble/dead/{20 + number}", meta={"max_retry_times": 1})
                        yield Request(f"http://demo.test/trouble/broken/{number}", self.parse_broken)

                def parse(self, response):
                    yield {"url": response.url, "tries": response.meta.get("retry_times", 0)}

                def parse_broken(self, response):
                    again = get_retry_request(response.request, spider=self, reason="broken")
                    if again is not None:
                        yield again
                    else:
                        yield {"broken": response.url, "tries": response.meta["retry_times"]}
        """,
    ),
    Case(
        name="errbacks",
        group="requests",
        shows="errbacks for HTTP errors, refused connections and timeouts; they yield, too",
        settings="RETRY_ENABLED = False\n",
        source="""
            from scrapy import Request, Spider

            class Case(Spider):
                name = "case"

                async def start(self):
                    for number in range(15):
                        yield self.page(f"/trouble/missing/{number}")
                        yield self.page(f"/trouble/dead/{number}")
                        yield self.page(f"/trouble/fine/{number}")
                    yield self.page("/slow/1?ms=3000", meta={"download_timeout": 0.5})
                    yield Request("http://127.0.0.1:9/", self.parse, errback=self.failed)
                    yield self.page("/mirror/large/1?kb=200", meta={"download_maxsize": 1000})
                    yield Request("http://demo.test/trouble/gone/1")

                def page(self, path, **kwargs):
                    return Request(
                        f"http://demo.test{path}", errback=self.failed, cb_kwargs={"path": path}, **kwargs
                    )

                def parse(self, response, path=None):
                    yield {"url": response.url, "path": path}

                def failed(self, failure):
                    response = getattr(failure.value, "response", None)
                    path = failure.request.cb_kwargs.get("path")
                    self.logger.warning("%s: %s", path, failure.type.__name__)
                    yield {
                        "failed": failure.request.url,
                        "type": failure.type.__name__,
                        "status": response.status if response else None,
                        "path": path,
                    }
                    if path and path.startswith("/trouble/missing/"):
                        yield Request(f"http://demo.test/trouble/fine/{100 + int(path.rpartition('/')[2])}")
        """,
    ),
    Case(
        name="status-lists",
        group="requests",
        shows="`handle_httpstatus_list` of spider and request, `handle_httpstatus_all`, `HTTPERROR_ALLOWED_CODES`",
        settings="HTTPERROR_ALLOWED_CODES = [410]\nRETRY_TIMES = 1\n",
        source="""
            from scrapy import Request, Spider

            class Case(Spider):
                name = "case"
                handle_httpstatus_list = [404]

                async def start(self):
                    for number in range(8):
                        for kind in ("missing", "gone", "dead", "fine"):
                            yield Request(f"http://demo.test/trouble/{kind}/{number}")
                        yield Request(
                            f"http://demo.test/trouble/dead/{100 + number}", meta={"handle_httpstatus_list": [500]}
                        )
                        yield Request(
                            f"http://demo.test/trouble/gone/{100 + number}", meta={"handle_httpstatus_all": True}
                        )

                def parse(self, response):
                    yield {"url": response.url, "status": response.status}
        """,
    ),
    Case(
        name="exceptions",
        group="requests",
        shows="exceptions in callbacks and errbacks: tracebacks, stats, and what was yielded before",
        source="""
            from scrapy import Request, Spider

            class Case(Spider):
                name = "case"

                async def start(self):
                    for number in range(30):
                        yield Request(f"http://demo.test/trouble/fine/{number}", cb_kwargs={"number": number})
                    yield Request("http://demo.test/trouble/missing/1", errback=self.failed)

                def parse(self, response, number):
                    yield {"page": number}
                    if number % 5 == 0:
                        raise ValueError(f"no good: {number}")
                    yield Request(f"http://demo.test/trouble/fine/{100 + number}", self.parse_wrong)

                def parse_wrong(self, response):
                    if response.url.endswith("7"):
                        return 7
                    if response.url.endswith("8"):
                        return [{"a": 1}, 8]
                    if response.url.endswith("9"):
                        return None
                    return self.helper(response)

                def helper(self, response):
                    if response.url.endswith("6"):
                        {}["missing"]
                    return {"late": response.url}

                def failed(self, failure):
                    raise RuntimeError("an errback fails")
        """,
    ),
    Case(
        name="callback-kinds",
        group="requests",
        shows="callbacks that are coroutines and asynchronous generators; that return one output, a list, or nothing",
        source="""
            import asyncio
            from scrapy import Item, Field, Request, Spider

            class Page(Item):
                kind = Field()
                url = Field()

            class Case(Spider):
                name = "case"
                kinds = ("one", "several", "nothing", "coroutine", "generator", "waiting")

                async def start(self):
                    for number in range(8):
                        for kind in self.kinds:
                            yield Request(
                                f"http://demo.test/trouble/fine/{number}?kind={kind}", getattr(self, f"parse_{kind}")
                            )

                def parse_one(self, response):
                    return Page(kind="one", url=response.url)

                def parse_several(self, response):
                    again = Request(f"{response.url}&again=1", self.parse_one)
                    return [Page(kind="several", url=response.url), again]

                def parse_nothing(self, response):
                    self.logger.info("nothing on %s", response.url)

                async def parse_coroutine(self, response):
                    await asyncio.sleep(0.01)
                    return [Page(kind="coroutine", url=response.url), None]

                async def parse_generator(self, response):
                    yield Page(kind="generator", url=response.url)
                    await asyncio.sleep(0.01)
                    yield Request(f"{response.url}&again=1", self.parse_waiting)

                async def parse_waiting(self, response):
                    for part in range(2):
                        await asyncio.sleep(0.01)
                        yield {"part": part, "url": response.url}
        """,
    ),
    Case(
        name="cargo",
        group="requests",
        unequal=(_META_COPIED,),
        shows="`cb_kwargs`, and Items and a project's own objects in `meta`, along redirects and retries",
        source="""
            from dataclasses import dataclass, field
            from datetime import datetime, timezone
            from decimal import Decimal
            from scrapy import Field, Item, Request, Spider

            class Page(Item):
                name = Field()
                seen = Field()

            @dataclass
            class Cart:
                owner: str
                pages: list = field(default_factory=list)

            class Node:
                def __init__(self, name, parent=None):
                    self.name = name
                    self.parent = parent

                def path(self):
                    return [*(self.parent.path() if self.parent else ()), self.name]

            class Case(Spider):
                name = "case"

                async def start(self):
                    for number in range(12):
                        yield Request(
                            f"http://demo.test/trouble/chain/2/{number}",
                            cb_kwargs={
                                "cart": Cart(f"reader {number}"),
                                "when": datetime(2024, 5, 1, tzinfo=timezone.utc),
                            },
                            meta={
                                "page": Page(name=f"é {number}", seen={1, 2}),
                                "node": Node("root"),
                                "price": Decimal("1.10"),
                                "raw": b"\\xff\\x00",
                                "pair": (1, ("a", None)),
                            },
                        )

                def parse(self, response, cart, when):
                    cart.pages.append(response.url)
                    page = response.meta["page"]
                    page["seen"] = page["seen"] | {3}
                    yield Request(
                        f"{response.url.replace('landed/chain-', 'heal/')}?fails=1",
                        self.parse_last,
                        cb_kwargs={"cart": cart, "when": when},
                        meta={**response.meta, "node": Node("leaf", response.meta["node"])},
                    )

                def parse_last(self, response, cart, when):
                    meta = response.meta
                    yield {
                        "url": response.url,
                        "owner": cart.owner,
                        "pages": cart.pages,
                        "when": when.isoformat(),
                        "name": meta["page"]["name"],
                        "type": type(meta["page"]).__name__,
                        "seen": sorted(meta["page"]["seen"]),
                        "path": meta["node"].path(),
                        "price": str(meta["price"]),
                        "raw": list(meta["raw"]),
                        "pair": repr(meta["pair"]),
                        "depth": meta["depth"],
                        "retry": meta["retry_times"],
                    }
        """,
    ),
    Case(
        name="request-classes",
        group="requests",
        shows="`FormRequest`, `JsonRequest`, `XmlRpcRequest` and a project's own classes, with what they send",
        source="""
            from scrapy import FormRequest, Request, Spider
            from scrapy.http import JsonRequest, XmlRpcRequest

            class Tagged(Request):
                attributes = (*Request.attributes, "tag")

                def __init__(self, *args, tag=None, **kwargs):
                    self.tag = tag
                    super().__init__(*args, **kwargs)

            class Plain(Request):
                # Its attribute is nowhere in "attributes".
                def __init__(self, *args, note="", **kwargs):
                    super().__init__(*args, **kwargs)
                    self.note = note

            class Case(Spider):
                name = "case"
                echo = "http://demo.test/mirror/echo"

                async def start(self):
                    for number in range(10):
                        text = str(number)
                        yield FormRequest(self.echo, formdata={"n": text, "city": "Zürich"})
                        yield FormRequest(self.echo, method="GET", formdata={"n": text})
                        yield JsonRequest(self.echo, data={"n": number, "list": [1, None]})
                        yield XmlRpcRequest(self.echo, methodname="n", params=(number,))
                        yield Tagged(f"{self.echo}?n={number}", tag={"n": number}, headers={"X-Requested-With": "me"})
                        yield Plain(f"{self.echo}?m={number}", note=f"note {number}")
                        yield Request(
                            f"{self.echo}?put={number}",
                            method="PUT",
                            body="ünï",
                            encoding="latin-1",
                            headers={"Content-Type": "text/plain"},
                            flags=["a flag"],
                        )
                        yield Request.from_curl(f"curl '{self.echo}?curl={number}' -H 'Accept: text/x' -d 'a=1'")

                def parse(self, response):
                    request = response.request
                    yield {
                        "class": type(request).__name__,
                        "tag": getattr(request, "tag", "none"),
                        "note": getattr(request, "note", "none"),
                        "encoding": request.encoding,
                        "flags": request.flags,
                        **response.json(),
                    }
        """,
    ),
    Case(
        name="request-attributes",
        group="requests",
        shows="classes of requests with arguments and attributes of their own, which Scrapy is not told of",
        source="""
            from scrapy import Request, Spider

            class Signed(Request):
                def __init__(self, url, key, **kwargs):
                    super().__init__(f"{url}&key={key}", **kwargs)
                    self.key = key
                    self.history = [url]

            class Case(Spider):
                name = "case"

                async def start(self):
                    for number in range(30):
                        yield Signed(f"http://demo.test/trouble/heal/{number}?fails=0", f"k{number}")

                def parse(self, response):
                    request = response.request
                    request.history.append(response.url)
                    yield {"key": request.key, "history": request.history, "type": type(request).__name__}
        """,
    ),
    Case(
        name="meta-shared",
        group="requests",
        preflight=frozenset({"shared-object"}),
        shows="one object in the `meta` of several requests",
        unequal=(
            Unequal(
                "items",
                '"left"',
                "each request carries a copy: what a callback changes in it, others do not see",
                ways=("3 processes",),
            ),
            Unequal("stats", "item_scraped_count", "see there", ways=("3 processes",)),
        ),
        source="""
            from scrapy import Request, Spider

            class Case(Spider):
                name = "case"

                async def start(self):
                    for number in range(10):
                        basket = {"left": 4, "number": number}
                        for part in range(4):
                            yield Request(
                                f"http://demo.test/trouble/fine/{number}?part={part}", meta={"basket": basket}
                            )

                def parse(self, response):
                    basket = response.meta["basket"]
                    basket["left"] -= 1
                    if not basket["left"]:
                        yield basket
        """,
    ),
    Case(
        name="functions",
        group="requests",
        preflight=frozenset({"local-callback"}),
        shows="lambdas, closures, partials and plain functions as callbacks and errbacks; open handles in `meta`",
        unequal=(
            Unequal(
                "log", r"cannot travel", "a warning names the first: such requests stay on the process that made them"
            ),
        ),
        source="""
            import functools
            import threading
            from scrapy import Request, Spider

            def parse_plain(response):
                yield {"plain": response.url}

            class Helper:
                def parse(self, response):
                    yield {"helper": response.url}

            class Case(Spider):
                name = "case"
                start_urls = [f"http://demo.test/trouble/fine/{n}" for n in range(12)]

                def parse(self, response):
                    number = int(response.url.rpartition("/")[2])
                    url = f"http://demo.test/trouble/fine/{100 + number}"
                    yield {"page": number}

                    def parse_inner(response):
                        yield {"inner": number, "url": response.url}
                        yield response.follow(f"/trouble/fine/{200 + number}", self.parse_last)

                    yield Request(f"{url}?lambda", lambda response: [{"lambda": number}])
                    yield Request(f"{url}?inner", parse_inner)
                    yield Request(f"{url}?partial", functools.partial(self.parse_partial, number))
                    yield Request(f"{url}?plain", parse_plain)
                    yield Request(f"{url}?helper", Helper().parse)
                    yield Request(f"{url}?lock", self.parse_lock, meta={"lock": threading.Lock()})
                    yield Request(
                        f"http://demo.test/trouble/missing/{number}", errback=lambda failure: [{"failed": number}]
                    )

                def parse_partial(self, number, response):
                    yield {"partial": number}
                    yield response.follow(f"/trouble/fine/{200 + number}", self.parse_last)

                def parse_lock(self, response):
                    with response.meta["lock"]:
                        yield {"lock": response.url}

                def parse_last(self, response):
                    yield {"last": response.url}
        """,
    ),
    Case(
        name="large-bodies",
        group="requests",
        shows="request bodies of 3 MB and responses of 4 MB; a page with 3000 links",
        source="""
            import hashlib
            from scrapy import Request, Spider

            class Case(Spider):
                name = "case"
                custom_settings = {"DOWNLOAD_WARNSIZE": 0}

                async def start(self):
                    for number in range(12):
                        body = hashlib.sha256(b"%d" % number).digest() * (3 * 1024 * 32)
                        yield Request("http://demo.test/mirror/echo", self.parse_echo, method="POST", body=body)
                        yield Request(f"http://demo.test/mirror/large/{number}?kb=4096", self.parse_large)
                    yield Request("http://demo.test/mirror/large/50?kb=1", self.parse_many)

                def parse_echo(self, response):
                    yield response.json()

                def parse_large(self, response):
                    yield {"url": response.url, "bytes": len(response.body), "end": response.text[-20:]}

                def parse_many(self, response):
                    for number in range(3000):
                        yield Request(f"http://demo.test/trouble/fine/{number % 60}", self.parse_page)

                def parse_page(self, response):
                    yield {"page": response.url}
        """,
    ),
    Case(
        name="inline-downloads",
        group="requests",
        shows="`await` of downloads inside a callback, one after the other and several at once",
        source="""
            import asyncio
            from scrapy import Request, Spider
            from scrapy.utils.defer import maybe_deferred_to_future

            class Case(Spider):
                name = "case"
                start_urls = [f"http://demo.test/trouble/fine/{n}" for n in range(24)]

                def download(self, url):
                    engine = self.crawler.engine
                    if hasattr(engine, "download_async"):
                        return engine.download_async(Request(url))
                    return maybe_deferred_to_future(engine.download(Request(url)))

                async def parse(self, response):
                    number = int(response.url.rpartition("/")[2])
                    first = await self.download(f"http://demo.test/trouble/fine/{100 + number}")
                    both = await asyncio.gather(
                        self.download(f"http://demo.test/trouble/landed/a-{number}"),
                        self.download(f"http://demo.test/trouble/moved/302/{number}"),
                    )
                    yield {"page": number, "first": first.url, "both": [each.url for each in both]}
                    yield response.follow(f"/trouble/fine/{200 + number}", self.parse_last)

                async def parse_last(self, response):
                    try:
                        missing = await self.download(f"{response.url}?inline=1".replace("fine", "missing"))
                    except Exception as error:
                        yield {"error": type(error).__name__}
                    else:
                        yield {"last": response.url, "missing": missing.status}
        """,
    ),
    Case(
        name="close-spider",
        group="requests",
        shows="`CloseSpider` raised in a callback: the reason, and the exit code",
        source="""
            from scrapy import Request, Spider
            from scrapy.exceptions import CloseSpider

            class Case(Spider):
                name = "case"

                async def start(self):
                    for number in range(40):
                        yield Request(f"http://demo.test/trouble/fine/{number}")
                    yield Request("http://demo.test/slow/1?ms=1500", self.parse_last, priority=-10)

                def parse(self, response):
                    yield {"url": response.url}

                def parse_last(self, response):
                    yield {"url": response.url}
                    raise CloseSpider("it is enough")
        """,
    ),
    Case(
        name="close-spider-early",
        group="requests",
        shows="`CloseSpider` in the middle of a crawl: what is in flight is finished, the rest is not begun",
        unequal=(
            Unequal("items", "", "what is in flight then differs from run to run, with Scrapy, too"),
            Unequal("requests", "", "what is in flight then differs from run to run, with Scrapy, too"),
            Unequal(
                "stats", "^(?!finish_reason)", "what is in flight then differs from run to run, with Scrapy, too"
            ),
        ),
        least_processes=1,
        source="""
            from scrapy import Request, Spider
            from scrapy.exceptions import CloseSpider

            class Case(Spider):
                name = "case"

                async def start(self):
                    for number in range(400):
                        yield Request(f"http://demo.test/trouble/fine/{number}", cb_kwargs={"number": number})

                def parse(self, response, number):
                    yield {"url": response.url}
                    if number == 50:
                        raise CloseSpider("it is enough")
        """,
        also=lambda run: (
            [] if len(run.paths) < 120 else [f"{len(run.paths)} pages were asked for, although the spider closed"]
        ),
    ),
    Case(
        name="fingerprinter",
        group="requests",
        shows="a project's own `REQUEST_FINGERPRINTER_CLASS`, which leaves out a session's number, and sees a header",
        settings='REQUEST_FINGERPRINTER_CLASS = "shop.fingerprints.Fingerprinter"\n',
        files={
            "shop/fingerprints.py": """
                import re
                from scrapy.utils.request import fingerprint

                class Fingerprinter:
                    def fingerprint(self, request):
                        url = re.sub(r"[?&]sid=\\d+", "", request.url)
                        return fingerprint(request.replace(url=url), include_headers=["Accept-Language"])
            """
        },
        source="""
            from scrapy import Request, Spider

            class Case(Spider):
                name = "case"
                start_urls = [f"http://demo.test/trouble/fine/{n}" for n in range(20)]

                def parse(self, response):
                    for number in range(100, 110):
                        for language in ("de", "fr"):
                            yield Request(
                                f"http://demo.test/trouble/fine/{number}?sid={response.url.rpartition('/')[2]}",
                                self.parse_page,
                                headers={"Accept-Language": language},
                            )

                def parse_page(self, response):
                    language = response.request.headers["Accept-Language"].decode()
                    yield {"page": response.url.partition("?")[0], "language": language}
        """,
        unequal=(Unequal("requests", "sid=", _EQUAL_ADDRESSES),),
    ),
    Case(
        name="filter-off",
        group="requests",
        shows="`BaseDupeFilter`: nothing is filtered",
        settings='DUPEFILTER_CLASS = "scrapy.dupefilters.BaseDupeFilter"\nDEPTH_LIMIT = 3\n',
        source="""
            from scrapy import Spider

            class Case(Spider):
                name = "case"
                start_urls = ["http://demo.test/trouble/fine/1"] * 12

                def parse(self, response):
                    yield {"depth": response.meta["depth"]}
                    yield response.follow("/trouble/fine/1")
                    yield response.follow("/trouble/fine/2")
        """,
    ),
    Case(
        name="filter-subclass",
        group="requests",
        shows="a subclass of `RFPDupeFilter` with another fingerprint: it holds for the whole task",
        settings='DUPEFILTER_CLASS = "shop.filters.NoQuery"\n',
        files={
            "shop/filters.py": """
                from scrapy.dupefilters import RFPDupeFilter

                class NoQuery(RFPDupeFilter):
                    def request_fingerprint(self, request):
                        return super().request_fingerprint(request.replace(url=request.url.partition("?")[0]))
            """
        },
        source="""
            from scrapy import Spider

            class Case(Spider):
                name = "case"
                start_urls = [f"http://demo.test/trouble/fine/{n}" for n in range(20)]

                def parse(self, response):
                    for number in range(100, 110):
                        yield response.follow(f"/trouble/fine/{number}?{response.url[-1]}", self.parse_page)

                def parse_page(self, response):
                    yield {"page": response.url.partition("?")[0]}
        """,
        unequal=(Unequal("requests", r"\?\d", _EQUAL_ADDRESSES),),
    ),
    Case(
        name="filter-own",
        group="requests",
        preflight=frozenset({"dupefilter"}),
        shows="a project's own filter that looks at the request alone",
        settings='DUPEFILTER_CLASS = "shop.filters.NoSevens"\n',
        files={
            "shop/filters.py": """
                from scrapy.dupefilters import BaseDupeFilter

                class NoSevens(BaseDupeFilter):
                    def __init__(self, crawler):
                        self.stats = crawler.stats

                    @classmethod
                    def from_crawler(cls, crawler):
                        return cls(crawler)

                    def request_seen(self, request):
                        return request.url.endswith("7")

                    def log(self, request, spider):
                        self.stats.inc_value("sevens")
            """
        },
        source="""
            from scrapy import Request, Spider

            class Case(Spider):
                name = "case"

                async def start(self):
                    for number in range(40):
                        yield Request(f"http://demo.test/trouble/fine/{number}")

                def parse(self, response):
                    yield {"page": response.url}
                    if len(response.url) < len("http://demo.test/trouble/fine/100"):
                        yield response.follow(f"/trouble/fine/1{response.url.rpartition('/')[2]}")
        """,
        unequal=(_OWN_FILTER,),
    ),
    Case(
        name="filter-own-memory",
        group="requests",
        preflight=frozenset({"dupefilter"}),
        shows="a project's own filter that remembers requests in the process",
        settings='DUPEFILTER_CLASS = "shop.filters.Thrice"\n',
        files={
            "shop/filters.py": """
                from collections import Counter
                from scrapy.dupefilters import BaseDupeFilter

                class Thrice(BaseDupeFilter):
                    def __init__(self):
                        self.counts = Counter()

                    def log(self, request, spider):
                        pass

                    def request_seen(self, request):
                        self.counts[request.url] += 1
                        return self.counts[request.url] > 3
            """
        },
        source="""
            from scrapy import Spider

            class Case(Spider):
                name = "case"
                start_urls = [f"http://demo.test/trouble/fine/{n}" for n in range(30)]

                def parse(self, response):
                    yield response.follow("/trouble/landed/one", self.parse_page, dont_filter=False)

                def parse_page(self, response):
                    yield {"page": response.url}
        """,
        unequal=(
            _OWN_FILTER,
            Unequal("items", "", _EACH_ITS_OWN, _SEVERAL),
            Unequal("requests", "landed", _EACH_ITS_OWN, _SEVERAL),
            Unequal("stats", "^(?!finish_reason)", _EACH_ITS_OWN, _SEVERAL),
        ),
    ),
    Case(
        name="own-scheduler",
        group="requests",
        shows="a project's own `SCHEDULER`",
        refused=r"SCHEDULER is 'shop\.schedulers\.Mine'.*use scrapy crawl",
        settings='SCHEDULER = "shop.schedulers.Mine"\n',
        files={
            "shop/schedulers.py": """
                from scrapy.core.scheduler import Scheduler

                class Mine(Scheduler):
                    pass
            """
        },
        source="""
            from scrapy import Spider

            class Case(Spider):
                name = "case"
                start_urls = ["http://demo.test/trouble/fine/1"]

                def parse(self, response):
                    yield {"page": response.url}
        """,
    ),
    Case(
        name="referers",
        group="requests",
        shows="the Referer of each request, `REFERRER_POLICY`, default headers, and HTTP authentication",
        settings='DEFAULT_REQUEST_HEADERS = {"Accept-Language": "rm"}\n',
        source="""
            from scrapy import Request, Spider

            class Case(Spider):
                name = "case"
                start_urls = [f"http://demo.test/mirror/echo?first={n}" for n in range(24)]
                http_user, http_pass, http_auth_domain = "reader", "books", "127.0.0.1"

                def parse(self, response):
                    yield response.json()
                    first = response.url.rpartition("=")[2]
                    for policy in ("no-referrer", "origin", "unsafe-url"):
                        yield response.follow(
                            f"/mirror/echo?policy={policy}&n={first}",
                            self.parse_last,
                            meta={"referrer_policy": policy},
                        )

                def parse_last(self, response):
                    yield {"depth": response.meta["depth"], **response.json()}
        """,
    ),
    Case(
        name="offsite",
        group="requests",
        shows="`allowed_domains`: requests beyond them are filtered, counted and told once",
        source="""
            from scrapy import Request, Spider

            class Case(Spider):
                name = "case"
                allowed_domains = ["127.0.0.1"]
                start_urls = [f"http://demo.test/trouble/fine/{n}" for n in range(24)]

                def parse(self, response):
                    number = int(response.url.rpartition("/")[2])
                    yield {"page": number}
                    yield Request(f"http://other.test/{number}", self.parse)
                    yield Request(f"http://elsewhere.test/{number % 2}", self.parse)
                    if number < 100:
                        yield response.follow(f"/trouble/fine/{100 + number}")
        """,
    ),
    Case(
        name="engine-crawl",
        group="requests",
        shows="requests that a callback hands to `engine.crawl()` by itself",
        source="""
            from scrapy import Request, Spider

            class Case(Spider):
                name = "case"
                start_urls = [f"http://demo.test/trouble/fine/{n}" for n in range(24)]

                def parse(self, response):
                    number = int(response.url.rpartition("/")[2])
                    yield {"page": number}
                    self.crawler.engine.crawl(
                        Request(f"http://demo.test/trouble/fine/{100 + number % 12}", self.parse_last)
                    )

                def parse_last(self, response):
                    yield {"last": response.url}
        """,
    ),
    Case(
        name="addresses",
        group="requests",
        shows="addresses with other than ASCII letters, fragments and odd queries; pages in other encodings",
        source="""
            from scrapy import Spider

            class Case(Spider):
                name = "case"
                start_urls = [
                    *(f"http://demo.test/trouble/fine/{n}?q=ä ö&x=%20+&y=[{n}]#part" for n in range(20)),
                    "http://demo.test/trouble/encoding/naïve-東京",
                    "http://demo.test/trouble/encoding/latin-1",
                    "http://demo.test/trouble/encoding/gzip",
                ]

                def parse(self, response):
                    yield {
                        "url": response.url,
                        "request": response.request.url,
                        "encoding": response.encoding,
                        "value": response.css(".value::text").get(),
                    }
        """,
    ),
    Case(
        name="example-trouble",
        group="example",
        is_example=True,
        spider="trouble",
        args=("-a", "base=http://demo.test", "-O", "items.jsonl"),
        loggers=("bookshop",),
        shows="redirects, errors, retries and odd encodings",
    ),
]
