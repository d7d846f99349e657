"""A plain Scrapy project over the demo site."""
