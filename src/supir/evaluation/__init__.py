"""How good a restored picture is: measures with and without an original, and the table that sums them up.

metrics    psnr, psnr_y, ssim, haar_psi; METRICS tells of each measure what it needs and which way is better
distance   a learned perceptual distance on EfficientNet-lite0
niqe       natural image quality, without an original
summary    means over pictures, a markdown table, a verdict
"""
