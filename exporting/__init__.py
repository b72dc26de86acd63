"""Trained models as files for other runtimes, and as a page that computes in the browser."""
