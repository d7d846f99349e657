"""What is plugged into the user's Scrapy, in a crawl process."""
