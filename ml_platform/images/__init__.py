"""Images: files and bytes to the image struct of Spark, with an error instead of a null, and to features."""
