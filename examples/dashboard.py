"""Show when each lane got to each status, for one job (JOB-1, or the first argument). Needs pandas."""

import os
import sys

import httpx
import pandas as pd

ACT = os.getenv("ACT_URL", "http://act")
job = sys.argv[1] if len(sys.argv) > 1 else "JOB-1"
# view=latest: one row per lane and status, so that the pivot works after retries too.
logs = httpx.get(f"{ACT}/stream?job={job}&view=latest").json()
df = pd.DataFrame(logs)  # id, status, lane, ts
print(df.pivot(index="lane", columns="status", values="ts").to_string())  # noqa: PD010 - pivot_table takes means
