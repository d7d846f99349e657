"""Run an unmodified Scrapy project on every worker that knows a Redis address."""

__version__ = "0.1.0"
