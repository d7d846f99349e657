"""The preflight: each finding by a source that has it and the nearest ones that have not."""

from __future__ import annotations

import importlib
import itertools
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NoReturn

import pytest
from scrapy import Spider
from scrapy.settings import Settings

from vscrapy.commands import crawl
from vscrapy.preflight.check import check
from vscrapy.preflight.finding import Finding, Severity, Where
from vscrapy.preflight.report import all_lines, start_lines
from vscrapy.sender.submit import Order

NUMBERS: Final = itertools.count()
HEAD: Final = """
import sqlite3
from functools import partial
from pathlib import Path

import requests
import scrapy
from scrapy import FormRequest, Request, Spider, signals
from scrapy.exceptions import CloseSpider, DropItem
from scrapy.spiders import CrawlSpider, Rule
"""

#: What is called with a source's text: the findings' codes and, with all words, the findings themselves.
Look = Callable[..., list[Finding]]


@pytest.fixture
def look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Look]:
    """Look at the source of a project that is one module; its last spider is the one that is crawled."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    made: list[str] = []

    def findings(
        source: str, *, pipelines: str = "home", workers: int = 0, detached: bool = False, **settings: Any
    ) -> list[Finding]:
        name = f"preflight_{next(NUMBERS)}"
        made.append(name)
        (tmp_path / f"{name}.py").write_text(HEAD + textwrap.dedent(source))
        module = importlib.import_module(name)
        spiders = [
            value
            for value in vars(module).values()
            if isinstance(value, type) and issubclass(value, Spider) and value.__module__ == name
        ]
        spider = spiders[-1] if spiders else Spider
        found = Settings({key: _named(value, name) for key, value in settings.items()})
        spider.update_settings(found)
        return check(spider, found, pipelines=pipelines, max_processes=workers, is_attached=not detached)

    yield findings
    for name in made:
        sys.modules.pop(name, None)


def _named(value: Any, module: str) -> Any:
    """A setting, with ``M.`` in the names of classes replaced by the module's name."""
    if isinstance(value, dict):
        return {_named(key, module): order for key, order in value.items()}
    return value.replace("M.", f"{module}.") if isinstance(value, str) else value


def codes(found: list[Finding]) -> list[str]:
    """The codes alone."""
    return [finding.code for finding in found]


#: Spiders with state, by a word for it: their ``self``, or module, differs from process to process.
WITH_STATE: Final = {
    "counter": """
        class S(Spider):
            count = 0
            def parse(self, response):
                self.count += 1
                if self.count > 10:
                    raise CloseSpider("enough")
    """,
    "page number by the class": """
        class S(Spider):
            page = 1
            def parse(self, response):
                S.page += 1
                yield response.follow(f"?page={S.page}")
    """,
    "seen set": """
        class S(Spider):
            def __init__(self, **kwargs):
                super().__init__(**kwargs)
                self.seen = set()
            def parse(self, response):
                for url in response.css("a::attr(href)").getall():
                    if url not in self.seen:
                        self.seen.add(url)
                        yield response.follow(url)
    """,
    "token of a response": """
        class S(Spider):
            token = None
            def parse(self, response):
                if self.token is None:
                    self.token = response.json()["token"]
                yield response.follow("/page", self.parse_page)
            def parse_page(self, response):
                yield response.follow("/next", self.parse_page, headers={"X-Token": self.token})
    """,
    "collected for the end": """
        class S(Spider):
            found = []
            def parse(self, response):
                self.found.append(response.url)
            def closed(self, reason):
                self.logger.info("%d", len(self.found))
    """,
    "changed in a helper of a callback": """
        class S(Spider):
            total = 0
            def parse(self, response):
                self._note()
                yield {"n": self.total}
            def _note(self):
                self.total = self.total + 1
    """,
    "callback that a rule names": """
        class S(CrawlSpider):
            name = "s"
            rules = (Rule(callback="on_page"),)
            pages = {}
            def on_page(self, page):
                self.pages.setdefault(page.url, []).append(1)
                return {"n": len(self.pages)}
    """,
    "in a base of the project": """
        class Base(Spider):
            n = 0
            def parse(self, response):
                self.n += 1
                yield self.item(response)
        class S(Base):
            def item(self, response):
                return {"n": self.n}
    """,
    "callback that a subclass extends": """
        class Base(Spider):
            n = 0
            def parse(self, response):
                self.n += 1
                yield {"n": self.n}
        class S(Base):
            def parse(self, response):
                yield from super().parse(response)
    """,
    "idle handler": """
        class S(Spider):
            left = [1, 2]
            @classmethod
            def from_crawler(cls, crawler, *args, **kwargs):
                spider = super().from_crawler(crawler, *args, **kwargs)
                crawler.signals.connect(spider.feed, signal=signals.spider_idle)
                return spider
            def feed(self):
                self.crawler.engine.crawl(Request(self.left.pop()))
    """,
    "value used before it is made anew": """
        class S(Spider):
            last = ""
            def parse(self, response):
                yield {"before": self.last}
                self.last = response.url
    """,
    "read by getattr": """
        class S(Spider):
            def parse(self, response):
                if getattr(self, "done", False):
                    return
                self.done = True
    """,
}

