"""Keeps a private GPU model server running exactly while it is wanted, behind one fast address."""

__version__ = "0.1.0"
