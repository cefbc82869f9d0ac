"""What a backend keeps beside the store: annotations, quota roots, delivered Message-IDs, keys of URLs."""
