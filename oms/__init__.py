"""OMS, the tower: who works next, and when."""

__version__ = "0.1.0"
