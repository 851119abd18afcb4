"""Reads results of finished runs, collects them over seeds and compares them."""
