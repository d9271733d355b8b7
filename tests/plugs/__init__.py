"""Tests against published packages; itself a package, so that file names may repeat those of other tests."""
