"""What the entry points share: settings from flags and YAML, run folders, how a script begins and ends."""