#: Spiders that do the same on any number of processes, and look a little like the others.
WITHOUT_STATE: Final = {
    "made in __init__ and its helper": """
        class S(Spider):
            def __init__(self, **kwargs):
                super().__init__(**kwargs)
                self.words = []
                self._load()
            def _load(self):
                self.words.append("a")
            def parse(self, response):
                yield {"n": len(self.words)}
    """,
    "never read": """
        class S(Spider):
            n = 0
            def parse(self, response):
                self.n += 1
                self.last = response.url
    """,
    "scratch of one callback": """
        class S(Spider):
            def parse(self, response):
                self.rows = []
                for row in response.css("tr"):
                    self.rows.append(row)
                self.title = response.css("h1")
                yield self._item()
            def _item(self):
                return {"rows": self.rows, "title": self.title}
    """,
    "form that is filled for each page": """
        class S(Spider):
            form = {"page": "1"}
            def start_requests(self):
                yield FormRequest("http://x", formdata=self.form)
            def parse(self, response):
                for page in range(2, 9):
                    self.form["page"] = str(page)
                    yield FormRequest("http://x", self.parse_page, formdata=self.form)
            def parse_page(self, response):
                yield {}
    """,
    "made once where it is not there": """
        class S(Spider):
            _db = None
            @property
            def db(self):
                if self._db is None:
                    self._db = connect(self.settings["DB"])
                return self._db
            def parse(self, response):
                if not hasattr(self, "pool"):
                    self.pool = make_pool()
                self.db.insert(response.url, self.pool)
    """,
    "browser that is closed and made anew": """
        class S(Spider):
            def __init__(self, **kwargs):
                super().__init__(**kwargs)
                self.driver = webdriver.Chrome()
            def parse(self, response):
                self.driver.quit()
                self.driver = webdriver.Chrome()
                self.driver.get(response.url)
            def closed(self, reason):
                self.driver.quit()
                self.driver = None
    """,
    "methods of something else than a list": """
        class S(Spider):
            def __init__(self, **kwargs):
                super().__init__(**kwargs)
                self.table = database.table("pages")
            def parse(self, response):
                self.table.insert({"url": response.url})
                self.table.update(1)
                self.table["x"] = 2
                yield {"n": self.table.pop()}
    """,
    "local list and module constant": """
        CODES = {"a": 1}
        class S(Spider):
            def parse(self, response):
                found = []
                found.append(CODES["a"])
                CODES_HERE = dict(CODES)
                CODES_HERE["b"] = 2
                yield {"found": found, "codes": CODES_HERE}
    """,
    "local name of a module's list": """
        FOUND = []
        class S(Spider):
            def parse(self, response):
                FOUND = []
                FOUND.append(1)
                yield {"n": len(FOUND)}
    """,
    "overridden callback that nobody calls": """
        class Base(Spider):
            n = 0
            def parse(self, response):
                self.n += 1
                yield {"n": self.n}
        class S(Base):
            def parse(self, response):
                yield {"n": self.n}
    """,
    "opened handler": """
        class S(Spider):
            @classmethod
            def from_crawler(cls, crawler, *args, **kwargs):
                spider = super().from_crawler(crawler, *args, **kwargs)
                crawler.signals.connect(spider.spider_opened, signal=signals.spider_opened)
                return spider
            def spider_opened(self):
                self.session = []
            def parse(self, response):
                yield {"n": len(self.session)}
    """,
    "stats": """
        class S(Spider):
            def parse(self, response):
                self.crawler.stats.inc_value("pages")
                if self.crawler.stats.get_value("pages") > 3:
                    yield {}
    """,
    "only said to be right": """
        class S(Spider):
            n = 0
            def parse(self, response):
                self.n += 1  # vscrapy: ok
                yield {"n": self.n}
    """,
}


