"""``oms bench``: the pair's speed, each figure beside the bare framework's of the same run.

`run` strings it together. `load` is the process that makes the load (`connection`, `scenarios`, `handoff`, `cycle`,
`fill`); `driver` starts it and reads what it says; `throughput`, `waiting`, `delivery`, `backlog`, `growth` and
`soak` are what is measured; `targets` and `report` show it.
"""
