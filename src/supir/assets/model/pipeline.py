"""Lets diffusers open this folder where supir is installed; supir itself does not run it.

DiffusionPipeline.from_pretrained(FOLDER, custom_pipeline=FOLDER, trust_remote_code=True)
"""

from supir.pipeline import SupirPipeline

__all__ = ["SupirPipeline"]
