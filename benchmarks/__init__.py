"""Side by side with the peers, against the machine's floor: one JSON line a row. See NOTES.md."""
