"""The bare framework: a FastAPI app that does nothing, served as OMS is. ``python -m oms.bench.noop PORT``."""

from __future__ import annotations

import sys

from fastapi import FastAPI

from hmskit.server import bind, serve

app = FastAPI()


@app.get("/noop")
async def noop() -> dict[str, bool]:
    """Answer at once."""
    return {"ok": True}


if __name__ == "__main__":
    serve(app, bind("127.0.0.1", int(sys.argv[1])))
