"""What training maximises, of a batch."""
