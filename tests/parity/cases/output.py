"""What a crawl leaves behind: feeds, items of every kind, pipelines, and files of the project's own."""

from __future__ import annotations

import textwrap
from typing import Final

from tests.parity.case import Case, Unequal

#: Forty pages with an item each; ``{item}`` makes it.
_FORTY: Final = """
from scrapy import Request, Spider
{imports}

class Case(Spider):
    name = "case"
    {more}

    async def start(self):
        for number in range(40):
            yield Request(f"http://demo.test/trouble/fine/{{number}}", cb_kwargs={{"number": number}})

    def parse(self, response, number):
        {item}
"""
_DICT: Final = 'yield {"number": number, "name": f"name-{number % 7}", "tags": ["a", "\\u00e9"]}'
_FORMATS: Final = ("json", "jsonlines", "csv", "xml", "pickle", "marshal")


def _forty(*, item: str = _DICT, imports: str = "", more: str = "") -> str:
    return _FORTY.format(
        imports=textwrap.dedent(imports),
        more=textwrap.indent(textwrap.dedent(more), "    ").strip(),
        item=textwrap.indent(textwrap.dedent(item), "        ").strip(),
    )


_FEEDS_AND_ITEMS: Final = [
    Case(
        name="feeds-kept-when-nothing-begins",
        group="output",
        shows="an extension that raises as it is made: the feed of an earlier crawl is left alone, by `-O`, too",
        settings='EXTENSIONS = {"shop.extensions.Broken": 500}\n',
        files={
            "items.jsonl": '{"n": "of an earlier crawl"}\n',
            "shop/extensions.py": """
                class Broken:
                    @classmethod
                    def from_crawler(cls, crawler):
                        raise RuntimeError("no such server")
            """,
        },
        least_processes=1,
        source="""
            import scrapy


            class Case(scrapy.Spider):
                name = "case"
                start_urls = ["http://demo.test/trouble/fine/1"]

                def parse(self, response):
                    yield {"n": 1}
        """,
    ),
    Case(
        name="feed-append",
        group="output",
        shows="`-o` adds to what is there",
        args=("-o", "items.jsonl", "-o", "more.csv"),
        source=_forty(),
        files={"items.jsonl": '{"number": -1}\n', "more.csv": "number,name,tags\n"},
    ),
    Case(
        name="feed-overwrite",
        group="output",
        shows="`-O` writes anew, with a format of its own",
        args=("-O", "items.jsonl", "-O", "table.txt:csv"),
        source=_forty(),
        files={"items.jsonl": '{"number": -1}\n', "table.txt": "old\n"},
    ),
    Case(
        name="feed-stdout",
        group="output",
        shows="`-o -:jsonlines` is stdout, and nothing else is on it",
        args=("-o", "-:jsonlines"),
        source=_forty(),
    ),
    Case(
        name="feeds-in-settings",
        group="output",
        shows="`FEEDS` in settings: every format, fields with names of their own, indent, encoding",
        args=(),
        source=_forty(),
        settings=f"""
            from pathlib import Path

            FEEDS = {{f"out/items.{{kind}}": {{"format": kind}} for kind in {_FORMATS!r}}}
            FEEDS |= {{
                Path("named.csv"): {{"format": "csv", "fields": {{"name": "Name", "number": "No."}}}},
                "indented.json": {{"format": "json", "indent": 2, "encoding": "latin-1", "fields": ["tags"]}},
                "quoted.csv": {{
                    "format": "csv",
                    "item_export_kwargs": {{"include_headers_line": False, "quoting": 1}},
                }},
            }}
        """,
    ),
    Case(
        name="feeds-in-custom-settings",
        group="output",
        shows="`FEEDS` in `custom_settings`, with the spider's arguments in the URI",
        args=("-a", "batch=seven"),
        source=_forty(
            more="""
            custom_settings = {
                "FEEDS": {"%(name)s/%(batch)s.jsonl": {"format": "jsonlines"}},
                "FEED_EXPORT_FIELDS": ["number"],
            }
            """
        ),
    ),
    Case(
        name="feeds-uri-params",
        group="output",
        shows="`FEED_URI_PARAMS` makes the file's name",
        args=(),
        source=_forty(),
        settings="""
            def params(params, spider):
                return {**params, "kind": spider.name.upper()}

            FEED_URI_PARAMS = params
            FEEDS = {"%(kind)s.jl": {"format": "jsonlines"}}
        """,
    ),
    Case(
        name="feeds-in-batches",
        group="output",
        shows="`batch_item_count`: as many files, with as many items, and all items in them",
        args=(),
        source=_forty(item='yield {"page": "the same"}'),
        settings="""
            FEEDS = {"batch-%(batch_id)02d.jl": {"format": "jsonlines", "batch_item_count": 15}}
        """,
    ),
    Case(
        name="feeds-compressed",
        group="output",
        shows="post-processing: gzip, bz2 and xz",
        args=(),
        source=_forty(),
        settings="""
            PLUGIN = "scrapy.extensions.postprocessing."
            FEEDS = {
                f"items.jl.{end}": {"format": "jsonlines", "postprocessing": [PLUGIN + name], "overwrite": True}
                for end, name in (("gz", "GzipPlugin"), ("bz2", "Bz2Plugin"), ("xz", "LZMAPlugin"))
            }
        """,
    ),
    Case(
        name="feeds-filtered",
        group="output",
        shows="item classes and item filters of feeds",
        args=(),
        source=_forty(
            imports="""
            import scrapy

            class Book(scrapy.Item):
                number = scrapy.Field()

            class Even:
                def __init__(self, feed_options):
                    pass

                def accepts(self, item):
                    return item["number"] % 2 == 0
            """,
            item='yield Book(number=number) if number % 3 else {"number": number}',
        ),
        settings="""
            FEEDS = {
                "books.jl": {"format": "jsonlines", "item_classes": ["shop.spiders.Book"]},
                "even.jl": {"format": "jsonlines", "item_filter": "shop.spiders.Even"},
                "empty.json": {"format": "json", "item_classes": ["scrapy.Spider"], "store_empty": True},
                "none.json": {"format": "json", "item_classes": ["scrapy.Spider"], "store_empty": False},
            }
        """,
    ),
    Case(
        name="feeds-own-exporter-and-storage",
        group="output",
        shows="exporters and storages of the project's own",
        args=("-o", "mine://items.txt"),
        source=_forty(
            imports="""
            from pathlib import Path
            from scrapy.exporters import BaseItemExporter
            from scrapy.extensions.feedexport import BlockingFeedStorage

            class Exporter(BaseItemExporter):
                def __init__(self, file, **kwargs):
                    super().__init__(dont_fail=True, **kwargs)
                    self.file = file

                def export_item(self, item):
                    self.file.write(f"{item['number']}\\n".encode())

            class Storage(BlockingFeedStorage):
                def __init__(self, uri, *, feed_options=None):
                    self.name = uri.removeprefix("mine://")

                def _store_in_thread(self, file):
                    file.seek(0)
                    Path(self.name).write_bytes(file.read())
            """
        ),
        settings="""
            FEED_EXPORTERS = {"txt": "shop.spiders.Exporter"}
            FEED_STORAGES = {"mine": "shop.spiders.Storage"}
        """,
    ),
    Case(
        name="items-of-every-kind",
        group="output",
        shows="items as dict, `Item` with serializers, dataclass and attrs, and what is in them",
        args=("-O", "items.jsonl", "-O", "items.pickle"),
        source=_forty(
            imports="""
            import datetime
            import decimal
            from dataclasses import dataclass, field

            import attrs
            import scrapy

            class Book(scrapy.Item):
                number = scrapy.Field(serializer=lambda value: f"no. {value}")
                when = scrapy.Field()
                price = scrapy.Field()

            @dataclass
            class Data:
                number: int = field(metadata={"serializer": str})
                inner: list = field(default_factory=list)

            @attrs.define
            class Attrs:
                number: int
                data: Data | None = None

            """,
            item="""
            yield {"number": number, "nested": {"a": [1, {"b": None}]}, "set": sorted({3, 1})}
            yield Book(number=number, when=datetime.date(2024, 1, 1), price=decimal.Decimal("1.50"))
            yield Data(number, ["x"])
            yield Attrs(number, None)
            """,
        ),
    ),
    Case(
        name="items-pydantic",
        group="output",
        shows="pydantic models as items, as far as this Scrapy takes them",
        source=_forty(
            imports="""
            try:
                from pydantic import BaseModel
            except ImportError:
                from dataclasses import dataclass

                @dataclass
                class Product:
                    number: int
                    name: str
            else:
                class Product(BaseModel):
                    number: int
                    name: str = "x"
            """,
            item="""
            yield Product(number=number, name="y")
            """,
        ),
    ),
    Case(
        name="items-through-a-loader",
        group="output",
        shows="an item loader with processors",
        source=_forty(
            imports="""
            import scrapy
            from itemloaders.processors import Join, MapCompose, TakeFirst
            from scrapy.loader import ItemLoader

            class Page(scrapy.Item):
                number = scrapy.Field()
                text = scrapy.Field(input_processor=MapCompose(str.strip, str.upper), output_processor=Join("|"))

            class Loader(ItemLoader):
                default_item_class = Page
                default_output_processor = TakeFirst()
            """,
            item="""
            loader = Loader(response=response)
            loader.add_value("number", number)
            loader.add_css("text", "title::text")
            yield loader.load_item()
            """,
        ),
    ),
]

