"""Scans of whole corpora: readers, exact de-duplication, the statistics of many documents, engines."""
