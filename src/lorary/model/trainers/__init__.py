"""Where other people's training loops meet a library."""
