"""Tests against published packages; a package, so that their files may have the names of files elsewhere."""