#: A pipeline for each habit.
_PIPELINES: Final = """
    import asyncio
    import json
    import sqlite3

    from itemadapter import ItemAdapter
    from scrapy.exceptions import DropItem


    class Lines:
        def open_spider(self, spider):
            self.file = open("lines.jl", "w")

        def close_spider(self, spider):
            self.file.close()

        def process_item(self, item, spider):
            self.file.write(json.dumps(ItemAdapter(item).asdict()) + "\\n")
            return item


    class Added:
        def open_spider(self, spider):
            self.file = open("added.jl", "a")

        def close_spider(self, spider):
            self.file.close()

        def process_item(self, item, spider):
            self.file.write(json.dumps(ItemAdapter(item).asdict()) + "\\n")
            return item


    class Database:
        def open_spider(self, spider):
            self.connection = sqlite3.connect("items.db")
            self.connection.execute("CREATE TABLE IF NOT EXISTS items (number INTEGER, name TEXT)")

        def close_spider(self, spider):
            self.connection.commit()
            self.connection.close()

        def process_item(self, item, spider):
            self.connection.execute("INSERT INTO items VALUES (?, ?)", (item["number"], item["name"]))
            return item


    class Once:
        def __init__(self):
            self.seen = set()

        def process_item(self, item, spider):
            if item["name"] in self.seen:
                raise DropItem(f"again: {item['name']}")
            self.seen.add(item["name"])
            return item


    class Later:
        async def process_item(self, item, spider):
            await asyncio.sleep(0.001)
            return {**item, "later": True}


    class Faulty:
        def process_item(self, item, spider):
            if item["number"] == 3:
                raise ValueError("no threes")
            return item


    class Counting:
        @classmethod
        def from_crawler(cls, crawler):
            made = cls()
            made.crawler = crawler
            return made

        def process_item(self, item, spider):
            self.crawler.stats.inc_value("shop/items")
            self.crawler.stats.max_value("shop/largest", item["number"])
            return item
"""


