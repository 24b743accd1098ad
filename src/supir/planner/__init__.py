"""What a restoration will cost before it is made, and the tiles that fit into a given memory.

costs    which parts of the networks each step runs; bytes and operations of those parts, from a model folder's
         configurations alone; operations a second of this machine
kept     the same, of what was traced before, and how fast a model last ran here
plan     dtype, tiles, memory and time, each with its reason; which dtype and storage would fit where these do not
"""
