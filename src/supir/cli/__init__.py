"""The command `supir`, a file a command: they translate what a person asks for and show what comes back."""