@pytest.mark.parametrize("source", WITH_STATE.values(), ids=WITH_STATE)
def test_state_on_self_is_named(look: Look, source: str) -> None:
    """One finding, at a line of the class, that is void with one process."""
    found = look(source)
    assert codes(found) == ["state-on-self"]
    assert found[0].severity is Severity.DIFFERS
    assert look(source, workers=1) == []


@pytest.mark.parametrize("source", WITHOUT_STATE.values(), ids=WITHOUT_STATE)
def test_what_is_no_state_is_not_named(look: Look, source: str) -> None:
    """What each process does for itself, as it would alone, is not worth a word."""
    assert look(source) == []


def test_state_is_named_with_its_line_and_method(look: Look) -> None:
    """The line is that of the first change."""
    [found] = look(
        """
        class S(Spider):
            n = 0
            def parse(self, response):
                yield {"n": self.n}
                self.n += 1
        """
    )
    assert found.where.path is not None
    line = found.where.path.read_text().splitlines()[found.where.line - 1]
    assert line.strip() == "self.n += 1"
    assert found.what == "S.parse() changes self.n"
    assert str(found.where) == f"{found.where.path.name}:{found.where.line}"


def test_state_in_module_is_named(look: Look) -> None:
    """A global that is counted, and a list of the module that is added to."""
    found = look(
        """
        n = 0
        urls = []
        class S(Spider):
            def parse(self, response):
                global n
                n += 1
                urls.append(response.url)
                yield {"n": n, "urls": len(urls)}
        """
    )
    assert codes(found) == ["state-in-module", "state-in-module"]


def test_state_that_components_read_counts_as_read(look: Look) -> None:
    """The spider itself does not read it; a middleware does."""
    source = """
        class S(Spider):
            def parse(self, response):
                self.category = response.css("h1::text").get()
        class Middleware:
            def process_request(self, request, spider):
                request.headers["X-Category"] = spider.{}
    """
    settings = {"DOWNLOADER_MIDDLEWARES": {"M.Middleware": 1}}
    assert codes(look(source.format("category"), **settings)) == ["state-on-self"]
    assert look(source.format("name"), **settings) == []


def test_state_in_start_is_named(look: Look) -> None:
    """What start() leaves on the spider is there on one process only; what start() itself uses, is not needed."""
    source = """
        class S(Spider):
            async def start(self):
                self.day = today()
                yield Request("http://x", headers={{"X-Day": self.day}})
            def parse(self, response):
                yield {{"day": {}}}
    """
    assert codes(look(source.format("self.day"))) == ["state-in-start"]
    constant = source.replace("today()", "'monday'")
    assert codes(look(constant.format("self.day"))) == ["state-in-start"]
    assert (
        look(constant.replace("class S(Spider):", "class S(Spider):\n            day = ''").format("self.day")) == []
    )
    assert look(source.format("1")) == []
    assert look(source.format("self.day"), workers=1) == []


@pytest.mark.parametrize(
    "callback", ["lambda r: None", "partial(self.parse, 1)", "inner", "outer", "callback=lambda r: None"]
)
def test_callback_that_is_no_method_is_named(look: Look, callback: str) -> None:
    """It stays on the process that made it."""
    source = """
        def outer(response):
            pass
        class S(Spider):
            def parse(self, response):
                def inner(response):
                    pass
                yield Request("http://x", {})
    """
    assert codes(look(source.format(callback))) == ["local-callback"]


@pytest.mark.parametrize("callback", ["self.parse", "callback=None", "callback=getattr(self, kind)", "method=name"])
def test_callback_that_may_be_a_method_is_not_named(look: Look, callback: str) -> None:
    """A method travels; what is not known may be one."""
    source = """
        class S(Spider):
            def parse(self, response, kind="parse", name="GET"):
                links = sorted(response.css("a"), key=lambda a: a)
                yield Request("http://x", {})
                self.subscribe(callback=lambda: links)
    """
    assert look(source.format(callback)) == []


