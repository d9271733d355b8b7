"""Files: rows, images, videos, run folders, and atomic writes."""
