"""
The load: a spider over a download handler in its own process, so that the framework is measured and not a server.

A page comes after 20 ms and has 20 links, of which nearly all lead to pages that are known already.
"""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Final

#: Latency of a page (seconds).
LATENCY_S: Final = 0.02
#: Links of a page.
N_LINKS: Final = 20

_SPIDER: Final = """
    from scrapy import Spider


    class Pages(Spider):
        name = "pages"
        start_urls = ["http://pages.test/0"]

        def parse(self, response):
            yield {"url": response.url, "title": response.css("title::text").get()}
            for link in response.css("a::attr(href)").getall():
                yield response.follow(link)
    """

_HANDLER: Final = """
    import asyncio

    from scrapy.core.downloader.handlers.base import BaseDownloadHandler
    from scrapy.http import HtmlResponse


    class Handler(BaseDownloadHandler):
        async def download_request(self, request):
            await asyncio.sleep(LATENCY_S)
            number, n_pages = int(request.url.rpartition("/")[2]), self.crawler.settings.getint("PAGES")
            links = ((number * N_LINKS + link) % (n_pages - 1) + 1 for link in range(N_LINKS))
            body = f"<title>Page {number}</title>" + "".join(f'<p><a href="/{link}">page</a></p>' for link in links)
            return HtmlResponse(request.url, body=body.encode(), encoding="utf-8", request=request)
    """

_SETTINGS: Final = """
    BOT_NAME = "load"
    SPIDER_MODULES = ["load.spiders"]
    DOWNLOAD_HANDLERS = {"http": "load.handler.Handler"}
    CONCURRENT_REQUESTS = CONCURRENT_REQUESTS_PER_DOMAIN = 64
    DOWNLOAD_DELAY = 0
    LOG_LEVEL = "INFO"
    """


def write(directory: Path) -> Path:
    """Write the project; how many pages there are is its setting PAGES."""
    package = directory / "load"
    package.mkdir(parents=True)
    numbers = f"\nLATENCY_S, N_LINKS = {LATENCY_S}, {N_LINKS}\n"
    for path, text in {
        directory / "scrapy.cfg": "[settings]\ndefault = load.settings\n",
        package / "__init__.py": "",
        package / "settings.py": textwrap.dedent(_SETTINGS),
        package / "spiders.py": textwrap.dedent(_SPIDER),
        package / "handler.py": textwrap.dedent(_HANDLER).replace("\n\n\nclass", f"\n{numbers}\n\nclass", 1),
    }.items():
        path.write_text(text.lstrip("\n"))
    return directory
