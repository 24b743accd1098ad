"""What learns in each stage of a training run: its modules, its loss, its sheet of samples. A file a stage."""
