"""Libraries of mttl, the code of 2405.11157: for each expert NAME.ckpt and NAME.meta, pickles that are read as data."""
