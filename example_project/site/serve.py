"""
Serve the demo site: ``python example_project/site/serve.py --port 0``.

Prints one line, ``demo site: http://HOST:PORT/``, when it listens; ends on SIGTERM and
SIGINT. The modules beside this one are imported as siblings: the folder is never a
package, for the standard library has a module named ``site``.
"""

# Twisted annotates its servers in part only.
# mypy: disable-error-code=no-untyped-call

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import cast

from accesslog import AccessLog
from catalog import build
from latency import Latency
from resources import DemoSite
from routes import Routes
from twisted.internet import reactor as _reactor
from twisted.internet.posixbase import PosixReactorBase
from twisted.web.server import Site


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Serve the demo site.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=8000, help="port; 0 takes a free one")
    parser.add_argument("--seed", type=int, default=1, help="what the content is made from")
    parser.add_argument("--delay-ms", type=int, default=0, help="latency added to each page")
    parser.add_argument("--log", type=Path, help="file to append the access log to")
    parser.add_argument("--port-file", type=Path, help="file to write the port to")
    return parser.parse_args()


def _publish_port(path: Path, port: int) -> None:
    """Write the port so that a reader sees the whole number or no file."""
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    draft.write_text(f"{port}\n")
    draft.replace(path)


def main() -> None:
    """Serve until a signal ends it."""
    arguments = _arguments()
    reactor = cast(PosixReactorBase, _reactor)
    file = arguments.log.open("a", encoding="utf-8") if arguments.log else None
    log = AccessLog(file)
    latency = Latency(arguments.delay_ms)
    site = Site(DemoSite(Routes(build(arguments.seed), log, latency), log, reactor, latency))
    site.displayTracebacks = False
    listener = reactor.listenTCP(arguments.port, site, backlog=512, interface=arguments.host)
    port = listener.getHost().port
    if arguments.port_file:
        _publish_port(arguments.port_file, port)
    print(f"demo site: http://{arguments.host}:{port}/", flush=True)
    reactor.run()
    if file is not None:
        file.close()


if __name__ == "__main__":
    main()
