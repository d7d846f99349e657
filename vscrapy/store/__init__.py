"""What stands on Redis, and every operation on it. The only importer of ``redis``."""
