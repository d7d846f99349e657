"""What the letter costs: ``scrapy crawl`` and vscrapy side by side, in one run, on the machine at hand."""
