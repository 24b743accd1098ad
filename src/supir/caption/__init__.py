"""Words for a picture, from whoever can describe it; they become its prompt (paper section 3.2).

    with captioner_of("models/llava-1.5-7b-hf") as captioner:
        text = captioner(readable(pipeline.preview("photo.jpg")))

A captioner reads the clean preview, not the damaged photo. The room stands above `data` and `weights`: it takes from
them what a text beside a picture means, how a picture becomes sRGB, and how a file is written whole. `data` itself
asks any callable with a name. Nothing heavy is imported here.
"""

from supir.caption.words import Caption, clean_caption
