"""The Hub: how it is named and asked, what of a library goes there, and the card that stands beside it."""
