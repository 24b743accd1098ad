"""How good a restored picture is: measures with and without an original, and the table that sums them up.

metrics    psnr, ssim, haar_psi and kin; METRICS tells of every measure what it needs and which way is better
distance   a learned perceptual distance on EfficientNet-lite0
niqe       natural image quality, without an original
measures   every measure ready to be called, or what is missing for it
scoring    picture files scored one by one
summary    means over pictures, a markdown table, a verdict
study      which of two results people prefer
"""
