"""FilesPipeline and ImagesPipeline with a local store: the files are in the sender's store, wherever they ran."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from tests.integration.machine import Machine, Site, write_project

pytest_plugins = ["tests.integration.machine"]

SPIDER = """
    import scrapy


    class Pictures(scrapy.Spider):
        name = "pictures"
        custom_settings = {"CONCURRENT_REQUESTS": 2}

        async def start(self):
            for number in range(1, 13):
                yield scrapy.Request(f"{self.base}/quotes/page/1/?n={number}", cb_kwargs={"number": number})

        def parse(self, response, number):
            urls = [f"{self.base}/shop/image/{number}.png"]
            yield {"url": response.url, "file_urls": urls, "image_urls": urls}
"""

SETTINGS = """
    ITEM_PIPELINES = {"scrapy.pipelines.files.FilesPipeline": 1, "scrapy.pipelines.images.ImagesPipeline": 2}
    FILES_STORE = %r
    IMAGES_STORE = "pictures"
    IMAGES_THUMBS = {"small": (4, 4)}
"""


def tree(directory: Path) -> dict[str, bytes]:
    """All files below a directory."""
    return {
        path.relative_to(directory).as_posix(): path.read_bytes() for path in directory.rglob("*") if path.is_file()
    }


@pytest.mark.parametrize("placed", ["home", "worker"])
def test_media_files_are_in_the_sender_s_store(
    machine: Machine, tmp_path: Path, slow_site: Site, placed: str
) -> None:
    """The stores, and the items' account of them, are those of a local crawl."""
    machine.start_worker(slots=3)
    projects = [
        write_project(tmp_path / name, SPIDER, settings=SETTINGS % "files/all") for name in ("local", "spread")
    ]
    results = []
    for project, command in zip(projects, ("scrapy", "vscrapy"), strict=True):
        args = [command, "crawl", "pictures", "-a", f"base={slow_site.base}", "-O", "items.jl"]
        if command == "vscrapy":
            args += ["-s", f"VSCRAPY_PIPELINES={placed}"]
        finished = machine.run(args, project)
        assert finished.exit_code == 0, finished.stderr
        items = sorted((json.loads(line) for line in (project / "items.jl").read_text().splitlines()), key=str)
        for item in items:
            item["files"] = [{**file, "status": ""} for file in item["files"]]
        results.append((items, tree(project / "files"), sorted(tree(project / "pictures"))))
    local, spread = results
    assert spread == local
    assert len(spread[1]) == 12
    with Image.open(projects[1] / "pictures" / spread[2][0]) as picture:
        assert picture.format == "JPEG"
