"""How good a restored picture is: measures with and without an original, and the table that sums them up.

metrics    METRICS: of every metric what it is, what it needs and which way is better; opens them
fidelity   psnr, ssim, haar_psi and kin
detail     how strong and how true detail is
distance   a learned perceptual distance on EfficientNet-lite0
niqe       natural image quality, without an original
scoring    picture files scored one by one
summary    means over pictures, a markdown table, a verdict
study      which of two results people prefer
"""
