"""How the bundled model is trained: one file a stage, each run with ``python -m supir.training.STAGE --out RUN``."""
