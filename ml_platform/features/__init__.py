"""Raw columns into features: fitted with Spark, applied by one Arrow and NumPy function everywhere."""
