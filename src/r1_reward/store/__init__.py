"""Things on disk: rows, pictures, video, run folders, files that are complete or not there."""
