"""Project shapes: where a project's parts are, what it plugs in, and how it is started."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Final

from tests.parity.case import Case, Unequal
from tests.parity.run import Run

#: A spider of forty pages, as plain as can be.
_PAGES: Final = """
import scrapy


class Case(scrapy.Spider):
    name = "case"
    start_urls = [f"http://demo.test/trouble/fine/{n}" for n in range(40)]

    def parse(self, response):
        self.logger.info("page %s", response.url)
        yield {"url": response.url, "bot": self.settings["BOT_NAME"]}
"""
#: The settings of a project ``shop``.
_SETTINGS: Final = 'BOT_NAME = "shop"\nSPIDER_MODULES = ["shop.spiders"]\nTELNETCONSOLE_ENABLED = False\n'
_CFG: Final = "[settings]\ndefault = shop.settings\n"


def _project(
    spiders: str = _PAGES, *, settings: str = "", below: str = "", package: str = "shop", inits: bool = True
) -> Mapping[str, str]:
    """The files of a project as ``scrapy startproject`` lays them out, without its scrapy.cfg."""
    files = {
        f"{package}/settings.py": _SETTINGS.replace("shop", package) + textwrap.dedent(settings),
        f"{package}/spiders/case.py": textwrap.dedent(spiders),
    }
    if inits:
        files |= {f"{package}/__init__.py": "", f"{package}/spiders/__init__.py": ""}
    return {below + name: text for name, text in files.items()}


#: How a project may name its reactor, and what that is called.
_REACTORS: Final = {
    "asyncio": 'TWISTED_REACTOR = "twisted.internet.asyncioreactor.AsyncioSelectorReactor"',
    "select": 'TWISTED_REACTOR = "twisted.internet.selectreactor.SelectReactor"',
    "poll": 'TWISTED_REACTOR = "twisted.internet.pollreactor.PollReactor"',
    "epoll": 'TWISTED_REACTOR = "twisted.internet.epollreactor.EPollReactor"',
    "default": "TWISTED_REACTOR = None",
    "off": "TWISTED_REACTOR_ENABLED = False",
    "forced": "FORCE_CRAWLER_PROCESS = True",
}
_STATE_OF_EACH: Final = "each crawl process has a spider of its own, which counts its own pages"
_KEPT: Final = "the cache is the same directory, in files of its own"


def _asks_nothing(run: Run) -> list[str]:
    return [f"the second crawl asked for {run.paths}"] if run.paths else []


CASES: Final = [
    # --- where things are
    Case(
        name="shape-tutorial",
        group="shapes",
        shows="the first spider of Scrapy's tutorial, run in a directory below the project: its files are there",
        directory="notes",
        args=(),
        least_processes=1,
        unequal=(Unequal("log", r"Spider\.log\(\) is deprecated", "the path of the file in it is the sender's"),),
        source="""
            from pathlib import Path

            import scrapy


            class QuotesSpider(scrapy.Spider):
                name = "case"

                async def start(self):
                    for page in range(1, 21):
                        yield scrapy.Request(url=f"http://demo.test/quotes/page/{page}/", callback=self.parse)

                def parse(self, response):
                    page = response.url.split("/")[-2]
                    filename = f"quotes-{page}.html"
                    Path(filename).write_bytes(response.body)
                    self.log(f"Saved file {filename}")
        """,
    ),
    Case(
        name="shape-several-projects",
        group="shapes",
        shows="a scrapy.cfg with two projects: the default one",
        files={
            **_project(),
            **_project(package="other"),
            "scrapy.cfg": _CFG + "second = other.settings\n",
        },
    ),
    Case(
        name="shape-scrapy-project",
        group="shapes",
        shows="a scrapy.cfg with two projects: the one that `SCRAPY_PROJECT` names",
        env={"SCRAPY_PROJECT": "second"},
        files={
            **_project(),
            **_project(package="other"),
            "scrapy.cfg": _CFG + "second = other.settings\n\n[datadir]\nsecond = var/other\n",
        },
    ),
    Case(
        name="shape-settings-module",
        group="shapes",
        shows="`SCRAPY_SETTINGS_MODULE` names other settings than the scrapy.cfg",
        env={"SCRAPY_SETTINGS_MODULE": "shop.night"},
        files={
            **_project(),
            "scrapy.cfg": _CFG,
            "shop/night.py": 'from shop.settings import *\n\nBOT_NAME = "night"\nUSER_AGENT = "night"\n',
        },
    ),
    Case(
        name="shape-no-scrapy-cfg",
        group="shapes",
        shows="no scrapy.cfg: `SCRAPY_SETTINGS_MODULE` and `PYTHONPATH` tell of the project",
        env={"SCRAPY_SETTINGS_MODULE": "shop.settings", "PYTHONPATH": "."},
        files=_project(),
    ),
    Case(
        name="shape-no-scrapy-cfg-elsewhere",
        group="shapes",
        shows="no scrapy.cfg, and the project is beside the working directory",
        env={"SCRAPY_SETTINGS_MODULE": "shop.settings", "PYTHONPATH": "../code"},
        directory="work",
        files=_project(below="code/"),
    ),
    Case(
        name="shape-src",
        group="shapes",
        shows="a `src` layout, with a second directory of packages and their data in the project",
        env={"PYTHONPATH": "src:libs"},
        files={
            **_project(
                """
                import scrapy
                from tables.read import ROWS


                class Case(scrapy.Spider):
                    name = "case"
                    start_urls = [f"http://demo.test/trouble/fine/{n}" for n in range(40)]

                    def parse(self, response):
                        yield {"url": response.url, "rows": ROWS}
                """,
                below="src/",
            ),
            "scrapy.cfg": _CFG,
            "libs/tables/__init__.py": "",
            "libs/tables/read.py": """
                from pathlib import Path

                ROWS = Path(__file__).with_name("rows.txt").read_text().split()
            """,
            "libs/tables/rows.txt": "one two\n",
        },
    ),
    Case(
        name="shape-local-packages",
        group="shapes",
        shows="packages beside the project, put on the path by its settings; one is a namespace package",
        directory="projects/shop",
        files={
            **_project(
                """
                import scrapy
                from common.names import NAME
                from common.deep.prices import price


                class Case(scrapy.Spider):
                    name = "case"
                    start_urls = [f"http://demo.test/trouble/fine/{n}" for n in range(40)]

                    def parse(self, response):
                        yield {"url": response.url, "name": NAME, "price": price(2)}
                """,
                below="projects/shop/",
                settings="""
                    import sys
                    from pathlib import Path

                    sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "shared"))
                """,
            ),
            "projects/shop/scrapy.cfg": _CFG,
            "shared/common/names.py": 'NAME = "naïve"\n',
            "shared/common/deep/prices.py": "def price(n):\n    return n * 2.5\n",
        },
    ),
    Case(
        name="shape-namespace-packages",
        group="shapes",
        shows="a project without any `__init__.py`",
        files={**_project(inits=False), "scrapy.cfg": _CFG},
    ),
    Case(
        name="shape-data-files",
        group="shapes",
        shows="data files read beside the module, through `pkgutil`, and in the working directory",
        directory="runs",
        files={
            "shop/__init__.py": "",
            "shop/rates.json": '{"rate": 1.5}',
            "shop/words.txt": "été 東京\n",
            "runs/seeds.csv": "".join(f"/trouble/fine/{n}\n" for n in range(40)),
        },
        source="""
            import json
            import pkgutil
            from pathlib import Path

            import scrapy

            WORDS = pkgutil.get_data("shop", "words.txt").decode().split()


            class Case(scrapy.Spider):
                name = "case"

                async def start(self):
                    with open("seeds.csv") as seeds:
                        for line in seeds:
                            yield scrapy.Request("http://demo.test" + line.strip())

                def parse(self, response):
                    rates = json.loads((Path(__file__).parent / "rates.json").read_text())
                    yield {"url": response.url, **rates, "words": WORDS, "here": Path("seeds.csv").exists()}
        """,
    ),
    # --- what is plugged in
    Case(
        name="shape-custom-settings",
        group="shapes",
        shows="`custom_settings`: feeds, pipelines, a user agent, a depth limit",
        args=(),
        files={
            "shop/pipelines.py": """
                class Numbers:
                    def open_spider(self, spider=None):
                        self.file = open("numbers.txt", "w")

                    def close_spider(self, spider=None):
                        self.file.close()

                    def process_item(self, item, spider=None):
                        self.file.write(item["url"] + "\\n")
                        return {**item, "seen": True}
            """,
        },
        source="""
            import scrapy


            class Case(scrapy.Spider):
                name = "case"
                custom_settings = {
                    "FEEDS": {"out/%(name)s.csv": {"format": "csv", "overwrite": True}},
                    "ITEM_PIPELINES": {"shop.pipelines.Numbers": 300},
                    "USER_AGENT": "shop (+http://demo.test)",
                    "DEPTH_LIMIT": 1,
                    "LOG_LEVEL": "DEBUG",
                }
                start_urls = [f"http://demo.test/trouble/fine/{n}" for n in range(20)]

                def parse(self, response):
                    yield {"url": response.url, "agent": response.request.headers["User-Agent"].decode()}
                    yield response.follow(f"{response.url}0")
        """,
    ),
    Case(
        name="shape-add-ons",
        group="shapes",
        shows="add-ons that name the spiders' module, and put in a pipeline, an extension, a middleware",
        settings='ADDONS = {"shop.addons.Loyalty": 100}\nSPIDER_MODULES = []\n',
        loggers=("shop",),
        files={
            "shop/addons.py": """
                import logging

                from scrapy import signals
                from scrapy.exceptions import DropItem

                logger = logging.getLogger(__name__)


                class Points:
                    def process_item(self, item, spider=None):
                        if item["url"].endswith("7"):
                            raise DropItem("seven")
                        return {**item, "points": item.get("points", 0) + 1}


                class Teller:
                    @classmethod
                    def from_crawler(cls, crawler):
                        made = cls()
                        made.stats = crawler.stats
                        crawler.signals.connect(made.told, signals.response_received)
                        return made

                    def told(self, response):
                        self.stats.inc_value("teller/responses")


                class Header:
                    def process_request(self, request, spider=None):
                        request.headers["X-Loyalty"] = "yes"


                class Loyalty:
                    @classmethod
                    def update_pre_crawler_settings(cls, settings):
                        settings.set("SPIDER_MODULES", ["shop.spiders"], "project")

                    def update_settings(self, settings):
                        settings["ITEM_PIPELINES"][Points] = 200
                        settings["EXTENSIONS"][Teller] = 0
                        settings["DOWNLOADER_MIDDLEWARES"][Header] = 543
                        settings.set("USER_AGENT", "loyal", "addon")
            """,
        },
        source="""
            import scrapy


            class Case(scrapy.Spider):
                name = "case"
                start_urls = [f"http://demo.test/trouble/fine/{n}" for n in range(40)]

                def parse(self, response):
                    yield {
                        "url": response.url,
                        "agent": response.request.headers["User-Agent"].decode(),
                        "loyal": response.request.headers["X-Loyalty"].decode(),
                    }
        """,
    ),
    Case(
        name="shape-middlewares",
        group="shapes",
        shows="spider and downloader middlewares as `startproject` writes them; `process_start` adds to it",
        settings="""
            SPIDER_MIDDLEWARES = {"shop.middlewares.ShopSpiderMiddleware": 543}
            DOWNLOADER_MIDDLEWARES = {"shop.middlewares.ShopDownloaderMiddleware": 543}
        """,
        unequal=(Unequal("log", r"Spider opened: case", "each crawl process has its middlewares", ("3 processes",)),),
        files={
            "shop/middlewares.py": """
                from scrapy import Request, signals


                class ShopSpiderMiddleware:
                    @classmethod
                    def from_crawler(cls, crawler):
                        s = cls()
                        s.crawler = crawler
                        crawler.signals.connect(s.spider_opened, signal=signals.spider_opened)
                        return s

                    def process_spider_input(self, response, spider=None):
                        return None

                    def process_spider_output(self, response, result, spider=None):
                        for i in result:
                            yield self.marked(i, response)

                    async def process_spider_output_async(self, response, result, spider=None):
                        async for i in result:
                            yield self.marked(i, response)

                    def marked(self, i, response):
                        if isinstance(i, dict):
                            self.crawler.stats.inc_value("marked")
                            i["marked"] = response.status
                        return i

                    def process_spider_exception(self, response, exception, spider=None):
                        return [{"failed": str(exception), "url": response.url}]

                    async def process_start(self, start):
                        async for item_or_request in start:
                            yield item_or_request
                        yield Request("http://demo.test/trouble/fine/1000")
                        yield {"url": "of the middleware"}

                    def spider_opened(self, spider):
                        spider.logger.info("Spider opened: %s" % spider.name)


                class ShopDownloaderMiddleware:
                    @classmethod
                    def from_crawler(cls, crawler):
                        s = cls()
                        s.crawler = crawler
                        crawler.signals.connect(s.spider_opened, signal=signals.spider_opened)
                        return s

                    def process_request(self, request, spider=None):
                        request.headers["X-Shop"] = "1"
                        self.crawler.stats.inc_value("sent")
                        return None

                    def process_response(self, request, response, spider=None):
                        if response.status == 503:
                            return request.replace(url=request.url.replace("broken", "fine"), dont_filter=True)
                        return response

                    def process_exception(self, request, exception, spider=None):
                        pass

                    def spider_opened(self, spider):
                        spider.logger.info("Spider opened: %s" % spider.name)
            """,
        },
        source="""
            import scrapy


            class Case(scrapy.Spider):
                name = "case"
                start_urls = [f"http://demo.test/trouble/fine/{n}" for n in range(40)]

                def parse(self, response):
                    if response.url.endswith("9"):
                        raise ValueError("nine")
                    yield {"url": response.url, "shop": response.request.headers["X-Shop"].decode()}
        """,
    ),
    Case(
        name="shape-extensions",
        group="shapes",
        shows="an extension with settings of its own that hears signals and counts into the stats",
        settings='EXTENSIONS = {"shop.extensions.Counting": 500}\nCOUNTING_ENABLED = True\n',
        unequal=(
            Unequal("log", r"(opened|closed) spider", "each crawl process has its extensions", ("3 processes",)),
        ),
        files={
            "shop/extensions.py": """
                import logging

                from scrapy import signals
                from scrapy.exceptions import NotConfigured

                logger = logging.getLogger(__name__)


                class Counting:
                    def __init__(self, stats):
                        self.stats = stats

                    @classmethod
                    def from_crawler(cls, crawler):
                        if not crawler.settings.getbool("COUNTING_ENABLED"):
                            raise NotConfigured
                        ext = cls(crawler.stats)
                        for name in ("spider_opened", "spider_closed", "item_scraped", "request_scheduled",
                                     "response_received", "request_reached_downloader", "spider_error"):
                            crawler.signals.connect(getattr(ext, name), signal=getattr(signals, name))
                        return ext

                    def spider_opened(self, spider):
                        logger.info("opened spider %s", spider.name)

                    def spider_closed(self, spider, reason):
                        logger.info("closed spider %s: %s", spider.name, reason)

                    def item_scraped(self, item, response, spider):
                        self.stats.inc_value("counting/item_scraped")
                        self.stats.max_value("counting/largest", len(response.body))

                    def request_scheduled(self, request):
                        self.stats.inc_value("counting/request_scheduled")

                    def response_received(self, response, request):
                        self.stats.inc_value(f"counting/response_received/{response.status}")

                    def request_reached_downloader(self, request):
                        self.stats.inc_value("counting/request_reached_downloader")

                    def spider_error(self, failure, response):
                        self.stats.inc_value(f"counting/spider_error/{failure.type.__name__}")
            """,
        },
        source="""
            import scrapy


            class Case(scrapy.Spider):
                name = "case"
                start_urls = [f"http://demo.test/trouble/fine/{n}" for n in range(40)]

                def parse(self, response):
                    yield {"url": response.url}
                    if response.url.endswith("9"):
                        raise ValueError("nine")
        """,
    ),
    Case(
        name="shape-closed-stats",
        preflight=frozenset({"at-each-end"}),
        group="shapes",
        shows="`closed()`, and an extension's handler of `spider_closed`, that read the stats",
        unequal=(
            Unequal(
                "files",
                r"\.process-",
                "each crawl process writes one; all of them have the whole crawl's stats",
                ("3 processes",),
            ),
            Unequal("log", r"\[shop.*\] 20 ended", "it is said once by each process", ("3 processes",)),
        ),
        settings='EXTENSIONS = {"shop.spiders.Report": 0}',
        source="""
            import json
            import logging
            import scrapy
            from scrapy import signals

            logger = logging.getLogger("shop.report")

            class Report:
                def __init__(self, stats):
                    self.stats = stats

                @classmethod
                def from_crawler(cls, crawler):
                    made = cls(crawler.stats)
                    crawler.signals.connect(made.closed, signal=signals.spider_closed)
                    return made

                def closed(self, reason):
                    logger.info("ended: %s, %d pages", reason, self.stats.get_value("response_received_count"))

            class Case(scrapy.Spider):
                name = "case"
                start_urls = [f"http://demo.test/trouble/fine/{n}" for n in range(40)]

                def parse(self, response):
                    self.crawler.stats.inc_value("pages/seen")
                    self.crawler.stats.max_value("pages/longest", len(response.body))
                    yield {"url": response.url}

                def closed(self, reason):
                    stats = self.crawler.stats
                    names = ("pages/seen", "pages/longest", "item_scraped_count", "scheduler/dequeued")
                    with open("stats.json", "w") as file:
                        json.dump({name: stats.get_value(name) for name in names}, file)
        """,
    ),
    Case(
        name="shape-closed",
        preflight=frozenset({"at-each-end", "state-on-self"}),
        group="shapes",
        shows="`closed()` that writes what the spider has counted on `self`, and adds to a file that was there",
        unequal=(
            Unequal("files", r"summary|history", _STATE_OF_EACH, ("3 processes",)),
            Unequal("log", r"\[case\] 20 crawled \d+ pages", _STATE_OF_EACH, ("3 processes",)),
        ),
        files={"history.txt": "crawled 1 pages\n"},
        source="""
            import json

            import scrapy
            from scrapy import signals


            class Case(scrapy.Spider):
                name = "case"
                start_urls = [f"http://demo.test/trouble/fine/{n}" for n in range(40)]

                def __init__(self, *args, **kwargs):
                    super().__init__(*args, **kwargs)
                    self.pages = []

                @classmethod
                def from_crawler(cls, crawler, *args, **kwargs):
                    spider = super().from_crawler(crawler, *args, **kwargs)
                    crawler.signals.connect(spider.opened, signal=signals.spider_opened)
                    return spider

                def opened(self):
                    self.logger.info("opened")

                def parse(self, response):
                    self.pages.append(response.url)
                    yield {"url": response.url}

                def closed(self, reason):
                    self.logger.info("crawled %d pages: %s", len(self.pages), reason)
                    with open("summary.json", "w") as file:
                        json.dump({"reason": reason, "pages": sorted(self.pages)}, file)
                    with open("history.txt", "a") as file:
                        file.write(f"crawled {len(self.pages)} pages\\n")
        """,
    ),
    Case(
        name="shape-idle",
        group="shapes",
        shows="`spider_idle` that feeds new requests, with and without `DontCloseSpider`",
        source="""
            import scrapy
            from scrapy import signals
            from scrapy.exceptions import DontCloseSpider


            class Case(scrapy.Spider):
                name = "case"
                start_urls = [f"http://demo.test/trouble/fine/{n}" for n in range(30)]

                @classmethod
                def from_crawler(cls, crawler, *args, **kwargs):
                    spider = super().from_crawler(crawler, *args, **kwargs)
                    crawler.signals.connect(spider.idle, signal=signals.spider_idle)
                    return spider

                def idle(self):
                    # What was fed before is filtered, on whichever process the crawl is idle.
                    turn = self.crawler.stats.get_value("turn", 0) + 1
                    self.crawler.stats.set_value("turn", turn)
                    if turn < 4:
                        for n in range(turn * 100, turn * 100 + 5):
                            self.crawler.engine.crawl(scrapy.Request(f"http://demo.test/trouble/fine/{n}"))
                        if turn % 2:
                            raise DontCloseSpider

                def parse(self, response):
                    yield {"url": response.url}
        """,
        unequal=(Unequal("stats", r"^turn$", "a stat that is set is set in one process", ("3 processes",)),),
    ),
    Case(
        name="shape-contracts",
        group="shapes",
        shows="callbacks with contracts, and contracts of the project's own, in a crawl",
        settings='SPIDER_CONTRACTS = {"shop.contracts.HasAddress": 10}\n',
        files={
            "shop/contracts.py": """
                from scrapy.contracts import Contract


                class HasAddress(Contract):
                    name = "has_address"

                    def post_process(self, output):
                        pass
            """,
        },
        source='''
            import scrapy


            class Case(scrapy.Spider):
                name = "case"
                start_urls = [f"http://demo.test/trouble/fine/{n}" for n in range(40)]

                def parse(self, response):
                    """
                    Read a page.

                    @url http://demo.test/trouble/fine/1
                    @returns items 1 1
                    @scrapes url
                    @has_address
                    """
                    yield {"url": response.url}
        ''',
    ),
    # --- the log and the command line
    Case(
        name="shape-log-file",
        group="shapes",
        shows="`LOG_FILE` in a directory below, with a `LOG_FORMAT` and a `LOG_LEVEL`; nothing is on the terminal",
        args=("-O", "items.jsonl", "-s", "LOG_LEVEL=WARNING"),
        settings='LOG_FILE = "logs/run.log"\nLOG_FORMAT = "%(levelname)s [%(name)s] %(message)s"\n',
        files={"logs/README": "logs are here\n"},
        source="""
            import scrapy


            class Case(scrapy.Spider):
                name = "case"
                start_urls = [f"http://demo.test/trouble/fine/{n}" for n in range(40)]

                def parse(self, response):
                    self.logger.warning("page %s\\nin two lines", response.url)
                    self.logger.info("not in the log")
                    yield {"url": response.url}
        """,
    ),
    Case(
        name="shape-log-formatter",
        group="shapes",
        shows="a `LOG_FORMATTER` for pages, items, dropped items and errors",
        settings="""
            LOG_FORMATTER = "shop.log.Polite"
            ITEM_PIPELINES = {"shop.log.Choosy": 300}
        """,
        loggers=("shop", "scrapy.core.scraper"),
        files={
            "shop/log.py": """
                import logging

                from scrapy import logformatter
                from scrapy.exceptions import DropItem


                class Choosy:
                    def process_item(self, item, spider=None):
                        if item["n"] % 5 == 0:
                            raise DropItem(f"not {item['n']}")
                        if item["n"] % 7 == 0:
                            raise ValueError(f"never {item['n']}")
                        return item


                class Polite(logformatter.LogFormatter):
                    def dropped(self, item, exception, response, spider=None):
                        return {"level": logging.INFO, "msg": "dropped %(n)s: %(why)s",
                                "args": {"n": item["n"], "why": exception}}

                    def scraped(self, item, response, spider=None):
                        return {"level": logging.INFO, "msg": "got %(n)s", "args": {"n": item["n"]}}

                    def item_error(self, item, exception, response, spider=None):
                        return {"level": logging.WARNING, "msg": "no luck with %(n)s", "args": {"n": item["n"]}}

                    def spider_error(self, failure, request, response, spider=None):
                        return {"level": logging.WARNING, "msg": "sorry for %(url)s", "args": {"url": request.url}}
            """,
        },
        unequal=(
            Unequal("log", r"got \d+", "an item is logged where it was scraped, also one that home drops later"),
        ),
        source="""
            import scrapy


            class Case(scrapy.Spider):
                name = "case"
                start_urls = [f"http://demo.test/trouble/fine/{n}" for n in range(40)]

                def parse(self, response):
                    number = int(response.url.rpartition("/")[2])
                    if number == 33:
                        raise RuntimeError("thirty-three")
                    yield {"n": number}
        """,
    ),
    Case(
        name="shape-arguments",
        group="shapes",
        shows="`-a` with letters of all kinds, spaces, quotes, `=`, and nothing",
        args=(
            *("-O", "items.jsonl", "-a", "word=naïve 東京 🕷", "-a", 'quoted=it\'s "so"', "-a", "query=a=1&b=2"),
            *("-a", "empty=", "-a", "lines=one\ntwo", "-a", "path=C:\\temp"),
        ),
        source="""
            import scrapy


            class Case(scrapy.Spider):
                name = "case"
                start_urls = [f"http://demo.test/trouble/fine/{n}" for n in range(40)]

                def __init__(self, word, quoted, query, empty, lines="", **kwargs):
                    super().__init__(**kwargs)
                    self.given = [word, quoted, query, empty, lines, self.path]

                def parse(self, response):
                    self.logger.info("%s", self.given[0])
                    yield {"url": response.url, "given": self.given}
        """,
    ),
    *(
        Case(
            name=f"shape-reactor-{name}",
            group="shapes",
            shows=f"`{setting}`",
            settings=f"{setting}\nREMOTE_CONTROL_ENABLED = False\n",
            source="""
                import sys

                import scrapy


                class Case(scrapy.Spider):
                    name = "case"
                    start_urls = [f"http://demo.test/trouble/fine/{n}" for n in range(30)]

                    def parse(self, response):
                        reactor = sys.modules.get("twisted.internet.reactor")
                        yield {"url": response.url, "reactor": type(reactor).__name__}
                        yield from response.follow_all(["/trouble/fine/100", "/trouble/fine/101"], self.parse_more)

                    async def parse_more(self, response):
                        yield {"more": response.url}
            """,
        )
        for name, setting in _REACTORS.items()
    ),
    # --- kinds of spiders
    Case(
        name="shape-crawl-spider",
        latency_ms=50,
        group="shapes",
        shows="`CrawlSpider` with rules: callbacks by name, `process_links` and `process_request` as lambdas",
        source="""
            from scrapy.linkextractors import LinkExtractor
            from scrapy.spiders import CrawlSpider, Rule


            class Case(CrawlSpider):
                name = "case"
                allowed_domains = ["127.0.0.1"]
                start_urls = ["http://demo.test/quotes/", "http://elsewhere.invalid/"][:1]
                rules = (
                    Rule(LinkExtractor(allow=(r"/quotes/page/",), deny=(r"/page/1/",))),
                    Rule(LinkExtractor(allow=(r"/author/",)), callback="parse_author"),
                    Rule(
                        LinkExtractor(allow=(r"/tag/h",), deny=r"/page/"),
                        callback="parse_tag",
                        follow=False,
                        process_links=lambda links: [link for link in links if "hope" not in link.url],
                        process_request=lambda request, response: request.replace(priority=1),
                    ),
                )

                def parse_start_url(self, response):
                    return {"start": response.url}

                def parse_author(self, response):
                    self.logger.info("Hi, this is an item page! %s", response.url)
                    return {"name": response.css("h1::text").get()}

                def parse_tag(self, response):
                    yield {"tag": response.url}
        """,
    ),
    Case(
        name="shape-sitemap-spider",
        group="shapes",
        shows="`SitemapSpider` from robots.txt, with an index, a gzipped sitemap, rules and a filter",
        source="""
            from scrapy.spiders import SitemapSpider


            class Case(SitemapSpider):
                name = "case"
                sitemap_urls = ["http://demo.test/robots.txt"]
                sitemap_rules = [("/author/", "parse_author"), (r"/product/[1-3]\\d-", "parse_product")]

                def sitemap_filter(self, entries):
                    for entry in entries:
                        if "lastmod" in entry or "loc" in entry:
                            yield entry

                def parse_product(self, response):
                    yield {"product": response.url}

                def parse_author(self, response):
                    yield {"author": response.url}
        """,
    ),
    Case(
        name="shape-xml-feed-spider",
        group="shapes",
        least_processes=1,
        shows="`XMLFeedSpider` with a namespace, `adapt_response` and `process_results`",
        source="""
            from scrapy.spiders import XMLFeedSpider


            class Case(XMLFeedSpider):
                name = "case"
                start_urls = ["http://demo.test/sitemap-products.xml"]
                iterator = "xml"
                namespaces = [("n", "http://www.sitemaps.org/schemas/sitemap/0.9")]
                itertag = "n:url"

                def adapt_response(self, response):
                    return response.replace(body=response.body.replace(b"2024", b"2025"))

                def parse_node(self, response, node):
                    return {"loc": node.xpath("n:loc/text()").get(), "mod": node.xpath("n:lastmod/text()").get()}

                def process_results(self, response, results):
                    return [{**item, "of": response.url} for item in results]
        """,
    ),
    Case(
        name="shape-csv-feed-spider",
        group="shapes",
        least_processes=1,
        shows="`CSVFeedSpider` on `data:` URLs, with a delimiter, quotes and headers of its own",
        source="""
            from urllib.parse import quote

            from scrapy.spiders import CSVFeedSpider

            ROWS = "'1';'anna';'x; y'\\n'2';'börje';'z'\\n'only one'\\n"


            class Case(CSVFeedSpider):
                name = "case"
                start_urls = ["data:text/csv;charset=utf-8," + quote(ROWS)]
                delimiter = ";"
                quotechar = "'"
                headers = ["id", "name", "description"]

                def parse_row(self, response, row):
                    self.logger.info("Hi, this is a row!: %r", row)
                    return dict(row)
        """,
    ),
    Case(
        name="shape-login",
        group="shapes",
        shows="a login as in Scrapy's documentation: `FormRequest.from_response`, then private pages",
        source="""
            import scrapy


            class Case(scrapy.Spider):
                name = "case"
                start_urls = ["http://demo.test/login"]

                def parse(self, response):
                    return scrapy.FormRequest.from_response(
                        response,
                        formdata={"username": "reader", "password": "books"},
                        callback=self.after_login,
                    )

                def after_login(self, response):
                    if "Please sign in" in response.text:
                        self.logger.error("Login failed")
                        return
                    yield from response.follow_all(css="a.orders", callback=self.parse_orders)

                def parse_orders(self, response):
                    yield from response.follow_all(css="ul.orders a", callback=self.parse_order)
                    yield from response.follow_all(css="a.next", callback=self.parse_orders)

                def parse_order(self, response):
                    yield {"number": response.css("span.number::text").get()}
        """,
    ),
    Case(
        name="shape-init-spider",
        group="shapes",
        shows="a login in the manner of `InitSpider`: the start requests wait for it",
        files={
            "shop/init.py": """
                import scrapy
                from scrapy.utils.spider import iterate_spider_output


                class InitSpider(scrapy.Spider):
                    async def start(self):
                        self._postinit_reqs = [scrapy.Request(url, dont_filter=True) for url in self.start_urls]
                        for request in iterate_spider_output(self.init_request()):
                            yield request

                    def initialized(self, response=None):
                        return self.__dict__.pop("_postinit_reqs")

                    def init_request(self):
                        return self.initialized()
            """,
        },
        source="""
            import scrapy

            from shop.init import InitSpider


            class Case(InitSpider):
                name = "case"
                start_urls = ["http://demo.test/account/orders/", "http://demo.test/account/"]

                def init_request(self):
                    return scrapy.Request("http://demo.test/login", callback=self.login)

                def login(self, response):
                    return scrapy.FormRequest.from_response(
                        response, formdata={"username": "reader", "password": "books"}, callback=self.check_login
                    )

                def check_login(self, response):
                    if "Please sign in" not in response.text:
                        self.logger.info("Successfully logged in")
                        return self.initialized()

                def parse(self, response):
                    yield {"url": response.url, "in": "Please sign in" not in response.text}
                    yield from response.follow_all(css="ul.orders a, a.next", callback=self.parse)
        """,
    ),
    # --- what is kept between crawls
    *(
        Case(
            name=f"shape-http-cache{name}",
            group="shapes",
            turns=2,
            least_processes=1,
            is_fast=not name,
            shows=f"the second crawl is answered from the HTTP cache: {what}",
            settings=f"HTTPCACHE_ENABLED = True\nROBOTSTXT_OBEY = True\n{settings}",
            unequal=(Unequal("files", r"^\.scrapy/", _KEPT),),
            also=_asks_nothing,
            source="""
                import scrapy


                class Case(scrapy.Spider):
                    name = "case"
                    start_urls = [f"http://demo.test/trouble/fine/{n}" for n in range(40)]

                    def parse(self, response):
                        yield {"url": response.url, "title": response.css("title::text").get()}
                        if response.url.endswith("7"):
                            yield response.follow("/trouble/fine/100", self.parse_again, dont_filter=True)

                    def parse_again(self, response):
                        yield {"again": response.url}
            """,
        )
        for name, what, settings in (
            ("", "one file for each page", ""),
            ("-dbm", "a DBM file", 'HTTPCACHE_STORAGE = "scrapy.extensions.httpcache.DbmCacheStorage"\n'),
            ("-gzip", "gzipped, in another directory", 'HTTPCACHE_GZIP = True\nHTTPCACHE_DIR = "pages"\n'),
        )
    ),
    # --- commands
    Case(
        name="shape-profile",
        group="shapes",
        shows="`--profile` and `--pidfile`",
        args=("-O", "items.jsonl", "--profile", "crawl.prof", "--pidfile", "crawl.pid"),
        unequal=(
            Unequal("files", r"^crawl\.pid$", "the sender's pid"),
            Unequal("files", r"^crawl(\.process-\d)?\.prof$", "each crawl process has a profile of its own"),
        ),
        source=_PAGES,
    ),
    Case(
        name="shape-own-crawl",
        group="shapes",
        shows="a `crawl` in `COMMANDS_MODULE`: an option, a setting, an argument, words before and after",
        args=("-O", "items.jsonl", "--region", "north"),
        settings='COMMANDS_MODULE = "shop.commands"\n',
        files={
            "shop/commands/__init__.py": "",
            "shop/commands/crawl.py": """
                from scrapy.commands import crawl


                class Command(crawl.Command):
                    def add_options(self, parser):
                        super().add_options(parser)
                        parser.add_argument("--region", help="where to crawl")

                    def process_options(self, args, opts):
                        super().process_options(args, opts)
                        self.settings.set("REGION", opts.region, priority="cmdline")

                    def run(self, args, opts):
                        opts.spargs["by"] = "the command"
                        print("before", args)
                        super().run(args, opts)
                        print("after")
            """,
        },
        source="""
            import scrapy


            class Case(scrapy.Spider):
                name = "case"
                start_urls = [f"http://demo.test/trouble/fine/{n}" for n in range(40)]

                def parse(self, response):
                    yield {"url": response.url, "region": self.settings["REGION"], "by": self.by}
        """,
    ),
    Case(
        name="shape-entry-point",
        group="shapes",
        shows="a `crawl` of an installed package's `scrapy.commands` entry point",
        env={"PYTHONPATH": "plugin"},
        files={
            "plugin/plugin-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: plugin\nVersion: 1.0\n",
            "plugin/plugin-1.0.dist-info/entry_points.txt": "[scrapy.commands]\ncrawl = plugin:Command\n",
            "plugin/plugin.py": """
                from scrapy.commands import BaseRunSpiderCommand


                class Command(BaseRunSpiderCommand):
                    requires_project = True

                    def syntax(self):
                        return "<spider>"

                    def short_desc(self):
                        return "crawl, as the plugin does"

                    def run(self, args, opts):
                        self.crawler_process.crawl(args[0], by="plugin", **opts.spargs)
                        self.crawler_process.start()
                        if self.crawler_process.bootstrap_failed:
                            self.exitcode = 1
            """,
        },
        source="""
            import scrapy


            class Case(scrapy.Spider):
                name = "case"
                start_urls = [f"http://demo.test/trouble/fine/{n}" for n in range(40)]

                def parse(self, response):
                    yield {"url": response.url, "by": self.by}
        """,
    ),
]
