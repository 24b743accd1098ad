"""Front ends: they translate what a person asks for into options and show what comes back."""
