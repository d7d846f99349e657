"""Settings of the project; https://docs.scrapy.org/en/latest/topics/settings.html explains each."""

BOT_NAME = "bookshop"
SPIDER_MODULES = ["bookshop.spiders"]
NEWSPIDER_MODULE = "bookshop.spiders"

USER_AGENT = "bookshop (+http://www.example.com)"
ROBOTSTXT_OBEY = True

CONCURRENT_REQUESTS = 16
CONCURRENT_REQUESTS_PER_DOMAIN = 16
DOWNLOAD_DELAY = 0

TELNETCONSOLE_ENABLED = False

ITEM_PIPELINES = {
    "bookshop.pipelines.PricePipeline": 300,
    "bookshop.pipelines.JsonLinesPipeline": 900,
}

FEED_EXPORT_ENCODING = "utf-8"
