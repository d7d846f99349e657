"""What a crawl left behind, in a form that two runs can be compared by; shared with the parity suite."""

from __future__ import annotations

import datetime
import re
from collections import Counter
from typing import Any, Final

from tests.integration.machine import Finished, Site

#: Stats that differ between two runs of "scrapy crawl" itself, or count what is not the crawl.
VARYING: Final = re.compile(
    # Times and rates, and the memory of this very process.
    r"start_time|finish_time|elapsed_time_seconds|\w+_per_minute|memusage/"
    # Each crawl process logs its own start and end, and counts it.
    r"|log_count/"
    # The order of the requests decides from which page, and at which depth, a page is reached first.
    r"|downloader/request_bytes|request_depth_max"
)
#: Twisted repeats requests that were hung up on, as it sees fit.
REPEATED: Final = re.compile(r"GET /trouble/hangup/")


def requests(site: Site) -> Counter[str]:
    """Method, path and query of each request that the site got, and how often."""
    found = Counter(f"{entry['method']} {entry['path']}?{entry['query']}" for entry in site.log())
    return Counter({request: count for request, count in found.items() if not REPEATED.match(request)})


def dumped_stats(finished: Finished) -> dict[str, Any]:
    """The stats that a run has printed; fails unless it printed them once."""
    assert finished.stderr.count("Dumping Scrapy stats") == 1, finished.stderr
    found = re.search(r"Dumping Scrapy stats:\n(\{.*?\})\n", finished.stderr, re.DOTALL)
    assert found is not None, finished.stderr
    stats: dict[str, Any] = eval(found.group(1), {"datetime": datetime})  # Scrapy prints datetimes.
    return stats


def fixed(stats: dict[str, Any]) -> dict[str, Any]:
    """The stats that must be the same in two runs."""
    return {name: value for name, value in stats.items() if not VARYING.match(name)}