SHARED: Final = """
    class S(Spider):
        async def start(self):
            basket = {{"left": 4}}
            for number in range(4):
                yield Request(f"http://x/{{number}}", {made})
        def parse(self, response, basket=None):
            {changed}
"""


@pytest.mark.parametrize(
    ("made", "changed"),
    [
        ("meta={'basket': basket}", "response.meta['basket']['left'] -= 1"),
        ("meta=dict(basket=basket)", "mine = response.meta.get('basket'); mine['seen'].append(response.url)"),
        ("cb_kwargs={'basket': basket}", "basket[response.url] = 1"),
        ("self.parse, cb_kwargs={'basket': basket}", "basket.pop('left')" + "; basket.update(a=1)"),
        ("cb_kwargs={'basket': self.settings}", "del basket['left']"),
    ],
)
def test_object_that_several_requests_carry_and_callbacks_change_is_named(
    look: Look, made: str, changed: str
) -> None:
    """With one crawl process they share it, as with scrapy crawl."""
    source = SHARED.format(made=made, changed=changed)
    assert codes(look(source)) == ["shared-object"]
    assert look(source, workers=1) == []


@pytest.mark.parametrize(
    ("made", "changed"),
    [
        ("meta={'basket': basket}", "response.meta['basket']['left'] = 1"),
        ("meta={'basket': basket}", "yield {'left': response.meta['basket']['left']}"),
        ("meta={'basket': basket}", "response.meta['other']['left'] -= 1"),
        ("meta={'basket': {'left': number}}", "response.meta['basket']['left'] -= 1"),
        ("meta={'basket': dict(basket)}", "response.meta['basket']['left'] -= 1"),
        ("cb_kwargs={'basket': number}", "basket += 1"),
        ("callback=self.other, cb_kwargs={'basket': basket}", "basket.clear()"),
        ("cb_kwargs={'basket': basket}); break; print(1", "basket.clear()"),
    ],
)
def test_object_that_is_one_requests_own_or_not_changed_is_not_named(look: Look, made: str, changed: str) -> None:
    """Nor is one of which a callback sets a key: what was there does not count."""
    assert look(SHARED.format(made=made, changed=changed)) == []


def test_object_made_anew_in_an_outer_loop_is_shared_by_the_inner_ones_requests(look: Look) -> None:
    """An object of the very loop that makes the requests is not."""
    source = """
        class S(Spider):
            def parse(self, response):
                for part in response.css("p"):
                    item = {"images": []}
                    for link in part.css("a"):
                        yield response.follow(link, self.parse_image, meta={"item": item})
            def parse_image(self, response):
                response.meta["item"]["images"].append(response.url)
    """
    assert codes(look(source)) == ["shared-object"]
    inner = source.replace('item = {"images": []}', "pass").replace(
        'for link in part.css("a"):', 'for link in part.css("a"):\n                        item = {"images": []}'
    )
    assert look(inner) == []
    assert codes(
        look(
            source.replace('for link in part.css("a"):', "if part:").replace(
                "response.follow(link", "response.follow_all(part"
            )
        )
    ) == ["shared-object"]


@pytest.mark.parametrize(
    "writes",
    [
        'open("out.csv", "w")',
        'open(f"{self.name}.csv", mode="w")',
        'Path("out.txt").write_text("x")',
        '(Path(__file__).parent / "out.txt").open("w")',
        'sqlite3.connect("out.db")',
        'self.frame.to_csv("out.csv")',
    ],
)
def test_file_that_each_process_writes_is_named(look: Look, writes: str) -> None:
    """Its name is the same in each process, and so there are several."""
    source = f"""
        class S(Spider):
            def __init__(self, frame=None, **kwargs):
                super().__init__(**kwargs)
                self.frame = frame
            def parse(self, response):
                file = {writes}
    """
    assert codes(look(source)) == ["one-file"]
    assert look(source, workers=1) == []
    assert codes(look(source, workers=1, detached=True)) == ["one-file"]


@pytest.mark.parametrize(
    "opens",
    [
        'open("words.txt")',
        'open("words.txt", "rb")',
        'open("out.csv", "a")',
        'open(f"{response.url[-1]}.html", "wb")',
        'Path(f"quotes-{page}.html").write_bytes(response.body)',
        'Path("words.txt").read_text()',
        'sqlite3.connect(":memory:")',
        'self.bucket.open("x", "w")',
        'self.client.write_text("x")',
    ],
)
def test_file_that_is_read_or_one_page_s_is_not_named(look: Look, opens: str) -> None:
    """Reading is no matter, a page's own file is written once, and what is added comes together."""
    source = f"""
        class S(Spider):
            bucket = client = None
            def parse(self, response):
                page = response.url.split("/")[-2]
                return {opens}
    """
    assert look(source) == []