def _piped(
    name: str, shows: str, *pipelines: str, placed: str = "home", item: str = _DICT, **options: object
) -> Case:
    """A case with pipelines."""
    settings = "ITEM_PIPELINES = {%s}\n" % ", ".join(  # noqa: UP031 - braces
        f'"shop.pipelines.{pipeline}": {order}' for order, pipeline in enumerate(pipelines)
    )
    return Case(
        name=name,
        group="output",
        shows=shows,
        source=_forty(item=item),
        settings=settings + ('VSCRAPY_PIPELINES = "worker"\n' if placed == "worker" else ""),
        files={"shop/pipelines.py": _PIPELINES},
        loggers=("shop",),
        **options,  # type: ignore[arg-type]
    )


_PIPELINES_AND_FILES: Final = [
    _piped("pipelines-files", "pipelines that write a file and an SQLite database", "Lines", "Added", "Database"),
    _piped(
        "pipelines-drop-duplicates",
        "a pipeline that drops what it holds in `self` already",
        "Once",
        "Lines",
        item='yield {"name": f"name-{number % 7}"}',  # equal ones, as which of two comes first is not promised
        is_fast=True,
    ),
    _piped("pipelines-async", "`async def process_item`, before and behind others", "Later", "Counting", "Lines"),
    _piped("pipelines-raise", "a pipeline that raises: the error is logged and counted", "Faulty", "Lines"),
    _piped(
        "pipelines-on-workers",
        '`VSCRAPY_PIPELINES = "worker"`: async ones, stats, and a file that is added to',
        "Later",
        "Counting",
        "Added",
        "Faulty",
        placed="worker",
        preflight=frozenset({"pipeline-file"}),
    ),
    _piped(
        "pipelines-on-workers-files",
        '`VSCRAPY_PIPELINES = "worker"`: files that are written anew are told apart',
        "Lines",
        placed="worker",
        preflight=frozenset({"pipeline-file"}),
        unequal=(
            Unequal(
                "files",
                r"^lines(\.process-\d+)?\.jl$",
                "each crawl process has its own file, unless pipelines are at home",
                ways=("3 processes",),
            ),
        ),
    ),
    Case(
        name="files-of-the-tutorial",
        group="output",
        is_fast=True,
        shows="the first spider of Scrapy's tutorial writes its pages",
        args=(),
        exact=("*.html",),
        concurrency=None,
        least_processes=1,
        source="""
            from pathlib import Path

            import scrapy


            class QuotesSpider(scrapy.Spider):
                name = "case"

                async def start(self):
                    urls = ["http://demo.test/quotes/page/1/", "http://demo.test/quotes/page/2/"]
                    for url in urls:
                        yield scrapy.Request(url=url, callback=self.parse)

                def parse(self, response):
                    page = response.url.split("/")[-2]
                    filename = f"quotes-{page}.html"
                    Path(filename).write_bytes(response.body)
                    self.log(f"Saved file {filename}")
        """,
    ),
    Case(
        name="files-of-a-spider",
        preflight=frozenset({"one-file"}),
        group="output",
        shows="files that a spider writes, adds to and replaces, in directories of its own; a script too",
        source=_forty(
            imports="""
            import csv
            import json
            from pathlib import Path
            """,
            item="""
            Path("pages/new").mkdir(parents=True, exist_ok=True)
            Path(f"pages/new/{number}.html").write_bytes(response.body)
            with open("all.jl", "a") as lines:
                lines.write(json.dumps({"number": number}) + "\\n")
            with open("table.csv", "a", newline="") as table:
                writer = csv.DictWriter(table, ["number", "url"])
                if table.tell() == 0:
                    writer.writeheader()
                writer.writerow({"number": number, "url": response.url})
            with open("there.txt", "a") as there:
                there.write(f"{number}\\n")
            Path("last.json").write_text(json.dumps({"site": "the same"}))
            script = Path("run.sh")
            script.write_text("#!/bin/sh\\n")
            script.chmod(0o755)
            yield {"number": number}
            """,
        ),
        files={"there.txt": "was there\n"},
        exact=("*.html", "*.sh"),
    ),
    Case(
        name="files-log-of-the-project",
        group="output",
        shows="a log file that the project's own handler adds to",
        source=_forty(
            imports="""
            import logging

            handler = logging.FileHandler("own.log")
            handler.setFormatter(logging.Formatter("%(message)s"))
            notes = logging.getLogger("notes")
            notes.addHandler(handler)
            notes.propagate = False
            """,
            item="""
            notes.warning("page %d", number)
            yield {"number": number}
            """,
        ),
    ),
    Case(
        name="files-pipeline",
        group="output",
        concurrency=4,
        shows="`FilesPipeline` with a local store, at home",
        exact=("store/*",),
        source=_forty(item='yield {"file_urls": [f"http://demo.test/shop/image/{number + 1}.png"]}'),
        settings="""
            ITEM_PIPELINES = {"scrapy.pipelines.files.FilesPipeline": 1}
            FILES_STORE = "store"
        """,
    ),
    Case(
        name="files-pipeline-on-workers",
        group="output",
        shows="`FilesPipeline` with a local store, in the crawl processes",
        exact=("store/*",),
        source=_forty(item='yield {"file_urls": [f"http://demo.test/shop/image/{number + 1}.png"]}'),
        settings="""
            ITEM_PIPELINES = {"scrapy.pipelines.files.FilesPipeline": 1}
            FILES_STORE = "store"
            VSCRAPY_PIPELINES = "worker"
        """,
    ),
    Case(
        name="images-pipeline",
        group="output",
        concurrency=4,
        shows="`ImagesPipeline` with thumbnails, at home",
        exact=("store/*",),
        source=_forty(item='yield {"image_urls": [f"http://demo.test/shop/image/{number + 1}.png"]}'),
        settings="""
            ITEM_PIPELINES = {"scrapy.pipelines.images.ImagesPipeline": 1}
            IMAGES_STORE = "store"
            IMAGES_THUMBS = {"small": (4, 4)}
        """,
    ),
    Case(
        name="images-pipeline-on-workers",
        group="output",
        shows="`ImagesPipeline` with thumbnails, in the crawl processes",
        exact=("store/*",),
        source=_forty(item='yield {"image_urls": [f"http://demo.test/shop/image/{number + 1}.png"]}'),
        settings="""
            ITEM_PIPELINES = {"scrapy.pipelines.images.ImagesPipeline": 1}
            IMAGES_STORE = "store"
            VSCRAPY_PIPELINES = "worker"
        """,
    ),
]

CASES: Final = [*_FEEDS_AND_ITEMS, *_PIPELINES_AND_FILES]
