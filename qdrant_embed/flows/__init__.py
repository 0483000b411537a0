"""The mechanism of flows, which are written once for both clients: requests, retries, progress.

A flow of another room enters with a `CollectionRequests`; `Io` runs what it awaits.
"""