def test_deed_at_the_end_is_named_as_it_is_done_by_each(look: Look) -> None:
    """closed() of a spider runs in each process; saying something in the log is no matter."""
    source = """
        class S(Spider):
            def closed(self, reason):
                self.logger.info(reason)
                {}
    """
    assert codes(look(source.format("requests.post('http://x')"))) == ["at-each-end"]
    assert look(source.format("requests.post('http://x')"), workers=1) == []
    assert codes(look(source.format("open('report.txt', 'w')"))) == ["at-each-end"]
    assert look(source.format("open('report.txt', 'w')"), workers=1) == []
    assert look(source.format("open('report.txt', 'a')")) == []
    assert look(source.format("requests.post('http://x')"), workers=1, detached=True) == []
    assert look(source.format("print(reason)")) == []


PIPELINES: Final = {"ITEM_PIPELINES": {"M.Pipeline": 1}}

#: Pipelines that do otherwise in several processes.
WORKER_PIPELINES: Final = {
    "duplicates": """
        class Pipeline:
            def __init__(self):
                self.ids = set()
            def process_item(self, item):
                if item["id"] in self.ids:
                    raise DropItem("seen")
                self.ids.add(item["id"])
                return item
    """,
    "numbers": """
        class Pipeline:
            n = 0
            def process_item(self, item):
                self.n += 1
                item["n"] = self.n
                return item
    """,
    "collected for the end": """
        class Pipeline:
            def open_spider(self):
                self.items = []
            def process_item(self, item):
                self.items.append(item)
                return item
            def close_spider(self):
                upload(self.items)
    """,
}


@pytest.mark.parametrize("source", WORKER_PIPELINES.values(), ids=WORKER_PIPELINES)
def test_state_of_a_pipeline_is_named_on_workers_only(look: Look, source: str) -> None:
    """At home it sees all items."""
    assert codes(look(source, pipelines="worker", **PIPELINES)) == ["pipeline-state"]
    assert look(source, **PIPELINES) == []
    assert look(source, pipelines="worker", workers=1, **PIPELINES) == []


def test_file_of_a_pipeline_is_named_on_workers_only(look: Look) -> None:
    """It is written on a worker, by one process or many; and is found without importing the pipeline's module."""
    source = """
        class Base:
            def open_spider(self):
                self.file = open("items.jl", "w")
        class Pipeline(Base):
            def process_item(self, item):
                self.file.write("x")
                return item
    """
    assert codes(look(source, pipelines="worker", workers=1, **PIPELINES)) == ["pipeline-file"]
    assert look(source, **PIPELINES) == []


@pytest.mark.parametrize(
    "body",
    [
        # A buffer.
        """
                self.rows.append(item)
                if len(self.rows) >= 100:
                    send(self.rows)
                    self.rows = []
                if not item:
                    raise DropItem("empty")
                return item
        """,
        # What was done already is not done again.
        """
                if item["kind"] not in self.made:
                    self.made[item["kind"]] = make(item["kind"])
                if not item:
                    raise DropItem("empty")
                return item
        """,
        # A connection.
        """
                if self.rows is None:
                    self.rows = connect(item)
                return item
        """,
    ],
    ids=["buffer", "memo", "connection"],
)
def test_pipeline_that_keeps_what_is_its_own_is_not_named(look: Look, body: str) -> None:
    """Several of them do together what one does."""
    source = f"""
        class Pipeline:
            def __init__(self):
                self.rows = []
                self.made = {{}}
            def process_item(self, item):{body}
            def close_spider(self):
                for each in self.made.values():
                    each.close()
                self.flush()
            def flush(self):
                pass
    """
    assert look(source, pipelines="worker", **PIPELINES) == []


def test_pipeline_at_home_that_needs_the_crawl_is_named(look: Look) -> None:
    """Requests, and a spider's state, are not at home; with one process neither."""
    source = """
        class S(Spider):
            def parse(self, response):
                self.category = response.css("h1::text").get()
                yield {}
        class Pipeline:
            def __init__(self, crawler):
                self.crawler = crawler
            def process_item(self, item, spider):
                item["category"] = spider.category
                item["name"] = spider.name
                self.crawler.engine.crawl(Request("http://x"))
                return item
    """
    assert codes(look(source, workers=1, **PIPELINES)) == ["pipeline-spider", "pipeline-requests"]
    assert look(source, workers=1, pipelines="worker", **PIPELINES) == []


