"""One file for each trainer or protocol that has its own way of calling a judge."""
