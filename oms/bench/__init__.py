"""``oms bench``: the pair's speed, each figure beside the bare framework's of the same run."""
