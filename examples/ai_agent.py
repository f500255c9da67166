"""A worker of the lane ai_extract, by hand: poll, work, complete. examples/clerk.py does it with the SDK."""

import os
import time

import httpx

OMS = os.getenv("OMS_URL", "http://oms")
while True:
    task = httpx.get(f"{OMS}/pull?lane=ai_extract").json()
    if not task:  # no work
        time.sleep(2)
        continue
    # pretend we processed OCR
    result = {"passport_no": "987654321"}
    httpx.post(
        f"{OMS}/complete",
        json={
            "task_id": task["task_id"],
            "token": task["token"],  # the boarding pass: without it a stale worker could complete another's attempt
            "output": result,
        },
    )
