"""`python -m supir.cli`, as `accelerate launch -m` starts it."""

from supir.cli.main import main

main()
