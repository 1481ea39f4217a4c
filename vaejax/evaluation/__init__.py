"""What a trained model is worth, over a whole data set."""
