"""The page at /: histories tried by hand, releases, nightly runs and traffic, in a browser.

Its own endpoints, below /page/, are internal: they change with the page.
"""
