"""One picture, restored on tensors: what `supir.pipeline` calls, and what it is made of.

restorer            encode, preview, anchor, sample, decode, colours: the order of the paper
denoiser_network    words for the networks, and one evaluation of adaptor and UNet
schedules           the options' noise levels and strengths
color               the result's colours from a reference picture
streaming           from file to file, where the pixels do not fit into memory
cropping            the clean preview of a part of a photo
backoff             smaller tiles where memory runs out
finite              answers that are no numbers, asked for again in wider arithmetic
step_preview        small pictures of a restoration under way
"""
