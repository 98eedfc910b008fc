"""Yours: what an owner changes first. The stages call it, and it calls none of them."""
