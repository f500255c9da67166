"""Start a passport renewal and print the job."""

import os
import uuid

import httpx

OMS = os.getenv("OMS_URL", "http://oms")
plan = "passport_renewal"
ticket = str(uuid.uuid4())

payload = {"plan": plan, "reference": ticket}
r = httpx.post(f"{OMS}/start", json=payload)
print(r.json())
