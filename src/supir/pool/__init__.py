"""Workers: in this process, in processes of this machine, or on Ray. What they work on is not known here."""
