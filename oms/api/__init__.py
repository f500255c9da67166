"""The HTTP edge: parse, call one verb, render."""
