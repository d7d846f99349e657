"""
The agent on a worker: takes places in tasks, runs crawl processes there, and relays what they say.

The way through it: ``run`` starts the ``agent``, which looks at the tasks (``watch``); ``slots`` claims a place;
``checkout`` makes the project's directory, of a ``spare`` (a ``tree`` of files) if it can; ``spawner`` asks
``template`` for a fork; ``process`` is that fork until its end; ``lines`` and ``relay`` carry what it says to Redis.
``pulse`` keeps the worker alive there, ``reaper`` gives back what dead ones held, ``bell`` wakes the agent, and
``contact`` is the way to Redis for all of them.
Nothing here imports Scrapy or user code but ``template``.
"""
