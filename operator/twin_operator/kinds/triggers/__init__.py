"""Which change wakes what: the table, and the words of which its rows are made."""
