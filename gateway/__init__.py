"""REST, and a page to draw a digit on, for those who do not speak gRPC.

A client of the server like any other: it uses `client`, and nothing else of ours.
"""
