"""The rank side: what a Horovod rank runs. Imports no Prefect, Spark or MLflow.

`python -m ml_platform.worker` is one rank; `Rank` is what a rank function gets.
"""
