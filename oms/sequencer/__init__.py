"""The verbs: one file each. A verb takes an open transaction and a batch of wishes, and answers each in its place.

What it refuses is a value (an `OmsError`) in that wish's place; the others of the batch stand.
"""