#: Extensions and middlewares that count for themselves, and act on it.
WITH_COUNTS: Final = {
    "closer": """
        class Part:
            n = 0
            @classmethod
            def from_crawler(cls, crawler):
                part = cls()
                crawler.signals.connect(part.dropped, signals.item_dropped)
                return part
            def dropped(self):
                self.n += 1
                if self.n > 100:
                    raise CloseSpider("too many")
    """,
    "limit by site": """
        class Part:
            def __init__(self):
                self.n = {}
            def process_request(self, request):
                site = request.url
                self.n[site] = self.n.get(site, 0) + 1
                if self.n[site] > 10:
                    raise ValueError
    """,
    "report": """
        class Part:
            def __init__(self, crawler):
                self.urls = []
                crawler.signals.connect(self.report, signal=signals.spider_closed)
            def process_response(self, request, response):
                self.urls.append(response.url)
                return response
            def report(self):
                mail(self.urls)
    """,
}
#: Those that several processes do as well as one.
WITHOUT_COUNTS: Final = {
    "rotation": """
        class Part:
            def __init__(self):
                self.i = 0
            def process_request(self, request):
                request.meta["proxy"] = PROXIES[self.i]
                self.i += 1
                if self.i >= len(PROXIES):
                    self.i = 0
    """,
    "opened by a signal": """
        class Part:
            @classmethod
            def from_crawler(cls, crawler):
                part = cls()
                crawler.signals.connect(part.spider_opened, signal=signals.spider_opened)
                crawler.signals.connect(part.spider_closed, signal=signals.spider_closed)
                return part
            def spider_opened(self):
                self.db = open_db()
            def process_request(self, request):
                if self.db > 1:
                    return None
            def spider_closed(self):
                self.db.close()
    """,
    "cache": """
        class Part:
            def __init__(self):
                self.known = {}
            def process_request(self, request):
                if request.url not in self.known.keys():
                    self.known[request.url] = fetch(request.url)
                request.headers["X"] = self.known[request.url]
    """,
    "once": """
        class Part:
            is_said = False
            def process_request(self, request):
                if not self.is_said:
                    self.is_said = True
                    print("a request")
    """,
}


@pytest.mark.parametrize("setting", ["EXTENSIONS", "SPIDER_MIDDLEWARES", "DOWNLOADER_MIDDLEWARES"])
@pytest.mark.parametrize("source", WITH_COUNTS.values(), ids=WITH_COUNTS)
def test_component_that_acts_on_its_own_count_is_named(look: Look, source: str, setting: str) -> None:
    """Each process has its own, wherever the class is named."""
    assert codes(look(source, **{setting: {"M.Part": 100}})) == ["component-state"]
    assert look(source, **{setting: {"M.Part": None}}) == []
    assert look(source, workers=1, **{setting: {"M.Part": 100}}) == []


@pytest.mark.parametrize("source", WITHOUT_COUNTS.values(), ids=WITHOUT_COUNTS)
def test_component_that_several_processes_share_well_is_not_named(look: Look, source: str) -> None:
    """A rotation, a connection, a cache, a word that is said once by each."""
    assert look(source, DOWNLOADER_MIDDLEWARES={"M.Part": 100}) == []


