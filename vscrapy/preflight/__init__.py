"""
The preflight: what in a project behaves otherwise on several crawl processes, found before the crawl starts.

It reads the sources of the spider and of the project's classes that the settings name, and never of installed
packages. What it names is surely there; what it is not sure of, it does not name. It takes milliseconds, submits
nothing and needs no Redis. The way through the folder: ``source``, ``scan``, ``subject``, ``state``, then
``spiders``, ``components`` and ``settings``, and ``report``.
"""
