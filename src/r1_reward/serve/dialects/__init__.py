"""One file for each trainer or protocol that asks a judge in its own words."""