def test_component_is_found_without_being_imported(
    look: Look, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its module may install a reactor, or take its time; its bases are found by its imports."""
    package = tmp_path / "preflight_package"
    package.mkdir()
    (package / "__init__.py").write_text("raise ImportError('imported')")
    (package / "base.py").write_text(
        "class Base:\n    n = 0\n    def process_request(self, r):\n        self.n += 1\n"
    )
    (package / "parts.py").write_text(
        "from .base import Base\n"
        "class Part(Base):\n"
        "    def process_response(self, request, response):\n"
        "        return None if self.n > 3 else response\n"
    )
    found = look("", DOWNLOADER_MIDDLEWARES={"preflight_package.parts.Part": 1})
    assert codes(found) == ["component-state"]
    assert found[0].where.path == package / "base.py"
    assert "preflight_package" not in sys.modules


def test_installed_classes_are_not_looked_at(look: Look) -> None:
    """Scrapy's own extensions count for themselves, and are seen to elsewhere."""
    extension = "scrapy.extensions.closespider.CloseSpider"
    assert look("class S(CrawlSpider):\n    name = 's'", EXTENSIONS={extension: 1}, CLOSESPIDER_ITEMCOUNT=3) == []


def test_scheduler_of_the_project_is_refused(look: Look) -> None:
    """In the words of the refusal itself, with one process as well."""
    source = "from scrapy.core.scheduler import Scheduler\nclass Own(Scheduler):\n    pass"
    [found] = look(source, workers=1, SCHEDULER="M.Own")
    assert (found.code, found.severity) == ("scheduler", Severity.REFUSED)
    assert found.what.startswith("SCHEDULER is 'preflight_")
    assert found.do.startswith("remove the setting")


def test_dupefilter_that_decides_by_itself_is_named(look: Look) -> None:
    """One that only changes the fingerprint is shared."""
    source = """
        from scrapy.dupefilters import RFPDupeFilter
        class Own(RFPDupeFilter):
            def {}(self, request):
                return False
    """
    assert codes(look(source.format("request_seen"), DUPEFILTER_CLASS="M.Own")) == ["dupefilter"]
    assert look(source.format("request_fingerprint"), DUPEFILTER_CLASS="M.Own") == []
    assert look("", DUPEFILTER_CLASS="scrapy.dupefilters.BaseDupeFilter") == []


def test_http_cache_of_the_projects_own_is_named(look: Look) -> None:
    """Scrapy's storages, and what is made of them, are shared; another one must stand several processes."""
    source = """
        from scrapy.extensions.httpcache import FilesystemCacheStorage
        class Own:
            pass
        class Derived(FilesystemCacheStorage):
            pass
        class S(Spider):
            custom_settings = {{"HTTPCACHE_ENABLED": {}, "HTTPCACHE_STORAGE": {}}}{}
    """
    assert codes(look(source.format(True, "Own", ""))) == ["http-cache"]
    assert look(source.format(True, "Own", "  # vscrapy: ok")) == []
    assert look(source.format(False, "Own", "")) == []
    assert look(source.format(True, "Derived", "")) == []
    assert look("", HTTPCACHE_ENABLED=True) == []
    assert look(source.format(True, "Own", ""), workers=1) == []


def test_source_that_is_missing_gives_nothing(look: Look, tmp_path: Path) -> None:
    """A class without a source, or made by a function, is not looked at."""
    source = """
        def make():
            class S(Spider):
                n = 0
                def parse(self, response):
                    self.n += 1
                    yield {"n": self.n}
            return S
        S = make()
    """
    assert look(source) == []


@pytest.mark.parametrize("n_parts", [600, 2000])
def test_expression_that_is_too_deep_gives_nothing(look: Look, n_parts: int) -> None:
    """Python compiles what its own syntax trees are too deep for; the crawl goes on."""
    deep = "+".join(["self.n"] * n_parts)
    assert look(f"class S(Spider):\n    n = 0\n    def parse(self, response):\n        self.n = {deep}\n") == []


def test_defect_keeps_nobody_from_crawling(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It costs one line."""

    def broken(*_: object, **__: object) -> NoReturn:
        raise ZeroDivisionError("by nought")

    monkeypatch.setattr(crawl, "check", broken)
    order = Order("crawl", "s", {}, is_attached=True, max_processes=0, pipelines="home")
    crawl.Crawl()._warn(Spider, Settings(), order, None)
    assert capsys.readouterr().err == (
        "vscrapy: check: this project could not be looked at: ZeroDivisionError('by nought')\n"
    )


def test_start_says_five_and_counts_the_rest() -> None:
    """A line each; with nothing to say, no line."""
    found = [Finding("a-code", Where(Path("spider.py"), line), "what", "why", "do") for line in range(7)]
    lines = list(start_lines(found, "vscrapy crawl --check x"))
    assert lines[0] == "check: spider.py:0: what [a-code]: why. To do: do"
    assert lines[5:] == ["check: and 2 more; vscrapy crawl --check x shows all"]
    assert len(list(start_lines(found[:5], ""))) == 5
    assert list(start_lines([], "")) == []
    assert len(list(all_lines(found))) == 21
