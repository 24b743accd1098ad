"""How good a restored picture is: measures with and without an original, and the table that sums them up.

metrics    METRICS: of every metric what it is, what it needs and which way is better; opens them
fidelity   psnr, ssim, haar_psi, detail_balance and kin
niqe       natural image quality, without an original
summary    picture files scored one by one; means over pictures, tables, a verdict
study      which of two results people prefer
"""
