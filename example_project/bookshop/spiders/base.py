"""What all spiders share: the site's address is an argument, ``-a base=http://host:port``."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote, urlsplit

from scrapy import Spider
from scrapy.http import Response

DEFAULT_BASE = "http://127.0.0.1:8000"


class SiteSpider(Spider):
    """A spider over the demo site; it has no name, so Scrapy does not list it."""

    #: Where the spider starts, below the site's address.
    start_path = "/"

    def __init__(self, *args: Any, base: str = DEFAULT_BASE, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.base = base.rstrip("/")
        self.start_urls = [self.base + self.start_path]
        # A host without its port: Scrapy compares hosts, and any port is then allowed.
        self.allowed_domains = [urlsplit(base).hostname or "127.0.0.1"]


def path_of(response: Response) -> str:
    """Return the path of a page, percent-decoded, without host, port and query."""
    return unquote(urlsplit(response.url).path)
