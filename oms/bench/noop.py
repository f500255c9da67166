"""The bare framework: a FastAPI app that does nothing, served as OMS is. ``python -m oms.bench.noop serve``."""

from __future__ import annotations

import argparse
import sys

from fastapi import FastAPI

from hmskit.server import bind, serve

app = FastAPI()


@app.get("/noop")
async def noop() -> dict[str, bool]:
    """Answer at once."""
    return {"ok": True}


@app.get("/readyz")
async def readyz() -> dict[str, bool]:
    """Be ready."""
    return {"ready": True}


def main() -> None:
    """Run as a process, with the services' command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=["serve"])
    parser.add_argument("--port", type=int, default=0)
    listener = bind("127.0.0.1", parser.parse_args().port)
    host, port = listener.getsockname()[:2]

    def say_ready() -> None:
        sys.stdout.write(f"noop: listening on http://{host}:{port}\n")
        sys.stdout.flush()

    serve(app, listener, on_ready=say_ready)


if __name__ == "__main__":
    main()
